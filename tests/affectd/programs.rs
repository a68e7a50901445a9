//! Cameras and microphones behind programs, with shell commands that play the demo clip in real time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use affectd::capture::FramePayload;
use affectd::capture::clip::Clip;
use serde_json::Value;
use tempfile::TempDir;

use super::mosquitto::wait;
use super::{affectd, demo};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The first seconds of the demo clip, as files that a shell loop can write in real time.
pub struct Pieces {
    pub folder: TempDir,
}

impl Pieces {
    pub fn new() -> Pieces {
        let folder = tempfile::tempdir().unwrap();
        let clip = Clip::open(&demo()).unwrap();
        let (mut video, mut audio) = (clip.video.unwrap(), clip.audio.unwrap());
        for n in 0..40 {
            let FramePayload::Jpeg(bytes) = video.next_frame().unwrap().unwrap().payload else {
                panic!("the demo clip has JPEG images");
            };
            fs::write(folder.path().join(format!("frame{n:02}")), bytes).unwrap();
        }
        for n in 0..60 {
            let block = audio.next_block().unwrap().unwrap();
            let bytes: Vec<u8> = block
                .samples
                .iter()
                .flat_map(|sample| ((sample * 32767.0) as i16).to_le_bytes())
                .collect();
            fs::write(folder.path().join(format!("block{n:02}")), bytes).unwrap();
        }
        Pieces { folder }
    }

    pub fn camera(&self) -> String {
        let folder = self.folder.path().display();
        format!("command:while :; do for f in {folder}/frame*; do cat $f; sleep .066; done; done")
    }

    /// The blocks last 32 ms each.
    pub fn microphone(&self) -> String {
        let folder = self.folder.path().display();
        format!("command:while :; do for f in {folder}/block*; do cat $f; sleep .032; done; done")
    }
}

/// A running daemon, and its estimates.
pub struct Daemon {
    pub child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    log: TempDir,
}

impl Daemon {
    pub fn start(arguments: &[&str]) -> Daemon {
        Daemon::with(affectd(), arguments)
    }

    pub fn with(mut affectd: Command, arguments: &[&str]) -> Daemon {
        let log = tempfile::tempdir().unwrap();
        let mut child = affectd
            .arg("run")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(log.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Daemon { child, lines, log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path().join("log")).unwrap()
    }

    /// Reads estimates until one is as `wanted`.
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let line = self.lines.next().unwrap().unwrap();
            let estimate: Value = serde_json::from_str(&line).unwrap();
            if wanted(&estimate) {
                return estimate;
            }
        }
        panic!("no such estimate: {}", self.log());
    }

    pub fn until_logged(&mut self, words: &str) {
        self.until_logged_times(words, 1);
    }

    pub fn until_logged_times(&mut self, words: &str, times: usize) {
        let deadline = Instant::now() + TIMEOUT;
        while self.log().matches(words).count() < times {
            assert!(Instant::now() < deadline, "{}", self.log());
            // It keeps writing estimates, which must not fill the pipe.
            self.lines.next().unwrap().unwrap();
        }
    }

    pub fn signal(&self, signal: i32) {
        let id = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: the call accesses no memory. The child has not been waited for, so its id belongs to no other process.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Stops the daemon, which must succeed. Returns the log.
    pub fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        for line in self.lines.by_ref() {
            line.unwrap();
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A failed test leaves no daemon behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process runs whose command line contains `words`.
pub fn is_running(words: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        command.starts_with("/bin/sh -c ") && command.contains(words)
    })
}

#[test]
fn programs_deliver_faces_and_voices_and_end_with_affectd() {
    let pieces = Pieces::new();
    let mut daemon = Daemon::start(&["--camera", &pieces.camera(), "--microphone", &pieces.microphone()]);
    daemon.until(|estimate| estimate["modalities"] == serde_json::json!(["face", "voice"]));
    let folder = pieces.folder.path().display().to_string();
    assert!(is_running(&folder));
    let log = daemon.stop();
    assert!(log.contains("camera running: command:while, JPEG images"), "{log}");
    assert!(
        log.contains("microphone running: command:while, PCM 16000 Hz 1 channel"),
        "{log}"
    );
    assert!(!is_running(&folder));
}

#[test]
fn programs_end_with_an_affectd_that_is_killed() {
    let pieces = Pieces::new();
    let folder = pieces.folder.path().display().to_string();
    let mut daemon = Daemon::start(&["--camera", &pieces.camera(), "--microphone", &pieces.microphone()]);
    daemon.until(|estimate| estimate["modalities"] == serde_json::json!(["face", "voice"]));
    assert!(is_running(&folder));
    daemon.signal(libc::SIGKILL);
    wait(|| (!is_running(&folder)).then_some(()));
}

#[test]
fn a_microphone_that_is_faster_than_time_is_an_error() {
    let mut daemon = Daemon::start(&["--camera", "off", "--microphone", "command:cat /dev/zero"]);
    daemon.until_logged("make it write in real time, as ffmpeg does with -re");
    daemon.stop();
}

#[test]
fn a_program_that_fails_is_started_again_and_its_last_words_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let command = format!(
        "command:echo x >> {}; echo 'no cameras available' >&2; exit 3",
        count.display()
    );
    let mut daemon = Daemon::start(&["--camera", &command, "--microphone", "off"]);
    daemon.until_logged(
        "command:echo: the program ended (exit status: 3; no cameras available): run the command by hand to see why",
    );
    let deadline = Instant::now() + TIMEOUT;
    while fs::read_to_string(&count).unwrap().lines().count() < 3 {
        assert!(Instant::now() < deadline);
        daemon.until(|_| true);
    }
    daemon.stop();
}

#[test]
fn a_command_without_a_program_is_a_wrong_configuration() {
    let output = affectd().args(["run", "--camera", "command: "]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains("camera.device = command:  (flag --camera): names no program"),
        "{log}"
    );
}

#[test]
fn what_a_program_writes_is_named_if_it_cannot_be_read() {
    let h264 = r"command:printf '\000\000\000\001gABCDEFGH'; sleep 100";
    let mut daemon = Daemon::start(&["--camera", h264, "--microphone", "off"]);
    daemon.until_logged("the program writes H.264 or H.265: make it write JPEG images");
    daemon.stop();
    let text = "command:echo 'Setting pipeline to PAUSED ...'; sleep 100";
    let mut daemon = Daemon::start(&["--camera", text, "--microphone", "off"]);
    daemon.until_logged("the program writes text, as gst-launch-1.0 does without -q: make it write JPEG images");
    daemon.stop();
}

#[test]
fn a_missing_ffmpeg_is_named_and_the_password_of_the_camera_is_not() {
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("log");
    let mut child = affectd()
        .args([
            "run",
            "--camera",
            "rtsp://bob:secret@cam.local/live",
            "--microphone",
            "off",
        ])
        .env("PATH", "")
        .env("AFFECTD_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(fs::File::create(&path).unwrap())
        .spawn()
        .unwrap();
    let expected = "rtsp://bob:…@cam.local/live: ffmpeg is not installed: sudo apt-get install ffmpeg";
    let deadline = Instant::now() + TIMEOUT;
    let mut text = String::new();
    while !text.contains(expected) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        text = read(&path);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(text.contains(expected), "{text}");
    assert!(!read(&path).contains("secret"));
    let config = affectd()
        .args(["config", "--camera", "rtsp://bob:secret@cam.local/live"])
        .output()
        .unwrap();
    let text = String::from_utf8(config.stdout).unwrap();
    assert!(text.contains("cam.local/live") && !text.contains("secret"), "{text}");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
