//! Lines on standard output.

use std::io::{ErrorKind, Write};

use super::contract::{Output, OutputError};
use super::line_encoder::{Format, LineEncoder};
use crate::fusion::Estimate;

#[derive(Debug)]
pub struct Stdout {
    encoder: LineEncoder,
    /// Written before the first line.
    header: Option<&'static str>,
}

impl Stdout {
    pub fn new(format: Format) -> Stdout {
        Stdout {
            encoder: LineEncoder::new(format),
            header: format.header(),
        }
    }
}

impl Output for Stdout {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        if let Some(header) = self.header.take() {
            write_line(format!("{header}\n").as_bytes())?;
        }
        write_line(self.encoder.encode(estimate))
    }
}

/// Writes and flushes a whole line, so that a reader never sees half of one.
fn write_line(line: &[u8]) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    out.write_all(line)
        .and_then(|()| out.flush())
        .map_err(|e| match e.kind() {
            ErrorKind::BrokenPipe => OutputError::ReaderGone,
            _ => OutputError::Failed(format!(
                "stdout: cannot be written ({e}): free space on its disk, or redirect it to another file"
            )),
        })
}
