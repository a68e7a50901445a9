//! Text for standard output and standard error. A closed pipe, a full disk or a terminal that nobody reads is never a panic and
//! never blocks for ever.

use std::io::{self, ErrorKind, Write};

use super::error::CommandError;
use super::stderr::{Stderr, columns, replacing};
use crate::printable::{printable, printable_lines};

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

    /// Replaces the current line of the terminal.
    pub fn replace_line(&mut self, line: &str) -> Result<(), CommandError> {
        self.write(&replacing(line, columns(io::stdout())))
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

/// Prints text of several lines to standard error, with escapes for what could control the terminal.
pub fn print_to_stderr(text: &str) {
    let _ = Stderr::default().write_all(printable_lines(text).as_bytes());
}

/// Prints one line to standard error, with escapes for what could control the terminal.
pub fn print_error(message: &str) {
    let _ = Stderr::default().write_all(format!("affectd: {}\n", printable(message)).as_bytes());
}
