//! A serial port without hardware: a pseudo-terminal, whose one end affectd opens by a path that can be unplugged.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer than anything takes, even on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The reader's end. Dropping it pulls the plug.
pub struct Pty {
    master: File,
    link: PathBuf,
    /// What has come in and was not asked for yet.
    rest: Vec<u8>,
    /// The other end, where the test wrote on it too.
    other: Option<File>,
}

impl Pty {
    /// Plugs one in at `link`.
    pub fn at(link: &Path) -> Pty {
        let mut name = [0; 128];
        // SAFETY: posix_openpt gives a new descriptor, owned by `File` from then on; the other calls act on it, and
        // ptsname_r writes a C string of at most the given length.
        let master = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
            assert!(master >= 0);
            assert_eq!(libc::grantpt(master) | libc::unlockpt(master), 0);
            assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
            File::from_raw_fd(master)
        };
        let name: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        symlink(String::from_utf8(name).unwrap(), link).unwrap();
        Pty {
            master,
            link: link.to_path_buf(),
            rest: Vec::new(),
            other: None,
        }
    }

    pub fn say(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }

    /// Fills it with spaces, until it takes no more while nobody reads.
    pub fn fill(&mut self) {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let mut other = options.open(&self.link).unwrap();
        // SAFETY: reads and sets the terminal's settings, plain data, through a descriptor that `other` keeps open.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(other.as_raw_fd(), &mut settings), 0);
            libc::cfmakeraw(&mut settings);
            assert_eq!(libc::tcsetattr(other.as_raw_fd(), libc::TCSANOW, &settings), 0);
        }
        while other.write(&[b' '; 64]).is_ok() {}
        self.other = Some(other);
    }

    /// All that has come in by now, without waiting.
    pub fn drain(&mut self) -> Vec<u8> {
        while self.take_in(0) {}
        std::mem::take(&mut self.rest)
    }

    /// All up to and with the next `delimiter`; fails if none comes.
    pub fn until(&mut self, delimiter: u8) -> Vec<u8> {
        let started = Instant::now();
        loop {
            if let Some(message) = self.soon(delimiter) {
                return message;
            }
            assert!(started.elapsed() < PATIENCE, "nothing comes out of the port");
        }
    }

    /// The same, `None` if nothing comes for a moment.
    pub fn soon(&mut self, delimiter: u8) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.rest.iter().position(|b| *b == delimiter) {
                let after = self.rest.split_off(at + 1);
                return Some(std::mem::replace(&mut self.rest, after));
            }
            if !self.take_in(50) {
                // Nobody has the other end open: poll comes back at once.
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

    /// Takes in what comes within so many milliseconds: false if nothing does.
    fn take_in(&mut self, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd {
            fd: self.master.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live pollfd, and its count.
        let ready = unsafe { libc::poll(&mut poll, 1, timeout_ms) } == 1 && poll.revents & libc::POLLIN != 0;
        let mut bytes = [0; 4096];
        match ready.then(|| self.master.read(&mut bytes)) {
            Some(Ok(came @ 1..)) => {
                self.rest.extend_from_slice(&bytes[..came]);
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
