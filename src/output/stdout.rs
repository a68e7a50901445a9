//! Lines on standard output.

use std::io::{ErrorKind, IsTerminal, Write};

use super::contract::{Output, OutputError};
use super::line_encoder::{Format, LineEncoder};
use crate::fusion::Estimate;

#[derive(Debug)]
pub struct Stdout {
    encoder: LineEncoder,
    /// Written before the first line.
    header: Option<&'static str>,
    is_terminal: bool,
}

impl Stdout {
    pub fn new(format: Format) -> Stdout {
        Stdout {
            encoder: LineEncoder::new(format),
            header: format.header(),
            is_terminal: std::io::stdout().is_terminal(),
        }
    }
}

impl Output for Stdout {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        if let Some(header) = self.header.take() {
            write_line(format!("{header}\n").as_bytes(), self.is_terminal)?;
        }
        write_line(self.encoder.encode(estimate), self.is_terminal)
    }
}

/// Writes and flushes a whole line, so that a reader never sees half of one.
fn write_line(line: &[u8], is_terminal: bool) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    out.write_all(line)
        .and_then(|()| out.flush())
        .map_err(|e| match e.kind() {
            ErrorKind::BrokenPipe => OutputError::ReaderGone,
            // A terminal that was closed.
            _ if is_terminal && e.raw_os_error() == Some(libc::EIO) => OutputError::ReaderGone,
            _ => OutputError::Failed(format!(
                "stdout: cannot be written ({e}): free space on its disk, or redirect it to another file"
            )),
        })
}
