//! How long affectd takes to end with each kind of stuck output. `cargo test --release --test faults exit -- --nocapture` prints
//! the times.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::mosquitto::{Mosquitto, wait};
use super::process::{Process, affectd};
use super::pty::Pty;
use super::received::lines_of;

/// affectd without devices, with a file and another output, which is stuck.
fn command(folder: &Path, output: &str) -> Command {
    let mut command = affectd();
    command
        .args([
            "run",
            "--output",
            &format!("file:{}/a", folder.display()),
            "--output",
            output,
        ])
        .env("AFFECTD_CONFIG", "/dev/null")
        .env("AFFECTD_CAMERA_DEVICE", "/dev/video-none")
        .env("AFFECTD_MICROPHONE_DEVICE", "hw:CARD=none")
        .stdin(Stdio::null());
    command
}

fn wait_for_estimates(folder: &Path, count: u64) {
    wait(|| (lines_of(&folder.join("a")).last() >= count).then_some(()));
}

/// Sends SIGTERM. Returns the time until the end, and the exit code.
fn stop(name: &str, process: &mut Process) -> Option<i32> {
    process.signal(libc::SIGTERM);
    let asked = Instant::now();
    let status = wait(|| process.ended());
    println!(
        "{name}: affectd ends {:.2} s after SIGTERM, exit code {:?}",
        asked.elapsed().as_secs_f32(),
        status.code()
    );
    status.code()
}

/// Fills a pipe through a writer of its own, so that only this writer does not block.
fn fill(pipe: &impl AsRawFd) {
    let mut options = File::options();
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut writer = options.write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    for length in [512, 1] {
        while writer.write(&[b' '; 512][..length]).is_ok() {}
    }
}

#[test]
fn a_full_pipe_does_not_prevent_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let mut start = command(folder.path(), "stdout");
    start.stdout(writer);
    let mut process = Process::start(start, &folder.path().join("log"));
    wait_for_estimates(folder.path(), 3);
    assert_eq!(stop("stdout, full pipe", &mut process), Some(0), "{}", process.log());
}

#[test]
fn a_named_pipe_that_nobody_reads_does_not_prevent_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the pointer is to a C string that lives during the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let end = File::options().read(true).write(true).open(&path).unwrap();
    fill(&end);
    let mut start = command(folder.path(), "stdout");
    start.stdout(end.try_clone().unwrap());
    let mut process = Process::start(start, &folder.path().join("log"));
    wait_for_estimates(folder.path(), 3);
    assert_eq!(
        stop("stdout, full named pipe", &mut process),
        Some(0),
        "{}",
        process.log()
    );
    // As a file output, a named pipe is refused at once, because opening it could wait for ever.
    let start = command(folder.path(), &format!("file:{}", path.display()));
    let started = Instant::now();
    let mut process = Process::start(start, &folder.path().join("log"));
    let status = wait(|| process.ended());
    println!(
        "file on a named pipe: refused after {:.2} s",
        started.elapsed().as_secs_f32()
    );
    assert_eq!(status.code(), Some(5), "{}", process.log());
}

#[test]
fn a_full_serial_line_does_not_prevent_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("ttyUSB0");
    let mut port = Pty::plug_in(&link);
    port.fill();
    let start = command(folder.path(), &format!("serial:{}", link.display()));
    let mut process = Process::start(start, &folder.path().join("log"));
    wait_for_estimates(folder.path(), 3);
    assert_eq!(stop("serial, full line", &mut process), Some(0), "{}", process.log());
}

#[test]
fn a_frozen_broker_does_not_prevent_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let spec = format!("mqtt://127.0.0.1:{}?device=d", broker.port);
    let mut process = Process::start(command(folder.path(), &spec), &folder.path().join("log"));
    wait(|| process.log().contains("connected, MQTT").then_some(()));
    broker.freeze();
    let seen = lines_of(&folder.path().join("a")).last();
    wait_for_estimates(folder.path(), seen + 3);
    let code = stop("mqtt, frozen broker", &mut process);
    // A service that is stopped during an outage has not failed.
    assert_eq!(code, Some(0), "{}", process.log());
    assert!(
        process.log().contains("estimates were not delivered"),
        "{}",
        process.log()
    );
}

#[test]
fn a_broker_that_never_answers_does_not_prevent_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    broker.freeze();
    let spec = format!("mqtt://127.0.0.1:{}?device=d", broker.port);
    let mut process = Process::start(command(folder.path(), &spec), &folder.path().join("log"));
    wait_for_estimates(folder.path(), 3);
    let code = stop("mqtt, broker frozen from the start", &mut process);
    // A service that is stopped during an outage has not failed.
    assert_eq!(code, Some(0), "{}", process.log());
}

#[test]
fn a_full_disk_does_not_prevent_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let mut start = command(folder.path(), "stdout");
    start.stdout(File::create("/dev/full").unwrap());
    let mut process = Process::start(start, &folder.path().join("log"));
    wait_for_estimates(folder.path(), 3);
    assert_eq!(stop("stdout, full disk", &mut process), Some(5), "{}", process.log());
}
