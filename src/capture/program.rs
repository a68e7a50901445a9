//! Programs that deliver video or audio on their standard output, such as `rpicam-vid` or `ffmpeg`.
//!
//! A program runs in a process group of its own, which is killed when its [`ProgramOutput`] is dropped: pipelines and wrapper scripts
//! leave nothing behind.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::CaptureError;
use super::error::{Reason, RequiredProgram, SourceKind};
use crate::secrets::{masked, masked_name, password_of, without_passwords};

/// How many bytes of a program's standard error are kept.
const MAX_STDERR: usize = 4096;
/// A longer time between two looks means that affectd itself was stopped.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How soon a stop is noticed.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the last words and the exit status of a program that has closed its output are awaited.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
const LAST_WORDS_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// A command line for the shell, and what log and errors call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// As the user wrote it in the configuration, without passwords.
    pub name: String,
    pub shell_command: String,
    /// The program that must be installed, if it is known.
    pub requires: Option<&'static RequiredProgram>,
    /// The password in its address. What the program says is shown without it.
    pub password: Option<String>,
}

/// The standard output of a running program. Reads wait until data comes, the program's patience ends, or affectd stops.
pub struct ProgramOutput<'a> {
    group: ProcessGroup,
    output: ChildStdout,
    /// The end of standard error.
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Ends when standard error has been read to its end.
    stderr_reader: JoinHandle<()>,
    /// See [`CommandLine::password`].
    password: Option<String>,
    /// Longer silence is an error. Between [`begin_unit`](Self::begin_unit) and the next one, so is a longer time in all.
    pub patience: Duration,
    unit: Option<Unit>,
    stop: &'a dyn Fn() -> bool,
    /// Bytes that were read to find out what the program writes, and are read again.
    front: Vec<u8>,
}

/// A frame, header or block that is being read.
struct Unit {
    since: Instant,
    /// When a read last waited for it.
    seen: Instant,
    has_bytes: bool,
}

/// A program and all that it starts. Killed when dropped.
struct ProcessGroup {
    leader: Child,
}

const FFMPEG: RequiredProgram = RequiredProgram {
    program: "ffmpeg",
    install: "sudo apt-get install ffmpeg",
};

impl CommandLine {
    /// Starts the program. Its output must begin within `patience`.
    pub fn start<'a>(
        &self,
        kind: SourceKind,
        patience: Duration,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<ProgramOutput<'a>, CaptureError> {
        if let Some(required) = self.requires
            && !is_installed(required.program)
        {
            return Err(CaptureError::new(kind, &self.name, Reason::ProgramMissing(*required)));
        }
        ProgramOutput::spawn(&self.shell_command, patience, stop)
            .map(|output| ProgramOutput {
                password: self.password.clone(),
                ..output
            })
            .map_err(|error| CaptureError::new(kind, &self.name, Reason::ProgramNotStarted(error.to_string())))
    }
}

impl CommandLine {
    /// A command of the user.
    pub fn of_user(command: &str) -> CommandLine {
        // Variables may come before it.
        let program = command
            .split_whitespace()
            .find(|word| !word.contains('='))
            .unwrap_or_default();
        CommandLine {
            name: without_passwords(&format!("command:{program}"), []),
            shell_command: command.to_owned(),
            requires: None,
            password: None,
        }
    }

    /// ffmpeg with `output` options, if `device` is the address of a network camera.
    pub fn of_network(device: &str, output: &str) -> Option<CommandLine> {
        // Over UDP, a busy network loses parts of frames.
        let transport = match device.starts_with("rtsp") {
            true => " -rtsp_transport tcp",
            false => "",
        };
        is_address(device).then(|| CommandLine::of_ffmpeg(device, &format!("-fflags nobuffer{transport}"), output))
    }

    /// ffmpeg, which writes the file at `address` byte by byte, if it is an address. A download that the server cuts off is an error.
    pub fn of_download(address: &str) -> Option<CommandLine> {
        is_address(address).then(|| CommandLine::of_ffmpeg(address, "-xerror -f data", "-map 0 -c copy -f data -"))
    }

    fn of_ffmpeg(address: &str, input: &str, output: &str) -> CommandLine {
        CommandLine {
            name: masked(address),
            shell_command: format!("exec ffmpeg -nostdin -v error {input} -i {} {output}", quoted(address)),
            requires: Some(&FFMPEG),
            password: password_of(address).map(str::to_owned),
        }
    }
}

/// The schemes of the addresses that affectd gives to ffmpeg.
const SCHEMES: [&str; 4] = ["rtsp", "rtsps", "http", "https"];

fn is_address(device: &str) -> bool {
    device
        .split_once("://")
        .is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
}

/// Why the name of a device cannot be that of a device or a program: it is a misspelt address, or one of another kind.
pub fn address_error(device: &str) -> Option<&'static str> {
    let is_program = device.starts_with("command:") || device.starts_with("libcamera:");
    let is_path = device.starts_with(['/', '.']);
    let looks_like_address = device.contains("://") || masked_name(device) != device;
    (looks_like_address && !is_program && !is_path && !is_address(device)).then_some(
        "is not an address that affectd reads: write rtsp://, rtsps://, http:// or https:// in small letters, or for others \
         command:ffmpeg with its arguments",
    )
}

/// As one word of a shell command.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Whether PATH has a file of this name.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

impl<'a> ProgramOutput<'a> {
    fn spawn(command: &str, patience: Duration, stop: &'a dyn Fn() -> bool) -> io::Result<ProgramOutput<'a>> {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", command])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // The drop of the group ends the program, but affectd may be killed first. A program that goes on would keep the camera open.
        // SAFETY: prctl is a system call, which may be made between fork and exec. It accesses no memory of the process.
        unsafe {
            shell.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let leader = shell.spawn()?;
        let mut group = ProcessGroup { leader };
        let missing = || io::Error::other("no pipe");
        let output = group.leader.stdout.take().ok_or_else(missing)?;
        let mut pipe = group.leader.stderr.take().ok_or_else(missing)?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        // Read continuously, because a program blocks once this pipe is full.
        let stderr_reader = std::thread::Builder::new()
            .name("program-stderr".into())
            .spawn(move || {
                let mut part = [0; 1024];
                while let Ok(count @ 1..) = pipe.read(&mut part) {
                    let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    kept.extend_from_slice(&part[..count]);
                    let surplus = kept.len().saturating_sub(MAX_STDERR);
                    kept.drain(..surplus);
                }
            })?;
        Ok(ProgramOutput {
            group,
            output,
            stderr,
            stderr_reader,
            password: None,
            patience,
            unit: None,
            stop,
            front: Vec::new(),
        })
    }

    /// Reads `front` again before the rest.
    pub fn preceded_by(mut self, front: &[u8]) -> ProgramOutput<'a> {
        self.front = front.to_vec();
        self
    }

    /// From now on, the next frame, header or block must be whole within the patience: a program that sends it byte by byte, or
    /// without end, would keep its reader for ever.
    pub fn begin_unit(&mut self) {
        let now = Instant::now();
        self.unit = Some(Unit {
            since: now,
            seen: now,
            has_bytes: false,
        });
    }

    /// Whether the patience for the unit has ended.
    pub fn is_overdue(&self) -> bool {
        self.unit
            .as_ref()
            .is_some_and(|unit| unit.since.elapsed() >= self.patience)
    }

    /// Whether more data can be read at once.
    pub fn has_more(&self) -> bool {
        !self.front.is_empty() || is_readable(self.output.as_raw_fd(), Duration::ZERO).unwrap_or(true)
    }

    /// Why the output has ended or failed.
    pub fn reason(&mut self, error: &io::Error) -> Reason {
        match error.kind() {
            io::ErrorKind::TimedOut if self.unit.as_ref().is_some_and(|unit| unit.has_bytes) => {
                Reason::ProgramIncomplete {
                    patience: self.patience,
                    stderr: self.last_words(),
                }
            }
            io::ErrorKind::TimedOut => Reason::ProgramSilent {
                patience: self.patience,
                stderr: self.last_words(),
            },
            io::ErrorKind::UnexpectedEof => {
                let status = self.exit_status();
                self.ended_with(status)
            }
            _ => Reason::ProgramNotStarted(error.to_string()),
        }
    }

    /// The program has closed its output. An error if it failed.
    pub fn finish(&mut self) -> Result<(), Reason> {
        match self.exit_status() {
            Some(status) if status.success() => Ok(()),
            status => Err(self.ended_with(status)),
        }
    }

    /// Waits for the end of the program and of its standard error, but not long.
    fn exit_status(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + LAST_WORDS_TIMEOUT;
        let mut status = None;
        while Instant::now() < deadline && !(self.stop)() {
            status = self.group.leader.try_wait().ok().flatten();
            if status.is_some() && self.stderr_reader.is_finished() {
                break;
            }
            std::thread::sleep(LAST_WORDS_CHECK_INTERVAL);
        }
        status
    }

    fn ended_with(&self, status: Option<ExitStatus>) -> Reason {
        Reason::ProgramEnded {
            status: status.map_or("its output is closed".into(), |status| status.to_string()),
            stderr: self.last_words(),
        }
    }

    /// The last line of standard error, without passwords. Empty if there is none.
    fn last_words(&self) -> String {
        let stderr = self.stderr.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let text = String::from_utf8_lossy(&stderr);
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let last = last.unwrap_or_default();
        // First, because a password with spaces is not seen as one in single words.
        let last = match &self.password {
            Some(password) => last.replace(password, "…"),
            None => last.to_owned(),
        };
        without_passwords(&last, [])
    }

    /// Waits for data. An error of kind `TimedOut` means silence, one of kind `UnexpectedEof` also that affectd stops.
    fn wait(&mut self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            if (self.stop)() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now = Instant::now();
            if let Some(unit) = &mut self.unit {
                // While affectd itself was stopped, nobody waited.
                if now - unit.seen > LONGEST_PAUSE {
                    unit.since += now - unit.seen;
                }
                unit.seen = now;
            }
            if self.is_overdue() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if is_readable(self.output.as_raw_fd(), STOP_CHECK_INTERVAL)? {
                return Ok(());
            }
            if self.unit.is_none() && began.elapsed() >= self.patience {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Read for ProgramOutput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.front.is_empty() {
            let count = self.front.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.front[..count]);
            self.front.drain(..count);
            return Ok(count);
        }
        self.wait()?;
        if let Some(unit) = &mut self.unit {
            unit.has_bytes = true;
        }
        self.output.read(buffer)
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Ok(group) = libc::pid_t::try_from(self.leader.id()) {
            // SAFETY: the call accesses no memory. The leader founded this group and has not been waited for by anybody but this
            // value's owner. If it is gone, so that its id may be used again, only a group that it founded has this id.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
        let _ = self.leader.wait();
    }
}

/// Whether data or the end of the data is there within `timeout`.
pub(in crate::capture) fn is_readable(descriptor: RawFd, timeout: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `poll` is one live pollfd, as the count says. The descriptor is open, because the caller borrows its owner.
    match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
        ready => Ok(ready > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &dyn Fn() -> bool = &|| false;

    fn start(shell_command: &str, patience: Duration) -> ProgramOutput<'static> {
        ProgramOutput::spawn(shell_command, patience, NEVER).unwrap()
    }

    fn read_all(program: &mut ProgramOutput) -> (Vec<u8>, Option<io::Error>) {
        let mut bytes = Vec::new();
        let error = program.read_to_end(&mut bytes).err();
        (bytes, error)
    }

    #[test]
    fn the_end_of_a_program_is_told_with_its_last_words() {
        let mut program = start(
            "printf data; echo 'first' >&2; echo 'no cameras available' >&2; exit 3",
            Duration::from_secs(10),
        );
        assert_eq!(read_all(&mut program).0, b"data");
        let reason = program.reason(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(
            reason.to_string(),
            "the program ended (exit status: 3; no cameras available)"
        );
    }

    #[test]
    fn last_words_do_not_have_the_password_of_the_address() {
        let mut program = start(
            "echo 'rtsp://li:a b hunter2@cam: 401' >&2; exit 1",
            Duration::from_secs(10),
        );
        program.password = password_of("rtsp://li:a b hunter2@cam").map(str::to_owned);
        read_all(&mut program);
        let reason = program.reason(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(
            reason.to_string(),
            "the program ended (exit status: 1; rtsp://li:…@cam: 401)"
        );
    }

    #[test]
    fn a_misspelt_address_is_neither_a_device_nor_a_program() {
        for device in ["rtmp://cam/x", "RTSP://cam/x", "rtsp:/u:p@cam", "rtsp//u:p@cam"] {
            assert!(address_error(device).is_some(), "{device}");
        }
        for device in [
            "rtsp://cam",
            "https://cam/x",
            "/dev/video0",
            "hw:1,0",
            "command:x http://cam",
            "off",
            "auto",
        ] {
            assert_eq!(address_error(device), None, "{device}");
        }
    }

    #[test]
    fn silence_is_an_error() {
        let mut program = start(
            "echo 'waiting' >&2; printf data; exec sleep 100",
            Duration::from_secs(2),
        );
        let (bytes, error) = read_all(&mut program);
        let error = error.unwrap();
        assert_eq!(
            (bytes.as_slice(), error.kind()),
            (&b"data"[..], io::ErrorKind::TimedOut)
        );
        assert_eq!(
            program.reason(&error).to_string(),
            "the program wrote nothing for 2.0 s (waiting)"
        );
    }

    #[test]
    fn a_unit_that_does_not_become_whole_is_an_error() {
        for endless in ["while :; do echo -n x; sleep .1; done", "exec yes"] {
            let mut program = start(endless, Duration::from_secs(1));
            program.begin_unit();
            let error = io::copy(&mut program, &mut io::sink()).unwrap_err();
            assert_eq!(
                program.reason(&error).to_string(),
                "the program wrote nothing whole for 1.0 s",
                "{endless}"
            );
            // The next unit has its own time.
            program.begin_unit();
            assert!(!program.is_overdue());
            program.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn the_end_kills_the_whole_group() {
        let mut program = start("sleep 1000 & echo $!; wait", Duration::from_secs(10));
        let mut id = [0; 16];
        let count = program.read(&mut id).unwrap();
        let id = std::str::from_utf8(&id[..count]).unwrap().trim();
        // A process that has ended stays a zombie until its parent, which is not this process, collects it.
        let is_running = || {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit(") ")
                .next()
                .is_some_and(|state| !state.is_empty() && !state.starts_with(['Z', 'X']))
        };
        assert!(is_running());
        drop(program);
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!is_running());
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let mut program = ProgramOutput::spawn("exec sleep 1000", Duration::from_secs(1000), &|| true).unwrap();
        assert_eq!(program.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
