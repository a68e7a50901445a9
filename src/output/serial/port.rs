//! The serial port: opened exclusively, read and written without blocking.

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
    /// It does not exist.
    #[error("no such port")]
    Absent,
    /// The reason and the remedy.
    #[error("{0}")]
    Unusable(String),
}

impl Port {
    /// Opens `path` at `baud` bits per second with eight data bits, no parity, one stop bit and no flow control, for
    /// affectd alone.
    pub fn open(path: &Path, baud: u32) -> Result<Port, PortError> {
        let unusable = |why: &str| PortError::Unusable(why.into());
        let mut port = SerialPort::open(path, KeepSettings).map_err(|e| match (e.kind(), e.raw_os_error()) {
            (ErrorKind::NotFound, _) | (_, Some(libc::ENXIO | libc::ENODEV)) => PortError::Absent,
            (ErrorKind::PermissionDenied, _) => unusable(
                "permission denied: add the user that runs affectd to the group dialout (sudo usermod -aG dialout USER)",
            ),
            (ErrorKind::ResourceBusy, _) => unusable(BUSY),
            (ErrorKind::IsADirectory, _) | (_, Some(libc::ENOTTY)) => unusable(NOT_A_TTY),
            _ => PortError::Unusable(format!("cannot be opened ({e}): try another port")),
        })?;
        let mut settings = port.get_configuration().map_err(|_| unusable(NOT_A_TTY))?;
        lock(&port).map_err(|_| unusable(BUSY))?;
        settings.set_raw();
        let set = settings
            .set_baud_rate(baud)
            .and_then(|()| port.set_configuration(&settings));
        set.map_err(|e| {
            PortError::Unusable(format!(
                "does not support baud={baud} ({e}): use 115200, which works on nearly every port"
            ))
        })?;
        let nonblocking = port
            .set_read_timeout(Duration::ZERO)
            .and_then(|()| port.set_write_timeout(Duration::ZERO));
        nonblocking.map_err(|e| PortError::Unusable(format!("cannot be set up ({e}): try another port")))?;
        Ok(Port(port))
    }

    /// Reads what has arrived. Returns the number of bytes, zero if nothing has arrived.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.read(bytes) {
            // A port that is readable but has no bytes was unplugged.
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            result => zero_if_not_ready(result),
        }
    }

    /// Writes the first of `bytes`. Returns how many the port took, zero if it has no room.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        zero_if_not_ready(self.0.write(bytes))
    }

    /// Discards the bytes that are not sent yet. Otherwise closing the port would wait for a stuck line.
    pub fn discard_output(&self) {
        let _ = self.0.discard_output_buffer();
    }
}

impl Drop for Port {
    /// Ends the exclusive mode, which otherwise lasts as long as anybody has the port open: a login console, or the other end of a
    /// pseudo-terminal. Until then, nobody but root could open it again.
    fn drop(&mut self) {
        // SAFETY: the call acts on a descriptor that `self` keeps open, and accesses no memory of this process.
        unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), libc::TIOCNXCL) };
    }
}

const BUSY: &str = "is in use by another program: stop that program, or use another port";
const NOT_A_TTY: &str = "is not a serial port: use a serial port, for example /dev/ttyUSB0 or /dev/serial0";

fn zero_if_not_ready(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(0),
        result => result,
    }
}

/// Locks the port, because two programs on one line break each other's messages. Some programs respect the advisory lock;
/// exclusive mode makes the kernel refuse the others.
fn lock(port: &SerialPort) -> io::Result<()> {
    let fd = port.as_fd().as_raw_fd();
    // SAFETY: both calls act on a descriptor that `port` keeps open during the calls, and access no memory of this process.
    let locked = unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) == 0 && libc::ioctl(fd, libc::TIOCEXCL) == 0 };
    if locked {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
