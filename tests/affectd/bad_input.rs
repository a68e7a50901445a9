//! What is wrong is said in one line: the thing, the reason, the mend.

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
fn without_a_clip_it_says_that_one_is_needed() {
    let output = affectd().arg("run").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!(error.trim(), @"affectd: no camera or microphone can be opened: this version reads clips only, give one with --input CLIP");
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
    insta::assert_snapshot!(error.trim(), @r#"affectd: output = "telegraph": no such output: there is stdout, serial:/dev/ttyUSB0, file:/path, mqtt://broker"#);
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
    insta::assert_snapshot!(log.lines().last().unwrap(), @"affectd: stdout: cannot be written (No space left on device (os error 28)): free space where it goes, or send it elsewhere");
}
