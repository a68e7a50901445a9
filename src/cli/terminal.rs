//! Text for standard output and standard error. A closed pipe, a full disk or a terminal that nobody reads is never a panic and
//! never blocks for ever.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::error::CommandError;
use crate::printable::{printable, printable_lines};

/// How long a message waits for room in standard error. After that it is dropped.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// Prints the lines of a command to standard output.
#[derive(Debug, Default)]
pub struct Printer {
    reader_gone: bool,
}

impl Printer {
    /// Prints text of several lines, with escapes for what could control the terminal. A reader that closes early, such as
    /// `head`, is not an error: later text is dropped.
    pub fn text(&mut self, text: &str) -> Result<(), CommandError> {
        self.write(&printable_lines(text))
    }

    fn write(&mut self, text: &str) -> Result<(), CommandError> {
        if self.reader_gone {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.reader_gone = true,
            result => result.map_err(CommandError::NotPrinted)?,
        }
        Ok(())
    }

    /// Whether nobody reads standard output any more.
    pub fn is_reader_gone(&self) -> bool {
        self.reader_gone
    }

    /// Replaces the current line of a terminal, which is `width` columns wide. The text must not wrap, so its end is cut. Spaces
    /// cover the line before, which works on every terminal.
    pub fn replace_line(&mut self, line: &str, width: usize) -> Result<(), CommandError> {
        let columns = width.saturating_sub(1);
        let shown: String = printable(line).chars().take(columns).collect();
        self.write(&format!("\r{shown:columns$}"))
    }

    /// Prints one line, with escapes for what could control the terminal.
    pub fn line(&mut self, line: &str) -> Result<(), CommandError> {
        self.text(&format!("{}\n", printable(line)))
    }
}

/// Prints text of several lines to standard output, with escapes for what could control the terminal.
pub fn print(text: &str) -> Result<(), CommandError> {
    Printer::default().text(text)
}

/// Standard error, which drops what nobody reads.
#[derive(Debug, Default)]
pub struct Stderr {
    /// The last write found no room. Until there is some, writes do not wait.
    is_stuck: bool,
}

impl Stderr {
    /// Whether there is room now or soon.
    fn has_room(&mut self) -> bool {
        let timeout = match self.is_stuck {
            true => Duration::ZERO,
            false => STDERR_TIMEOUT,
        };
        let mut poll = libc::pollfd {
            fd: io::stderr().as_fd().as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one live pollfd, and the count is one.
        self.is_stuck = unsafe { libc::poll(&mut poll, 1, timeout) } == 0;
        !self.is_stuck
    }
}

impl Write for Stderr {
    /// Reports all bytes as written: nobody can be told about an error of standard error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_room() {
            let _ = io::stderr().write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints text of several lines to standard error, with escapes for what could control the terminal.
pub fn print_to_stderr(text: &str) {
    let _ = Stderr::default().write_all(printable_lines(text).as_bytes());
}

/// Prints one line to standard error, with escapes for what could control the terminal.
pub fn print_error(message: &str) {
    let _ = Stderr::default().write_all(format!("affectd: {}\n", printable(message)).as_bytes());
}
