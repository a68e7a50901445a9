//! How the process ends and what it survives: closed pipes, full disks, stuck outputs, signals, closed terminals, refused threads
//! and file names of any bytes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::mosquitto::free_port;
use super::pty::Pty;
use super::{affectd, demo};

/// Far longer than any step takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// `affectd run` without devices, which it waits for for ever.
fn run_without_devices(outputs: &[&str]) -> Command {
    let mut command = affectd();
    command
        .arg("run")
        .env("AFFECTD_CAMERA_DEVICE", "/dev/video-none")
        .env("AFFECTD_MICROPHONE_DEVICE", "hw:CARD=none");
    for output in outputs {
        command.args(["--output", output]);
    }
    command
}

/// A process that is killed if the test fails.
struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Starts `command`, which writes its log and estimates into the folder.
    fn start(command: &mut Command, folder: TempDir) -> Process {
        let log = File::create(folder.path().join("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        Process { child, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until the file `name` has `count` more lines than now.
    fn wait_for_lines(&self, name: &str, count: usize) {
        let lines = || fs::read_to_string(self.path(name)).unwrap_or_default().lines().count();
        let before = lines();
        let started = Instant::now();
        while lines() < before + count {
            assert!(started.elapsed() < TIMEOUT, "{}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill accesses no memory. The child has not been waited for, so its id still belongs to it.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < TIMEOUT, "does not end: {}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    fn code(&mut self) -> Option<i32> {
        self.wait().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file_output(folder: &TempDir, name: &str) -> String {
    format!("file:{}", folder.path().join(name).display())
}

/// A pipe without room. It is stuck as long as the reader's end lives.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    // SAFETY: fcntl with these commands accesses no memory.
    unsafe {
        assert!(libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) > 0);
        assert_eq!(libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK), 0);
    }
    while (&writer).write(&[b' '; 512]).is_ok() {}
    // SAFETY: as above.
    assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, 0) }, 0);
    (reader, writer)
}

#[test]
fn the_end_of_the_last_reader_ends_affectd_while_it_waits_for_devices() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(run_without_devices(&[]).stdout(Stdio::piped()), folder);
    let mut line = String::new();
    BufReader::new(process.child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(process.code(), Some(0), "{}", process.log());
    assert!(line.ends_with('\n'));
}

#[test]
fn a_full_disk_ends_affectd_with_its_error_while_it_waits_for_devices() {
    let folder = tempfile::tempdir().unwrap();
    let full = File::create("/dev/full").unwrap();
    let mut process = Process::start(run_without_devices(&[]).stdout(full), folder);
    assert_eq!(process.code(), Some(5), "{}", process.log());
    let log = process.log();
    assert!(
        log.lines()
            .last()
            .unwrap()
            .starts_with("affectd: stdout: cannot be written ("),
        "{log}"
    );
}

#[test]
fn a_failed_output_is_reported_at_once_and_the_others_continue() {
    let folder = tempfile::tempdir().unwrap();
    let full = File::create("/dev/full").unwrap();
    let mut command = run_without_devices(&["stdout", &file_output(&folder, "a")]);
    let mut process = Process::start(command.stdout(full), folder);
    process.wait_for_lines("a", 5);
    assert!(
        process.log().contains("; the other outputs continue"),
        "{}",
        process.log()
    );
    process.signal(libc::SIGTERM);
    assert_eq!(process.code(), Some(5), "{}", process.log());
}

#[test]
fn a_stop_leaves_stuck_outputs_behind_and_names_them() {
    let (_reader, pipe) = full_pipe();
    let terminals = tempfile::tempdir().unwrap();
    let link = terminals.path().join("tty");
    let _terminal = Pty::plug_in(&link);
    let terminal_end = File::options().write(true).open(&link).unwrap();
    // As Ctrl-S does.
    // SAFETY: tcflow accesses no memory of this process.
    assert_eq!(unsafe { libc::tcflow(terminal_end.as_raw_fd(), libc::TCOOFF) }, 0);
    for stuck in [Stdio::from(pipe), Stdio::from(terminal_end)] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = run_without_devices(&["stdout", &file_output(&folder, "a")]);
        let mut process = Process::start(command.stdout(stuck), folder);
        process.wait_for_lines("a", 3);
        process.signal(libc::SIGTERM);
        assert_eq!(process.code(), Some(0), "{}", process.log());
        let log = process.log();
        assert!(log.contains("left behind: output-stdout"), "{log}");
        // Those in its queue.
        assert!(log.lines().last().unwrap().contains("dropped estimates: "), "{log}");
    }
}

#[test]
fn a_broker_that_is_away_at_the_stop_fails_a_replay_but_not_a_service() {
    let broker = format!("mqtt://127.0.0.1:{}?device=d", free_port());
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(&mut run_without_devices(&[&broker, &file_output(&folder, "a")]), folder);
    process.wait_for_lines("a", 3);
    process.signal(libc::SIGTERM);
    assert_eq!(process.code(), Some(0), "{}", process.log());
    let log = process.log();
    assert!(
        log.contains("estimates were not delivered: check that the broker runs"),
        "{log}"
    );
    assert!(log.lines().last().unwrap().contains("dropped estimates: "), "{log}");

    let mut replay = affectd();
    replay.args(["run", "--output", &broker, "--input"]).arg(demo());
    let output = replay.output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error
            .lines()
            .last()
            .unwrap()
            .contains(" estimates were not delivered: "),
        "{error}"
    );
}

#[test]
fn a_replay_into_a_stuck_output_can_be_stopped_and_fails() {
    let (_reader, pipe) = full_pipe();
    let folder = tempfile::tempdir().unwrap();
    let mut command = affectd();
    command.args([
        "run",
        "--output",
        "stdout",
        "--output",
        &file_output(&folder, "a"),
        "--input",
    ]);
    let mut process = Process::start(command.arg(demo()).stdout(pipe), folder);
    process.wait_for_lines("a", 3);
    process.signal(libc::SIGTERM);
    assert_eq!(process.code(), Some(5), "{}", process.log());
    let log = process.log();
    assert!(log.contains("left behind: "), "{log}");
    assert!(log.contains("; dropped estimates: "), "{log}");
    let error = log.lines().last().unwrap();
    assert!(
        error.contains("output-stdout") && error.contains(" not written: "),
        "{log}"
    );
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_prevent_the_estimates_or_the_end() {
    let (_reader, pipe) = full_pipe();
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_without_devices(&[&file_output(&folder, "a")]);
    let mut process = Process {
        child: command.stderr(pipe).spawn().unwrap(),
        folder,
    };
    process.wait_for_lines("a", 3);
    process.signal(libc::SIGTERM);
    assert_eq!(process.code(), Some(0));
}

#[test]
fn a_signal_that_comes_twice_at_once_ends_affectd_in_order() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(&mut run_without_devices(&[&file_output(&folder, "a")]), folder);
        process.wait_for_lines("a", 1);
        // As `timeout` does: to the process, and to its group.
        process.signal(libc::SIGTERM);
        process.signal(libc::SIGTERM);
        assert_eq!(process.code(), Some(0), "{}", process.log());
    }
}

#[test]
fn a_later_second_signal_ends_affectd_at_once() {
    let (_reader, pipe) = full_pipe();
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_without_devices(&["stdout", &file_output(&folder, "a")]);
    let mut process = Process::start(command.stdout(pipe), folder);
    process.wait_for_lines("a", 3);
    while process.child.try_wait().unwrap().is_none() {
        process.signal(libc::SIGTERM);
        sleep(Duration::from_millis(100));
    }
    assert_eq!(process.code(), Some(128 + libc::SIGTERM), "{}", process.log());
    assert!(!process.log().contains("left behind"), "{}", process.log());
}

/// Starts `command` in a terminal of its own. If the second value is dropped, the terminal is closed.
fn in_terminal(mut command: Command, folder: TempDir, ignores_hangup: bool) -> (Process, Pty) {
    let link = folder.path().join("tty");
    let terminal = Pty::plug_in(&link);
    let end = File::options().read(true).write(true).open(&link).unwrap();
    command.stdin(end.try_clone().unwrap()).stdout(end);
    // SAFETY: setsid, ioctl and signal are safe to call between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let has_terminal = libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0;
            if ignores_hangup {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
            }
            match has_terminal {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        });
    }
    (Process::start(&mut command, folder), terminal)
}

#[test]
fn a_closed_terminal_stops_affectd() {
    for with_stdout in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let file = file_output(&folder, "a");
        let outputs: &[&str] = if with_stdout { &["stdout", &file] } else { &[&file] };
        let (mut process, terminal) = in_terminal(run_without_devices(outputs), folder, false);
        process.wait_for_lines("a", 2);
        drop(terminal);
        assert_eq!(process.code(), Some(0), "{}", process.log());
    }
}

#[test]
fn with_nohup_affectd_survives_its_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let output = file_output(&folder, "a");
    let (mut process, terminal) = in_terminal(run_without_devices(&[&output]), folder, true);
    process.wait_for_lines("a", 2);
    drop(terminal);
    process.wait_for_lines("a", 5);
    process.signal(libc::SIGTERM);
    assert_eq!(process.code(), Some(0), "{}", process.log());
}

#[test]
fn a_refused_thread_ends_affectd_with_the_reason() {
    // No address space holds a stack of this size.
    for arguments in [&["run"][..], &["check"], &["monitor", "-"]] {
        let output = affectd()
            .args(arguments)
            .env("RUST_MIN_STACK", (1u64 << 47).to_string())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(71), "{error}");
        let error = error.lines().last().unwrap();
        assert!(
            error.contains(" thread cannot be started (") && error.contains("TasksMax="),
            "{error}"
        );
    }
}

#[test]
fn an_error_that_cannot_be_printed_still_has_its_exit_code() {
    let full = File::create("/dev/full").unwrap();
    let output = affectd()
        .args(["run", "--output", "telegraph"])
        .stderr(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = affectd().args(["run", "--inptu"]).stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn paths_of_any_bytes_work_in_a_folder_of_any_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let place = folder.path().join(name(b"caf\xe9"));
    fs::create_dir(&place).unwrap();
    fs::copy(demo(), place.join(name(b"d\xe9mo.mkv"))).unwrap();
    fs::write(place.join(name(b"\xff.toml")), "estimate.rate_hz = 2.5\n").unwrap();
    let output = affectd()
        .current_dir(&place)
        .env("AFFECTD_CONFIG", Path::new(name(b"\xff.toml")))
        .args(["run", "--input"])
        .arg(name(b"d\xe9mo.mkv"))
        .arg("--output")
        .arg(name(b"file:\xe9.csv?format=csv"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut rows = String::new();
    let mut file = File::open(place.join(name(b"\xe9.csv"))).unwrap();
    file.read_to_string(&mut rows).unwrap();
    assert!((20..=27).contains(&rows.lines().count()), "{rows}");
}

#[test]
fn messages_do_not_control_the_terminal() {
    let output = affectd()
        .args(["run", "--input", "\u{1b}[2J\u{202e}.mkv"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(r"\u{1b}[2J\u{202e}.mkv: no such file"), "{error}");
}

#[test]
fn errors_of_the_command_line_do_not_control_the_terminal() {
    let hostile = "\u{1b}[2J\u{9b}5n\u{202e}";
    let option = format!("--{hostile}");
    let cases: [(&[&str], i32); 6] = [
        (&[hostile], 2),
        (&["run", &option], 2),
        (&["monitor", "a", hostile], 2),
        (&["completions", hostile], 2),
        (&["devices", "--config", hostile], 2),
        (&["bench", "--model", hostile], 4),
    ];
    for (arguments, code) in cases {
        let output = affectd().args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        let controls = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!error.contains(controls), "{arguments:?}: {error:?}");
        assert!(error.contains(r"\u{202e}"), "{arguments:?}: {error}");
    }
}

#[test]
fn the_shown_configuration_does_not_control_the_terminal_and_keeps_its_meaning() {
    let hostile = "file:/tmp/\u{1b}[2J\u{9b}5n\u{202e}\"\\";
    let shown = |arguments: &[&str]| {
        let output = affectd()
            .args(arguments)
            .args(["--output", hostile, "--input", hostile])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let controls = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(controls), "{text:?}");
        text
    };
    let json: serde_json::Value = serde_json::from_str(&shown(&["config", "--json"])).unwrap();
    assert_eq!(json["output"]["value"], serde_json::json!([hostile]));
    assert_eq!(json["input.clip"]["value"], hostile);
    let toml: toml::Table = shown(&["config"]).parse().unwrap();
    assert_eq!(toml["output"][0].as_str(), Some(hostile));
    assert_eq!(toml["input"]["clip"].as_str(), Some(hostile));
}

#[test]
fn lines_for_the_journal_have_a_priority() {
    let folder = tempfile::tempdir().unwrap();
    let log = File::create(folder.path().join("log")).unwrap();
    let journal = {
        use std::os::unix::fs::MetadataExt;
        let known = log.metadata().unwrap();
        format!("{}:{}", known.dev(), known.ino())
    };
    let output = file_output(&folder, "a");
    let mut command = run_without_devices(&[&output]);
    command.env("JOURNAL_STREAM", journal).stderr(log);
    let mut process = Process {
        child: command.spawn().unwrap(),
        folder,
    };
    process.wait_for_lines("a", 2);
    process.signal(libc::SIGTERM);
    assert_eq!(process.code(), Some(0));
    let log = process.log();
    assert!(log.lines().count() >= 3, "{log}");
    assert!(log.lines().any(|line| line.starts_with("<4>camera absent: ")), "{log}");
    assert!(
        log.lines()
            .all(|line| line.starts_with("<4>") || line.starts_with("<6>")),
        "{log}"
    );
}
