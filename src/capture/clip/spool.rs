//! Clips that can be read only once: standard input, named pipes and addresses.
//!
//! Their video and their audio are read separately, so they are copied to a temporary file first. It has no name, and is gone when
//! affectd ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::info;

use crate::capture::CaptureError;
use crate::capture::error::{Operation, Reason, SourceKind};
use crate::capture::program::{CommandLine, is_readable};

/// How soon a stop is noticed.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// A server that sends nothing for this long is given up.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);

/// A clip that can be read only once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    StandardInput,
    Fifo(PathBuf),
    /// ffmpeg fetches it.
    Address(CommandLine),
}

/// A copy of such a clip.
#[derive(Debug)]
pub struct Spool {
    file: File,
}

impl Once {
    /// Whether `path` names such a clip. An error if it names a stream without an end.
    pub fn of(path: &Path) -> Result<Option<Once>, CaptureError> {
        if path == Path::new("-") {
            return Ok(Some(Once::StandardInput));
        }
        let address = path.to_str().unwrap_or_default();
        if let Some(command) = CommandLine::of_download(address) {
            return match address.starts_with("rtsp") {
                true => Err(CaptureError::clip(&command.name, Reason::LiveStream)),
                false => Ok(Some(Once::Address(command))),
            };
        }
        let is_fifo = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        Ok(is_fifo.then(|| Once::Fifo(path.to_owned())))
    }

    /// What log and errors call it.
    pub fn name(&self) -> String {
        match self {
            Once::StandardInput => "standard input".into(),
            Once::Fifo(path) => path.display().to_string(),
            Once::Address(command) => command.name.clone(),
        }
    }

    /// Copies it. `None` if `stop` says so before its end.
    pub fn spool(&self, stop: &dyn Fn() -> bool) -> Result<Option<Spool>, CaptureError> {
        let name = self.name();
        let error = |reason| CaptureError::clip(&name, reason);
        let failed = |operation, e: io::Error| {
            let error = e.to_string();
            CaptureError::clip(&name, Reason::Failed { operation, error })
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(std::env::temp_dir())
            .map_err(|e| failed(Operation::Spool, e))?;
        info!("{name}: affectd reads it to its end first");
        let copied = match self {
            Once::StandardInput => {
                // Without the buffer of `Stdin`, because the descriptor tells whether there is something to read.
                let input = io::stdin().as_fd().try_clone_to_owned();
                let mut input = File::from(input.map_err(|e| failed(Operation::Open, e))?);
                if input.is_terminal() {
                    return Err(error(Reason::Terminal));
                }
                copy(
                    &mut Stoppable {
                        input: &mut input,
                        stop,
                    },
                    &mut file,
                )
            }
            Once::Fifo(path) => {
                // Does not wait for a writer, so that a stop is noticed.
                let input = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
                let mut input = input.map_err(|e| failed(Operation::Open, e))?;
                copy(
                    &mut Stoppable {
                        input: &mut input,
                        stop,
                    },
                    &mut file,
                )
            }
            Once::Address(command) => {
                let mut output = command.start(SourceKind::Clip, SERVER_PATIENCE, stop)?;
                match copy(&mut output, &mut file) {
                    _ if stop() => Ok(()),
                    Ok(()) => return output.finish().map_err(error).map(|()| Some(Spool { file })),
                    Err(CopyError::Read(e)) => return Err(error(output.reason(&e))),
                    Err(e) => Err(e),
                }
            }
        };
        match copied {
            Ok(()) => Ok((!stop()).then_some(Spool { file })),
            Err(CopyError::Read(e)) => Err(failed(Operation::Read, e)),
            Err(CopyError::Write(e)) => Err(failed(Operation::Spool, e)),
        }
    }
}

impl Spool {
    /// Opens the copy, as often as wanted while this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(input: &mut dyn Read, file: &mut File) -> Result<(), CopyError> {
    let mut part = vec![0; 1 << 16];
    loop {
        match input.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(count) => file.write_all(&part[..count]).map_err(CopyError::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
}

/// Ends when affectd stops.
struct Stoppable<'a> {
    input: &'a mut File,
    stop: &'a dyn Fn() -> bool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !(self.stop)() {
            // A named pipe without a writer becomes readable when its first writer has come.
            if is_readable(self.input.as_raw_fd(), STOP_CHECK_INTERVAL)? {
                return self.input.read(buffer);
            }
        }
        Ok(0)
    }
}
