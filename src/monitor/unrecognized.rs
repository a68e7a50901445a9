//! What a source sends that is not a message of affectd, in words that help to find the reason.

use std::fmt;

use serde_json::{Map, Value};

/// The longest quotation, in characters.
const MAX_QUOTED: usize = 40;
/// The most fields that are named.
const MAX_FIELDS: usize = 4;

/// An invalid line or frame. [`fmt::Display`] says what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unrecognized {
    /// Text, of which this is the beginning.
    Text(String),
    /// A JSON object with these fields.
    Json(String),
    /// A message with another `schema`.
    Schema(u64),
    /// A message in which a field is missing or out of range.
    Damaged,
    /// A frame whose checksum is wrong.
    Frame,
    /// A line of affectd's own log. It is not an error.
    Log,
    TooLong,
    Bytes,
}

impl Unrecognized {
    /// A line that is neither JSON nor CSV.
    pub fn of_line(line: &[u8]) -> Unrecognized {
        let line = String::from_utf8_lossy(line.trim_ascii());
        // Of a long line, only the beginning is worth keeping.
        let quoted: String = line.chars().take(MAX_QUOTED).collect();
        Unrecognized::Text(match quoted.len() < line.len() {
            true => quoted + "…",
            false => quoted,
        })
    }

    pub fn of_json(object: &Map<String, Value>) -> Unrecognized {
        let mut fields: Vec<String> = object.keys().take(MAX_FIELDS).map(|key| cut(key)).collect();
        if object.len() > MAX_FIELDS {
            fields.push("…".into());
        }
        Unrecognized::Json(fields.join(", "))
    }

    /// Whether it is counted as an invalid line.
    pub fn is_fault(&self) -> bool {
        *self != Unrecognized::Log
    }

    /// What to do about it, if this is known better than from the source.
    pub fn mend(&self) -> Option<&'static str> {
        match self {
            Unrecognized::Schema(_) => Some("update this affectd to the version of the device"),
            Unrecognized::Log => Some("its estimates are on standard output and in the files of --output"),
            _ => None,
        }
    }
}

impl fmt::Display for Unrecognized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unrecognized::Text(text) => write!(f, "text such as “{text}”"),
            Unrecognized::Json(fields) if fields.is_empty() => write!(f, "empty JSON objects"),
            Unrecognized::Json(fields) => write!(f, "JSON of another program, with the fields {fields}"),
            Unrecognized::Schema(schema) => write!(f, "messages of schema {schema}, which this version does not know"),
            Unrecognized::Damaged => write!(f, "estimates with a value that is missing or out of range"),
            Unrecognized::Frame => write!(f, "damaged frames"),
            Unrecognized::Log => write!(f, "the log of affectd"),
            Unrecognized::TooLong => write!(f, "lines that are too long"),
            Unrecognized::Bytes => write!(f, "bytes that are neither text nor frames of affectd"),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}
