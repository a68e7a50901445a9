use crate::health::LiveHealth;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::estimate::samples::nothing;
use super::*;
use crate::output::options::Options;
use crate::queue::WhenFull;
use tempfile::{TempDir, tempdir};

fn context() -> OutputContext {
    OutputContext {
        period: Duration::from_millis(200),
        when_full: WhenFull::Wait,
        controls: crossbeam_channel::bounded(1).0,
        dropped: Default::default(),
        lost: Default::default(),
        health: LiveHealth::default(),
        pause: Default::default(),
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
        ("", &[0; 200_000]),
        ("format=csv", b"3,0.6,\0\0\0\0"),
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
fn a_file_that_affectd_did_not_write_is_refused_and_stays_as_it_is() {
    let long_line = format!("{{\"schema\":{}}}", "1".repeat(9000));
    let contents = [
        "Dear diary,\ntoday I was happy.\n",
        "{\"my\":1}",
        "{",
        "{\"schema\":1,\"name\":\"mine\"}",
        "seq,t,time,",
        &long_line,
        "\0\0text",
    ];
    for options in ["", "format=csv", "keep=0", "max_mb=1&keep=9"] {
        for content in contents {
            let folder = tempdir().unwrap();
            let path = folder.path().join("affect.log");
            fs::write(&path, content).unwrap();
            let error = spec(&folder, options)
                .open(&context())
                .map(|_| ())
                .unwrap_err()
                .to_string();
            let expected = "affect.log: has content that affectd did not write: move it away, or use another file";
            assert!(error.ends_with(expected), "{error}");
            assert_eq!(spec(&folder, options).check().unwrap_err().to_string(), error);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(&folder), ["affect.log"]);
        }
    }
}

#[test]
fn a_few_zeros_are_ours_and_more_are_refused_without_being_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("affect.log");
    let zeros = |bytes: u64| File::create(&path).unwrap().set_len(bytes).unwrap();
    // The last one has no blocks on the disk. To read it takes hours.
    for bytes in [64 * 1024 + 1, 1_000_000, 1_000_000_000_000] {
        zeros(bytes);
        let error = spec(&folder, "").open(&context()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("has content that affectd did not write"), "{error}");
        assert_eq!(spec(&folder, "").check().unwrap_err().to_string(), error);
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
    }
    zeros(64 * 1024);
    write(&mut small(&folder, ""), 1..=2);
    assert_eq!(seqs(&folder, "affect.log"), [1, 2]);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1_000_000_000_000)
        .unwrap();
    assert!(spec(&folder, "").open(&context()).is_err());
    assert_eq!(fs::metadata(&path).unwrap().len(), 1_000_000_000_000);
}

#[test]
fn rotation_deletes_no_file_whose_end_is_not_ours() {
    for options in ["keep=1", "keep=1&format=csv"] {
        let ours = {
            let folder = tempdir().unwrap();
            write(&mut small(&folder, options), 1..=2);
            fs::read_to_string(folder.path().join("affect.log")).unwrap()
        };
        for (content, is_deleted) in [
            (ours.clone(), true),
            (ours[..ours.len() - 5].to_owned(), true),
            (format!("{ours}\0\0"), true),
            (format!("{ours}MY IMPORTANT NOTES\n"), false),
            (format!("{ours}MY IMPORTANT NOTES"), false),
            (format!("{ours}2026-12-01"), false),
            (format!("{ours}{}\n", "x".repeat(10_000)), false),
            ("\0".repeat(1_000_000), false),
        ] {
            let folder = tempdir().unwrap();
            let old = folder.path().join("affect.log.1");
            fs::write(&old, &content).unwrap();
            write(&mut small(&folder, options), 1..=50);
            let is_same = fs::read_to_string(&old).unwrap() == content;
            assert_eq!(
                !is_same,
                is_deleted,
                "{options}: …{:?}",
                content.chars().rev().take(30).collect::<String>()
            );
        }
    }
}

#[test]
fn rotation_renames_no_foreign_file() {
    let folder = tempdir().unwrap();
    let foreign = folder.path().join("affect.log.1");
    fs::write(&foreign, "mine").unwrap();
    write(&mut small(&folder, "keep=3"), 1..=50);
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");
    assert_eq!(seqs(&folder, "affect.log"), (1..=50).collect::<Vec<_>>());
}

#[test]
fn numbers_that_somebody_appended_to_rows_stay() {
    for (note, stays) in [
        ("2026-12-01", true),
        ("42", true),
        ("4,0.8", true),
        ("3", false),
        ("1,0.2,", false),
    ] {
        let folder = tempdir().unwrap();
        write(&mut small(&folder, "format=csv"), 1..=2);
        let path = folder.path().join("affect.log");
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{before}{note}")).unwrap();
        write(&mut small(&folder, "format=csv"), 3..=3);
        let after = fs::read_to_string(&path).unwrap();
        assert_eq!(after.starts_with(&format!("{before}{note}\n")), stays, "{note}");
        assert_eq!(after.lines().last().unwrap().split(',').next(), Some("3"));
    }
}

#[test]
fn a_symbolic_link_to_a_foreign_file_is_refused_and_one_to_our_file_is_followed() {
    let folder = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    let target = elsewhere.path().join("data.jsonl");
    std::os::unix::fs::symlink(&target, folder.path().join("affect.log")).unwrap();
    fs::write(&target, "mine").unwrap();
    assert!(spec(&folder, "").open(&context()).is_err());
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    fs::remove_file(&target).unwrap();
    write(&mut small(&folder, "keep=1"), 1..=50);
    assert_eq!(names(&folder), ["affect.log"]);
    assert_eq!(names(&elsewhere), ["data.jsonl", "data.jsonl.1"]);
    assert_eq!(seqs(&elsewhere, "data.jsonl").last(), Some(&50));
}

#[test]
fn rotation_never_deletes_a_foreign_file_and_appends_instead() {
    for keep in [0, 1, 2] {
        let folder = tempdir().unwrap();
        let foreign = folder.path().join(format!("affect.log.{}", keep.max(1)));
        fs::write(&foreign, "mine").unwrap();
        let options = format!("keep={keep}");
        write(&mut small(&folder, &options), 1..=50);
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");
        if keep > 0 {
            let files = names(&folder).into_iter().rev().filter(|name| !foreign.ends_with(name));
            let all: Vec<u64> = files.flat_map(|name| seqs(&folder, &name)).collect();
            assert_eq!(all, (1..=50).collect::<Vec<_>>(), "keep={keep}");
        }
    }
}

#[test]
fn a_folder_in_the_place_of_an_old_file_stops_the_rotation_and_not_the_lines() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("affect.log.2")).unwrap();
    write(&mut small(&folder, "keep=2"), 1..=50);
    let all: Vec<u64> = ["affect.log.1", "affect.log"]
        .iter()
        .filter(|name| folder.path().join(name).exists())
        .flat_map(|name| seqs(&folder, name))
        .collect();
    assert_eq!(all, (1..=50).collect::<Vec<_>>());
}

#[test]
fn a_lower_number_of_old_files_deletes_the_older_ones() {
    let folder = tempdir().unwrap();
    write(&mut small(&folder, "keep=5"), 1..=100);
    assert_eq!(names(&folder).len(), 6);
    write(&mut small(&folder, "keep=1"), 101..=120);
    assert_eq!(names(&folder), ["affect.log", "affect.log.1"]);
}

#[test]
fn another_format_begins_a_new_file_and_keeps_the_old_one() {
    for options in ["format=csv", "format=csv&keep=0"] {
        let folder = tempdir().unwrap();
        write(&mut small(&folder, ""), 1..=2);
        write(&mut small(&folder, options), 3..=4);
        assert_eq!(seqs(&folder, "affect.log"), [3, 4]);
        assert_eq!(seqs(&folder, "affect.log.1"), [1, 2]);
    }
}

#[test]
fn text_that_somebody_appended_stays_and_the_next_line_is_whole() {
    for options in ["", "format=csv"] {
        let folder = tempdir().unwrap();
        write(&mut small(&folder, options), 1..=1);
        let path = folder.path().join("affect.log");
        let before = fs::read_to_string(&path).unwrap();
        for note in ["a note".to_string(), "x".repeat(10_000)] {
            fs::write(&path, format!("{before}{note}")).unwrap();
            let mut output = spec(&folder, options).open(&context()).unwrap();
            output.write(&nothing(2)).unwrap();
            let after = fs::read_to_string(&path).unwrap();
            let added = after
                .strip_prefix(&format!("{before}{note}\n"))
                .expect("the note stays");
            assert_eq!(added.lines().count(), 1);
            assert!(added.ends_with('\n'));
        }
    }
}

#[test]
fn a_file_that_another_program_renames_deletes_or_cuts_is_opened_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("affect.log");
    let mut output = spec(&folder, "").open(&context()).unwrap();
    write(&mut output, 1..=2);
    fs::rename(&path, folder.path().join("affect.log-20261130")).unwrap();
    write(&mut output, 3..=4);
    assert_eq!(seqs(&folder, "affect.log"), [3, 4]);
    assert_eq!(seqs(&folder, "affect.log-20261130"), [1, 2]);
    fs::remove_file(&path).unwrap();
    write(&mut output, 5..=5);
    assert_eq!(seqs(&folder, "affect.log"), [5]);
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(&mut output, 6..=6);
    assert_eq!(seqs(&folder, "affect.log"), [6]);
    assert_eq!(output.context.dropped.load(Ordering::Relaxed), 0);
}

#[test]
fn only_the_owner_may_read_the_files() {
    let folder = tempdir().unwrap();
    write(&mut small(&folder, "keep=1"), 1..=50);
    for name in names(&folder) {
        let mode = fs::metadata(folder.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_replay_that_lost_lines_fails_and_a_daemon_does_not() {
    for (when_full, fails) in [(WhenFull::Wait, true), (WhenFull::DropOldest, false)] {
        let folder = tempdir().unwrap();
        let mut output = spec(&folder, "")
            .open(&OutputContext { when_full, ..context() })
            .unwrap();
        fs::remove_file(folder.path().join("affect.log")).unwrap();
        fs::create_dir(folder.path().join("affect.log")).unwrap();
        write(&mut output, 1..=3);
        fs::remove_dir(folder.path().join("affect.log")).unwrap();
        write(&mut output, 4..=4);
        assert_eq!(output.dropped, 3);
        assert_eq!(output.finish().is_err(), fails);
    }
}

#[test]
fn a_failed_write_drops_whole_lines_and_is_retried() {
    let folder = tempdir().unwrap();
    let mut output = small(&folder, "");
    write(&mut output, 1..=1);
    let length = output.open.as_ref().unwrap().length;
    // Writing to a file that is open for reading fails, as on a full disk.
    output.open.as_mut().unwrap().file = File::open(folder.path().join("affect.log")).unwrap();
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
    write(&mut small(&folder, ""), 1..=1);
    let before = fs::read(folder.path().join("affect.log")).unwrap();
    spec(&folder, "").check().unwrap();
    assert_eq!(fs::read(folder.path().join("affect.log")).unwrap(), before);
}

#[test]
fn check_creates_and_deletes_no_link_and_no_target() {
    let folder = tempdir().unwrap();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
    link("target.log", "second.log");
    link("second.log", "affect.log");
    spec(&folder, "").check().unwrap();
    assert_eq!(names(&folder), ["affect.log", "second.log"]);
    fs::write(folder.path().join("target.log"), "").unwrap();
    spec(&folder, "").check().unwrap();
    assert_eq!(names(&folder), ["affect.log", "second.log", "target.log"]);
}

#[test]
fn a_link_into_a_folder_that_is_absent_names_that_folder() {
    let folder = tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere/x.log", folder.path().join("affect.log")).unwrap();
    let error = spec(&folder, "").check().unwrap_err().to_string();
    let opened = spec(&folder, "").open(&context()).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, opened);
    let shown = error.replace(fs::canonicalize(folder.path()).unwrap().to_str().unwrap(), "/tmp");
    insta::assert_snapshot!(shown, @"/tmp/affect.log: no such folder: create it with mkdir -p /tmp/nowhere");
}

#[test]
fn invalid_options_are_rejected_with_the_valid_values() {
    let error = |options: &str| FileSpec::parse("/x", &Options::parse(options).unwrap()).unwrap_err();
    insta::assert_snapshot!(error("max_mb=0"), @"max_mb=0: must be a number of megabytes from 1 to 100000");
    insta::assert_snapshot!(error("keep=-1"), @"keep=-1: must be a number of old files from 0 to 999");
    insta::assert_snapshot!(error("fsync=often"), @"fsync=often: must be off, or a number of seconds from 0 (every line) to 3600");
    insta::assert_snapshot!(error("format=xml"), @"format=xml: must be json or csv");
}
