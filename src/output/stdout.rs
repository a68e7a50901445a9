//! Lines on standard output.

use std::io::{ErrorKind, Write};

use super::lines::{Format, Lines};
use super::{Output, OutputError};
use crate::fusion::Estimate;

#[derive(Debug)]
pub struct Stdout {
    lines: Lines,
    /// What goes before the first line.
    header: Option<&'static str>,
}

impl Stdout {
    pub fn new(format: Format) -> Stdout {
        Stdout {
            lines: Lines::new(format),
            header: format.header(),
        }
    }
}

impl Output for Stdout {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        if let Some(header) = self.header.take() {
            put(format!("{header}\n").as_bytes())?;
        }
        put(self.lines.line(estimate))
    }
}

/// One write a line: a reader never sees half of one.
fn put(line: &[u8]) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    out.write_all(line)
        .and_then(|()| out.flush())
        .map_err(|e| match e.kind() {
            ErrorKind::BrokenPipe => OutputError::ReaderGone,
            _ => OutputError::Failed(format!(
                "stdout: cannot be written ({e}): free space where it goes, or send it elsewhere"
            )),
        })
}
