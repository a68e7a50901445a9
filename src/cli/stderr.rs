//! Standard error, and lines of a terminal that are replaced.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::printable::printable;

/// How long a message waits for room in standard error. After that it is dropped.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// The width of a terminal that does not tell it.
const USUAL_COLUMNS: usize = 80;

/// The columns of the line on standard error that is replaced again and again. Whatever is written there covers it first.
static REPLACED: Mutex<usize> = Mutex::new(0);

/// The columns of a terminal.
pub fn columns(terminal: impl AsFd) -> usize {
    // SAFETY: `winsize` is plain data for which all zeroes is a valid value, and the pointer is to a live local.
    let columns = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        match libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) {
            0 => size.ws_col,
            _ => 0,
        }
    };
    match columns {
        0 => USUAL_COLUMNS,
        columns => columns.into(),
    }
}

/// What replaces the current line of a terminal. The text must not wrap, so its end is cut. Spaces cover the line before, which
/// works on every terminal.
pub fn replacing(line: &str, columns: usize) -> String {
    let columns = columns.saturating_sub(1);
    let shown: String = printable(line).chars().take(columns).collect();
    format!("\r{shown:columns$}")
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

impl Stderr {
    /// Replaces the line that was shown last in this way, until something else is written. An empty line removes it.
    pub fn replace_line(&mut self, line: &str) {
        let mut replaced = REPLACED.lock().unwrap_or_else(PoisonError::into_inner);
        let columns = columns(io::stderr());
        let (text, shown) = match line {
            "" if *replaced == 0 => return,
            "" => (replacing("", *replaced + 1) + "\r", 0),
            line => (replacing(line, columns), columns.saturating_sub(1)),
        };
        if self.has_room() {
            let _ = io::stderr().write_all(text.as_bytes());
            *replaced = shown;
        }
    }
}

impl Write for Stderr {
    /// Reports all bytes as written: nobody can be told about an error of standard error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut replaced = REPLACED.lock().unwrap_or_else(PoisonError::into_inner);
        let covered = std::mem::take(&mut *replaced);
        if self.has_room() {
            let cover = match covered {
                0 => String::new(),
                columns => format!("\r{:columns$}\r", ""),
            };
            let _ = io::stderr().write_all(&[cover.as_bytes(), bytes].concat());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
