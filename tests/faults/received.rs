//! What the readers of the outputs have received.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// A stream of JSON lines.
#[derive(Default)]
pub struct Lines {
    /// The beginning of a line.
    rest: Vec<u8>,
    pub estimates: Vec<Value>,
    /// Lines that are neither an estimate nor an answer to a command.
    pub invalid: Vec<String>,
    pub answers: usize,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
            let after = self.rest.split_off(at + 1);
            let line = std::mem::replace(&mut self.rest, after);
            self.push_line(line.strip_suffix(b"\n").unwrap_or(&line));
        }
    }

    fn push_line(&mut self, line: &[u8]) {
        match serde_json::from_slice::<Value>(line) {
            // A delimiter, or what a test has written to fill a pipe or a port.
            _ if line.trim_ascii().is_empty() => {}
            Ok(json) if json["seq"].is_u64() => self.estimates.push(json),
            Ok(json) if json["ok"] != Value::Null || json["error"].is_string() => self.answers += 1,
            _ => self.invalid.push(String::from_utf8_lossy(line).into_owned()),
        }
    }

    /// The line was interrupted.
    pub fn break_off(&mut self) {
        self.rest.clear();
    }

    pub fn last(&self) -> u64 {
        self.seqs().last().unwrap_or_default()
    }

    pub fn seqs(&self) -> impl Iterator<Item = u64> {
        self.estimates.iter().filter_map(seq)
    }
}

pub fn seq(estimate: &Value) -> Option<u64> {
    estimate["seq"].as_u64()
}

/// The lines of a file from the beginning; none if it is absent.
pub fn lines_of(path: &Path) -> Lines {
    let mut lines = Lines::default();
    lines.push(&fs::read(path).unwrap_or_default());
    lines
}

/// The lines of all files in a folder whose names begin with `prefix`, in the order of their numbers.
pub fn lines_in(folder: &Path, prefix: &str) -> Lines {
    let mut files: Vec<Lines> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| lines_of(&entry.path()))
        .collect();
    files.sort_by_key(|lines| lines.seqs().next());
    let mut all = Lines::default();
    for lines in files {
        all.estimates.extend(lines.estimates);
        all.invalid.extend(lines.invalid);
        if !lines.rest.is_empty() {
            all.invalid.push(String::from_utf8_lossy(&lines.rest).into_owned());
        }
    }
    all
}
