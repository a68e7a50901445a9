//! An estimate as a line of text, with its line end.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use super::wall_clock::WallClock;
use super::{csv, estimate};
use crate::fusion::Estimate;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
}

impl Format {
    /// What stands above the first line.
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
            _ => Err("is json or csv"),
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

/// Writes estimates into one line after the other, in the same memory.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    clock: WallClock,
    line: Vec<u8>,
}

impl Lines {
    pub fn new(format: Format) -> Lines {
        Lines {
            format,
            clock: WallClock::default(),
            line: Vec::new(),
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// `estimate` as it is now.
    pub fn line(&mut self, estimate: &Estimate) -> &[u8] {
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
