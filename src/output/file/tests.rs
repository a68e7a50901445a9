use std::fs;
use std::sync::atomic::Ordering;

use super::super::estimate::samples::nothing;
use super::*;
use crate::queue::WhenFull;
use tempfile::{TempDir, tempdir};

fn context() -> OutputContext {
    OutputContext {
        period: Duration::from_millis(200),
        when_full: WhenFull::Wait,
        controls: crossbeam_channel::bounded(1).0,
        dropped: Default::default(),
        lost: Default::default(),
        host: Default::default(),
    }
}

fn spec(folder: &TempDir, options: &str) -> FileSpec {
    let path = folder.path().join("affect.log");
    FileSpec::parse(path.to_str().unwrap(), &Options::parse(options).unwrap()).unwrap()
}

/// A file that is rotated at 1000 bytes.
fn small(folder: &TempDir, options: &str) -> LineFile {
    let mut output = spec(folder, options).open(&context()).unwrap();
    output.max_bytes = 1000;
    output
}

fn write(output: &mut LineFile, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        output.write(&nothing(seq)).unwrap();
    }
}

/// The sequence numbers in one file, without the CSV header. Every line must be whole.
fn seqs(folder: &TempDir, name: &str) -> Vec<u64> {
    let text = fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let seq = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(json) if json.is_object() => json["seq"].as_u64().unwrap(),
        _ => line.split(',').next().unwrap().parse().unwrap(),
    };
    text.lines().filter(|l| !l.starts_with("seq,")).map(seq).collect()
}

fn names(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn rotation_keeps_whole_lines_and_the_given_number_of_files() {
    for options in ["keep=2", "keep=2&format=csv"] {
        let folder = tempdir().unwrap();
        write(&mut small(&folder, options), 1..=200);
        assert_eq!(names(&folder), ["affect.log", "affect.log.1", "affect.log.2"]);
        let all: Vec<u64> = ["affect.log.2", "affect.log.1", "affect.log"]
            .iter()
            .flat_map(|name| seqs(&folder, name))
            .collect();
        let first = all[0];
        assert!(first > 1, "the oldest files are deleted");
        assert_eq!(all, (first..=200).collect::<Vec<_>>());
        for name in names(&folder) {
            let text = fs::read_to_string(folder.path().join(&name)).unwrap();
            assert!(text.len() <= 1000, "{name}: {} bytes", text.len());
            assert_eq!(text.starts_with("seq,t,time,"), options.contains("csv"));
        }
    }
}

#[test]
fn keep_0_starts_an_empty_file_at_rotation() {
    let folder = tempdir().unwrap();
    write(&mut small(&folder, "keep=0"), 1..=50);
    assert_eq!(names(&folder), ["affect.log"]);
    assert_eq!(seqs(&folder, "affect.log").last(), Some(&50));
}

#[test]
fn reopening_continues_after_the_last_whole_line() {
    for (options, torn) in [
        ("", &b"{\"schema\":1,\"se"[..]),
        ("format=csv", b"3,0."),
        ("", &[0; 20]),
    ] {
        let folder = tempdir().unwrap();
        write(&mut small(&folder, options), 1..=2);
        let path = folder.path().join("affect.log");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(torn).unwrap();
        write(&mut small(&folder, options), 3..=4);
        assert_eq!(seqs(&folder, "affect.log"), [1, 2, 3, 4]);
    }
}

#[test]
fn a_file_with_other_content_is_rotated_away() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("affect.log"), "Dear diary,\ntoday I was happy.\n").unwrap();
    write(&mut small(&folder, "format=csv"), 1..=2);
    assert_eq!(seqs(&folder, "affect.log"), [1, 2]);
    let kept = fs::read_to_string(folder.path().join("affect.log.1")).unwrap();
    assert!(kept.starts_with("Dear diary"));
}

#[test]
fn a_full_disk_drops_whole_lines_and_is_retried() {
    let folder = tempdir().unwrap();
    let mut output = small(&folder, "");
    write(&mut output, 1..=1);
    let length = output.open.as_ref().unwrap().length;
    let full = File::options().write(true).open("/dev/full").unwrap();
    output.open.as_mut().unwrap().file = full;
    write(&mut output, 2..=2);
    assert_eq!(output.state, WriteState::Failing);
    assert_eq!(output.context.dropped.load(Ordering::Relaxed), 1);
    assert_eq!(output.context.lost.load(Ordering::Relaxed), 1);
    // A full disk can cut a write short and leave a part of the line.
    let mut file = OpenOptions::new()
        .append(true)
        .open(folder.path().join("affect.log"))
        .unwrap();
    assert_eq!(file.metadata().unwrap().len(), length);
    file.write_all(b"{\"schema\":1,\"seq\":2,").unwrap();
    write(&mut output, 3..=3);
    assert_eq!(output.state, WriteState::Working);
    assert_eq!(seqs(&folder, "affect.log"), [1, 3]);
}

#[test]
fn errors_name_the_path_and_the_correction() {
    let folder = tempdir().unwrap();
    let error = |name: &str| {
        let path = folder.path().join(name);
        let spec = FileSpec::parse(path.to_str().unwrap(), &Options::default()).unwrap();
        let opened = spec.open(&context()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(spec.check().unwrap_err().to_string(), opened);
        opened.replace(folder.path().to_str().unwrap(), "/tmp")
    };
    fs::create_dir(folder.path().join("folder")).unwrap();
    fs::write(folder.path().join("notes"), "").unwrap();
    insta::assert_snapshot!(error("nowhere/affect.log"), @"/tmp/nowhere/affect.log: no such folder: create it with mkdir -p /tmp/nowhere");
    insta::assert_snapshot!(error("folder"), @"/tmp/folder: is a folder: name a file in it");
    insta::assert_snapshot!(error("notes/affect.log"), @"/tmp/notes/affect.log: part of the path is a file: correct the path");
}

#[test]
fn devices_are_rejected() {
    let spec = FileSpec::parse("/dev/full", &Options::default()).unwrap();
    insta::assert_snapshot!(spec.check().unwrap_err(), @"/dev/full: is not a regular file: name a regular file, or use another kind of output");
}

#[test]
fn check_leaves_nothing_behind() {
    let folder = tempdir().unwrap();
    spec(&folder, "").check().unwrap();
    assert!(names(&folder).is_empty());
    fs::write(folder.path().join("affect.log"), "kept").unwrap();
    spec(&folder, "").check().unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("affect.log")).unwrap(), "kept");
}

#[test]
fn invalid_options_are_rejected_with_the_valid_values() {
    let error = |options: &str| FileSpec::parse("/x", &Options::parse(options).unwrap()).unwrap_err();
    insta::assert_snapshot!(error("max_mb=0"), @"max_mb=0: must be a number of megabytes from 1 to 100000");
    insta::assert_snapshot!(error("keep=-1"), @"keep=-1: must be a number of old files from 0 to 999");
    insta::assert_snapshot!(error("fsync=often"), @"fsync=often: must be off, or a number of seconds from 0 (every line) to 3600");
    insta::assert_snapshot!(error("format=xml"), @"format=xml: must be json or csv");
}
