//! Invalid input gives an error of one line: the thing, the reason, the remedy.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::matroska::make_clip;
use super::{Replay, affectd, demo, file};

/// Replays a file with this name and content, without ffmpeg. Returns the exit code and the error.
fn error(name: &str, content: &[u8]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, name, content);
    let run = affectd()
        .args(["run", "--input"])
        .arg(path)
        .env("PATH", "")
        .output()
        .unwrap();
    let replay = Replay::from(run);
    assert!(replay.lines.is_empty());
    (replay.code, replay.error(folder.path()))
}

#[test]
fn a_missing_clip_and_a_directory_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let replay = Replay::of(&folder.path().join("nowhere.mkv"));
    assert_eq!(replay.code, Some(3));
    insta::assert_snapshot!(replay.error(folder.path()), @"affectd: nowhere.mkv: no such file: check the path of the clip");
    let replay = Replay::of(folder.path());
    assert_eq!(replay.code, Some(3));
    assert!(
        replay.log.contains("is a directory: give the path of a clip in it"),
        "{}",
        replay.log
    );
}

#[test]
fn an_empty_clip_is_rejected() {
    let (code, error) = error("empty.mkv", b"");
    assert_eq!(code, Some(3));
    insta::assert_snapshot!(error, @"affectd: empty.mkv: is empty: record or copy the clip again");
}

#[test]
fn a_text_file_named_like_a_clip_is_rejected() {
    let (code, error) = error("notes.mkv", b"Remember to buy a camera.\n");
    assert_eq!(code, Some(3));
    insta::assert_snapshot!(error, @"affectd: notes.mkv: not Matroska with MJPEG and PCM, not WAV and not MJPEG, and ffmpeg, which could convert it, is not installed: sudo apt-get install ffmpeg");
}

#[test]
fn a_clip_without_tracks_is_rejected() {
    let (code, error) = error("hollow.mkv", &make_clip(None, None));
    assert_eq!(code, Some(3));
    insta::assert_snapshot!(error, @"affectd: hollow.mkv: has neither video nor audio: try another clip");
}

#[test]
fn a_mistyped_flag_is_a_usage_error() {
    let output = affectd().args(["run", "--inptu", "x.mkv"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("'--inptu'"));
}

#[test]
fn a_device_that_is_not_a_camera_or_microphone_ends_the_run() {
    let error = |variable: &str, device: &str| {
        let mut run = affectd();
        // The other device is off, so that the test does not depend on this machine's devices.
        for other in ["AFFECTD_CAMERA_DEVICE", "AFFECTD_MICROPHONE_DEVICE"] {
            run.env(other, "off");
        }
        let output = run.env(variable, device).arg("run").output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let log = String::from_utf8(output.stderr).unwrap();
        log.lines().last().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(error("AFFECTD_CAMERA_DEVICE", "/dev/null"), @"affectd: /dev/null: is not a camera: `affectd devices` lists the cameras");
    insta::assert_snapshot!(error("AFFECTD_MICROPHONE_DEVICE", "telegraph"), @"affectd: telegraph: ALSA knows no device of this name: `affectd devices` lists the microphones");
}

#[test]
fn estimates_continue_while_the_camera_is_absent() {
    let mut child = affectd()
        .arg("run")
        .env("AFFECTD_CAMERA_DEVICE", "/dev/video-absent")
        .env("AFFECTD_MICROPHONE_DEVICE", "off")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.nth(2).unwrap().unwrap();
    assert!(line.contains(r#""valence":null"#), "{line}");
    // SAFETY: kill accesses no memory. The child has not been waited for, so its id still belongs to it.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("camera absent: /dev/video-absent: not connected"), "{log}");
}

#[test]
fn recording_requires_consent() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mkv");
    let output = affectd().arg("record").arg(&clip).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--i-have-consent"));
    assert!(!clip.exists());
}

#[test]
fn a_recording_never_overwrites_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let clip = file(&folder, "clip.mkv", b"precious");
    let output = affectd()
        .args(["record", "--i-have-consent"])
        .arg(&clip)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("clip.mkv: exists already: name another file, or remove it"),
        "{error}"
    );
    assert_eq!(std::fs::read(clip).unwrap(), b"precious");
}

#[test]
fn devices_prints_lists_even_without_devices() {
    let output = affectd().args(["devices", "--json"]).output().unwrap();
    assert!(output.status.success());
    let devices: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for kind in ["cameras", "microphones", "serial_ports"] {
        assert!(devices[kind].is_array(), "{devices}");
    }
}

#[test]
fn an_unknown_output_is_rejected() {
    let run = affectd()
        .args(["run", "--output", "telegraph", "--input"])
        .arg(demo())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    let error = String::from_utf8(run.stderr).unwrap();
    insta::assert_snapshot!(error.trim(), @r#"affectd: output = "telegraph": unknown output: use stdout, serial:/dev/ttyUSB0, file:/path or mqtt://broker"#);
}

#[test]
fn a_full_disk_is_an_output_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = affectd()
        .args(["run", "--input"])
        .arg(demo())
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(5));
    let log = String::from_utf8(run.stderr).unwrap();
    insta::assert_snapshot!(log.lines().last().unwrap(), @"affectd: stdout: cannot be written (No space left on device (os error 28)): free space on its disk, or redirect it to another file");
}

#[test]
fn a_limit_of_the_file_size_is_an_output_failure() {
    let folder = tempfile::tempdir().unwrap();
    let affectd = affectd();
    let command = r#"ulimit -f 1; exec "$0" run --input "$1" --output "file:$2/x.jsonl""#;
    let run = Command::new("bash")
        .args(["-c", command])
        .arg(affectd.get_program())
        .arg(demo())
        .arg(folder.path())
        .envs(affectd.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(5), "{:?}", run.status);
    let log = String::from_utf8(run.stderr).unwrap();
    assert!(log.contains("File too large"), "{log}");
}

#[test]
fn endless_files_and_silent_pipes_in_place_of_settings_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let run = affectd()
            .args(["run", "--input"])
            .arg(demo())
            .args(arguments)
            .output()
            .unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    let password = |path: &str| format!("mqtt://li@127.0.0.1:1?password_file={path}");
    let ca = |path: &str| format!("mqtts://127.0.0.1:1?ca={path}");
    for (arguments, code, reason) in [
        (
            ["--config", "/dev/zero"],
            2,
            "/dev/zero: cannot be read (larger than 1024 KiB)",
        ),
        (["--config", pipe], 2, "nothing writes to this pipe"),
        (
            ["--output", &password("/dev/zero")],
            5,
            "/dev/zero: cannot be read (larger than 64 KiB)",
        ),
        (["--output", &password(pipe)], 5, "nothing writes to this pipe"),
        (
            ["--output", &ca("/dev/zero")],
            5,
            "/dev/zero: cannot be read (larger than 1024 KiB)",
        ),
        (["--output", &ca(pipe)], 5, "nothing writes to this pipe"),
    ] {
        let (found, log) = run(&arguments);
        assert!(
            found == Some(code) && log.contains(reason),
            "{arguments:?}: {found:?}: {log}"
        );
    }
}
