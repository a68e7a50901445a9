//! Estimates as lines of text, each with its line end.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use super::wall_clock::WallClock;
use super::{csv, estimate};
use crate::fusion::Estimate;

/// The format of a text line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
}

impl Format {
    /// The line above the first estimate.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Format::Json => None,
            Format::Csv => Some(csv::HEADER),
        }
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Format::Json),
            "csv" => Ok(Format::Csv),
            _ => Err("must be json or csv"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Json => "json",
            Format::Csv => "csv",
        })
    }
}

/// Encodes estimates into one buffer, which it reuses.
#[derive(Debug)]
pub struct LineEncoder {
    format: Format,
    clock: WallClock,
    line: Vec<u8>,
}

impl LineEncoder {
    pub fn new(format: Format) -> LineEncoder {
        LineEncoder {
            format,
            clock: WallClock::default(),
            line: Vec::new(),
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The line for `estimate`, with the time of day and the latency as of now.
    pub fn encode(&mut self, estimate: &Estimate) -> &[u8] {
        self.line.clear();
        let (now, wall) = (Instant::now(), self.clock.now());
        match self.format {
            Format::Json => estimate::write_json(estimate, &mut self.line, now, wall),
            Format::Csv => csv::write_row(estimate, &mut self.line, now, wall),
        }
        self.line.push(b'\n');
        &self.line
    }
}
