//! The affectd under test.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// The memory that affectd may allocate, in bytes. Thread stacks count. It holds the models twice, as a reload needs.
const MAX_DATA: u64 = 192 << 20;

pub struct Process {
    child: Child,
    log: PathBuf,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    pub descriptors: usize,
    pub threads: u64,
    pub memory_kib: u64,
}

/// The binary under test, without any configuration of this machine.
pub fn affectd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_affectd"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"AFFECTD_")) {
        command.env_remove(name);
    }
    command
}

impl Process {
    /// Starts `command` with a limit on its memory. Its log goes to `log`.
    pub fn start(mut command: Command, log: &Path) -> Process {
        command.stderr(fs::File::create(log).unwrap());
        let limit = libc::rlimit {
            rlim_cur: MAX_DATA,
            rlim_max: MAX_DATA,
        };
        // SAFETY: setrlimit is safe to call between fork and exec, and reads a local.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_DATA, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        Process {
            child: command.spawn().unwrap(),
            log: log.into(),
        }
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes no pointer; the child has not been waited for, so its id belongs to no other process.
        assert_eq!(unsafe { libc::kill(self.id(), signal) }, 0);
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn resources(&self) -> Resources {
        let proc = PathBuf::from(format!("/proc/{}", self.id()));
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or_default()
        };
        Resources {
            descriptors: fs::read_dir(proc.join("fd")).map_or(0, Iterator::count),
            threads: field("Threads:"),
            memory_kib: field("VmRSS:"),
        }
    }

    /// Sets how many descriptors the process may have open. Returns the previous limit.
    pub fn limit_descriptors(&self, limit: u64) -> u64 {
        let mut old = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the pointers are to live locals, and a null pointer is allowed for the other argument.
        unsafe {
            assert_eq!(
                libc::prlimit(self.id(), libc::RLIMIT_NOFILE, std::ptr::null(), &mut old),
                0
            );
            let new = libc::rlimit { rlim_cur: limit, ..old };
            assert_eq!(
                libc::prlimit(self.id(), libc::RLIMIT_NOFILE, &new, std::ptr::null_mut()),
                0
            );
        }
        old.rlim_cur
    }

    fn id(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
