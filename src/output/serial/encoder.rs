//! The two forms of a message on a serial line: JSON lines and binary frames.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use serde_json::Value;

use crate::fusion::Estimate;
use crate::output::line_encoder::{Format, LineEncoder};
use crate::output::wire::{self, Message, Record};

/// The form of the messages on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Json,
    Frame,
}

impl Wire {
    /// The byte that ends a message.
    pub fn delimiter(self) -> u8 {
        match self {
            Wire::Json => b'\n',
            Wire::Frame => wire::DELIMITER,
        }
    }

    /// The usual length of an estimate, in bytes.
    pub fn usual_bytes(self) -> u32 {
        match self {
            Wire::Json => 330,
            Wire::Frame => 38,
        }
    }
}

impl FromStr for Wire {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Wire::Json),
            "frame" => Ok(Wire::Frame),
            _ => Err("must be json or frame"),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wire::Json => "json",
            Wire::Frame => "frame",
        })
    }
}

/// Encodes estimates and answers, each with its delimiter.
#[derive(Debug)]
pub struct SerialEncoder {
    wire: Wire,
    lines: LineEncoder,
}

impl SerialEncoder {
    pub fn new(wire: Wire) -> SerialEncoder {
        SerialEncoder {
            wire,
            lines: LineEncoder::new(Format::Json),
        }
    }

    pub fn estimate(&mut self, estimate: &Estimate) -> Vec<u8> {
        match self.wire {
            Wire::Json => self.lines.encode(estimate).to_vec(),
            Wire::Frame => frame(&Message::Estimate(Record::new(estimate, Instant::now()))),
        }
    }

    pub fn answer(&self, answer: &Value) -> Vec<u8> {
        match self.wire {
            Wire::Json => format!("{answer}\n").into_bytes(),
            Wire::Frame => frame(&Message::Text(answer.to_string())),
        }
    }
}

fn frame(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}
