//! The port itself: opened for us alone, read and written without waiting.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use serial2::{KeepSettings, SerialPort};

/// An open serial port.
#[derive(Debug)]
pub struct Port(SerialPort);

/// Why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// There is none of that name.
    #[error("no such port")]
    Absent,
    /// The reason, and what would mend it.
    #[error("{0}")]
    Refused(String),
}

impl Port {
    /// Opens `path` at `baud`, eight data bits, no parity, one stop bit, no flow control, and keeps others out.
    pub fn open(path: &Path, baud: u32) -> Result<Port, PortError> {
        let refused = |why: &str| PortError::Refused(why.into());
        let mut port = SerialPort::open(path, KeepSettings).map_err(|e| match (e.kind(), e.raw_os_error()) {
            (ErrorKind::NotFound, _) | (_, Some(libc::ENXIO | libc::ENODEV)) => PortError::Absent,
            (ErrorKind::PermissionDenied, _) => refused(
                "permission denied: add the user affectd runs as to the group dialout (sudo usermod -aG dialout USER)",
            ),
            (ErrorKind::ResourceBusy, _) => refused(BUSY),
            (ErrorKind::IsADirectory, _) | (_, Some(libc::ENOTTY)) => refused(NOT_A_TTY),
            _ => PortError::Refused(format!("cannot be opened ({e}): try another port")),
        })?;
        let mut settings = port.get_configuration().map_err(|_| refused(NOT_A_TTY))?;
        lock(&port).map_err(|_| refused(BUSY))?;
        settings.set_raw();
        let set = settings
            .set_baud_rate(baud)
            .and_then(|()| port.set_configuration(&settings));
        set.map_err(|e| {
            PortError::Refused(format!(
                "does not take baud={baud} ({e}): 115200 works nearly everywhere"
            ))
        })?;
        let at_once = port
            .set_read_timeout(Duration::ZERO)
            .and_then(|()| port.set_write_timeout(Duration::ZERO));
        at_once.map_err(|e| PortError::Refused(format!("cannot be set up ({e}): try another port")))?;
        Ok(Port(port))
    }

    /// What has come in, as far as it fits; zero if nothing has.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.read(bytes) {
            // A port that is readable and has nothing is one that was pulled out.
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            result => nothing_yet(result),
        }
    }

    /// How many of `bytes` the port took; zero if it has no room.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        nothing_yet(self.0.write(bytes))
    }

    /// Forgets what the port took and has not sent, so that closing it does not wait for a line that is stuck.
    pub fn abandon(&self) {
        let _ = self.0.discard_output_buffer();
    }
}

const BUSY: &str = "is in use by another program: stop that, or use another port";
const NOT_A_TTY: &str = "is not a serial port: name one, /dev/ttyUSB0 or /dev/serial0 say";

fn nothing_yet(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(0),
        result => result,
    }
}

/// Two programs on one line tear each other's messages. The advisory lock is what others ask for; exclusive mode makes the
/// kernel refuse those that do not ask.
fn lock(port: &SerialPort) -> io::Result<()> {
    let fd = port.as_fd().as_raw_fd();
    // SAFETY: both calls act on an open descriptor that `port` keeps open meanwhile, and touch no memory of ours.
    let taken = unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) == 0 && libc::ioctl(fd, libc::TIOCEXCL) == 0 };
    if taken { Ok(()) } else { Err(io::Error::last_os_error()) }
}
