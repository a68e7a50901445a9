//! A serial port without hardware: a pseudo-terminal. affectd opens one end by a path that the test can remove.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Far longer than any step takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The reader's end. Dropping it unplugs the port.
pub struct Pty {
    master: File,
    link: PathBuf,
    /// Bytes that have arrived and were not returned yet.
    rest: Vec<u8>,
    /// The other end, if the test has opened it too.
    other: Option<File>,
}

impl Pty {
    /// Plugs in a port at the path `link`.
    pub fn plug_in(link: &Path) -> Pty {
        let mut name = [0; 128];
        // SAFETY: posix_openpt returns a new descriptor, which `File` owns from then on. The other calls act on it, and
        // ptsname_r writes a C string of at most the given length into a live buffer.
        let master = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
            assert!(master >= 0);
            assert_eq!(libc::grantpt(master) | libc::unlockpt(master), 0);
            assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
            File::from_raw_fd(master)
        };
        let name: Vec<u8> = name
            .iter()
            .take_while(|c| **c != 0)
            .map(|c| c.to_ne_bytes()[0])
            .collect();
        symlink(String::from_utf8(name).unwrap(), link).unwrap();
        Pty {
            master,
            link: link.to_path_buf(),
            rest: Vec::new(),
            other: None,
        }
    }

    pub fn send(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }

    /// Sends bytes if the port has room. Returns whether it had.
    pub fn offer(&self, bytes: &[u8]) -> bool {
        let mut poll = libc::pollfd {
            fd: self.master.as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: the pointer is to one live pollfd, and the count is one.
        let has_room = unsafe { libc::poll(&mut poll, 1, 0) } == 1 && poll.revents & libc::POLLOUT != 0;
        has_room && (&self.master).write_all(bytes).is_ok()
    }

    /// Fills the port with spaces until it has no more room.
    pub fn fill(&mut self) {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let mut other = options.open(&self.link).unwrap();
        // SAFETY: `termios` is plain data for which all zeroes is a valid value. The calls read and write this local through a
        // descriptor that `other` keeps open.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(other.as_raw_fd(), &mut settings), 0);
            libc::cfmakeraw(&mut settings);
            assert_eq!(libc::tcsetattr(other.as_raw_fd(), libc::TCSANOW, &settings), 0);
        }
        // The kernel moves bytes to the reader's end a little later, which makes room again.
        let mut full = 0;
        while full < 5 {
            match other.write(&[b' '; 64]) {
                Ok(_) => full = 0,
                Err(_) => full += 1,
            }
            if full > 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.other = Some(other);
    }

    /// All bytes that have arrived. Does not wait.
    pub fn drain(&mut self) -> Vec<u8> {
        while self.read(0) {}
        std::mem::take(&mut self.rest)
    }

    /// All bytes up to and including the next `delimiter`. Panics if none arrives.
    pub fn until(&mut self, delimiter: u8) -> Vec<u8> {
        let started = Instant::now();
        loop {
            if let Some(message) = self.try_until(delimiter) {
                return message;
            }
            assert!(started.elapsed() < TIMEOUT, "no message arrived within {TIMEOUT:?}");
        }
    }

    /// The same, but `None` if nothing arrives within 50 ms.
    pub fn try_until(&mut self, delimiter: u8) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.rest.iter().position(|b| *b == delimiter) {
                let after = self.rest.split_off(at + 1);
                return Some(std::mem::replace(&mut self.rest, after));
            }
            if !self.read(50) {
                // While the other end is closed, poll returns immediately.
                std::thread::sleep(Duration::from_millis(5));
                return None;
            }
        }
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        let mut line = self.until(b'\n');
        line.pop();
        String::from_utf8(line).unwrap()
    }

    /// Reads the bytes that arrive within `timeout_ms`. False if there are none.
    fn read(&mut self, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd {
            fd: self.master.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the pointer is to one live pollfd, and the count is one.
        let ready = unsafe { libc::poll(&mut poll, 1, timeout_ms) } == 1 && poll.revents & libc::POLLIN != 0;
        let mut bytes = [0; 4096];
        match ready.then(|| self.master.read(&mut bytes)) {
            Some(Ok(length @ 1..)) => {
                self.rest.extend_from_slice(&bytes[..length]);
                true
            }
            _ => false,
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        std::fs::remove_file(&self.link).unwrap();
    }
}
