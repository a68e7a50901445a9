//! JSON lines on standard output.

use std::io::{ErrorKind, Write};
use std::time::Instant;

use super::estimate::write_json;
use super::wall_clock::WallClock;
use super::{Output, OutputError};
use crate::fusion::Estimate;

#[derive(Debug, Default)]
pub struct Stdout {
    line: Vec<u8>,
    clock: WallClock,
}

impl Output for Stdout {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        self.line.clear();
        write_json(estimate, &mut self.line, Instant::now(), self.clock.now());
        self.line.push(b'\n');
        // One write a line: a reader never sees half of one.
        let mut out = std::io::stdout().lock();
        out.write_all(&self.line)
            .and_then(|()| out.flush())
            .map_err(|e| match e.kind() {
                ErrorKind::BrokenPipe => OutputError::ReaderGone,
                _ => OutputError::Failed(format!(
                    "stdout: cannot be written ({e}): free space where it goes, or send it elsewhere"
                )),
            })
    }
}
