//! What is wrong is said in one line: the thing, the reason, the mend.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::matroska::make_clip;
use super::{Replay, affectd, demo, file};

/// Runs on `content` as file `name`, with no ffmpeg to turn to.
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
fn a_missing_clip_and_a_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let replay = Replay::of(&folder.path().join("nowhere.mkv"));
    assert_eq!(replay.code, Some(3));
    insta::assert_snapshot!(replay.error(folder.path()), @"affectd: nowhere.mkv: no such file: check the path of the clip");
    let replay = Replay::of(folder.path());
    assert_eq!(replay.code, Some(3));
    assert!(
        replay.log.contains("is a directory: name a clip in it"),
        "{}",
        replay.log
    );
}

#[test]
fn an_empty_clip_is_refused() {
    let (code, error) = error("empty.mkv", b"");
    assert_eq!(code, Some(3));
    insta::assert_snapshot!(error, @"affectd: empty.mkv: is empty: record or copy the clip again");
}

#[test]
fn text_that_calls_itself_a_clip_is_refused() {
    let (code, error) = error("notes.mkv", b"Remember to buy a camera.\n");
    assert_eq!(code, Some(3));
    insta::assert_snapshot!(error, @"affectd: notes.mkv: not Matroska with MJPEG and PCM, WAV or MJPEG, and ffmpeg, which could convert it, is not installed: sudo apt-get install ffmpeg");
}

#[test]
fn a_clip_with_neither_pictures_nor_sound_is_refused() {
    let (code, error) = error("hollow.mkv", &make_clip(None, None));
    assert_eq!(code, Some(3));
    insta::assert_snapshot!(error, @"affectd: hollow.mkv: has neither pictures nor sound: try another clip");
}

#[test]
fn a_mistyped_flag_is_a_usage_error() {
    let output = affectd().args(["run", "--inptu", "x.mkv"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("'--inptu'"));
}

#[test]
fn what_can_never_be_a_camera_or_a_microphone_ends_it() {
    let error = |variable: &str, device: &str| {
        let mut run = affectd();
        // The other one stays off: whether this machine has any must not matter.
        for other in ["AFFECTD_CAMERA_DEVICE", "AFFECTD_MICROPHONE_DEVICE"] {
            run.env(other, "off");
        }
        let output = run.env(variable, device).arg("run").output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let log = String::from_utf8(output.stderr).unwrap();
        log.lines().last().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(error("AFFECTD_CAMERA_DEVICE", "/dev/null"), @"affectd: /dev/null: is no camera: `affectd devices` lists the cameras there are");
    insta::assert_snapshot!(error("AFFECTD_MICROPHONE_DEVICE", "telegraph"), @"affectd: telegraph: ALSA knows no such device: `affectd devices` lists the microphones there are");
}

#[test]
fn a_camera_that_is_not_there_is_waited_for_and_lines_come_meanwhile() {
    let mut child = affectd()
        .arg("run")
        .env("AFFECTD_CAMERA_DEVICE", "/dev/video-of-nobody")
        .env("AFFECTD_MICROPHONE_DEVICE", "off")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.nth(2).unwrap().unwrap();
    assert!(line.contains(r#""valence":null"#), "{line}");
    // SAFETY: sends a signal to a child that has not been waited for, so its id is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains("camera absent: /dev/video-of-nobody: not connected"),
        "{log}"
    );
}

#[test]
fn nobody_is_recorded_without_consent() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mkv");
    let output = affectd().arg("record").arg(&clip).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--i-have-consent"));
    assert!(!clip.exists());
}

#[test]
fn a_recording_overwrites_nothing() {
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
fn devices_are_listed_even_if_there_are_none() {
    let output = affectd().args(["devices", "--json"]).output().unwrap();
    assert!(output.status.success());
    let devices: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for kind in ["cameras", "microphones", "serial_ports"] {
        assert!(devices[kind].is_array(), "{devices}");
    }
}

#[test]
fn an_output_that_does_not_exist_is_named() {
    let run = affectd()
        .args(["run", "--output", "telegraph", "--input"])
        .arg(demo())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(5));
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
