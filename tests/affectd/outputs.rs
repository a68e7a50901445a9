//! Files and standard output, several outputs at once, and invalid specs.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::pty::Pty;
use super::{Replay, affectd, demo};

fn run(outputs: &[&str]) -> Command {
    let mut command = affectd();
    command.args(["run", "--input"]).arg(demo());
    for output in outputs {
        command.args(["--output", output]);
    }
    command
}

#[test]
fn every_output_receives_every_estimate() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (json, csv) = (at("affect.jsonl"), at("affect.csv"));
    let output = run(&["stdout", &format!("file:{json}"), &format!("file:{csv}?format=csv")])
        .output()
        .unwrap();
    let replay = Replay::from(output);
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    let seqs: Vec<u64> = replay.lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(seqs.len() >= 45);
    let from_json: Vec<u64> = fs::read_to_string(json)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(from_json, seqs);
    let csv = fs::read_to_string(csv).unwrap();
    let (header, rows) = csv.split_once('\n').unwrap();
    assert!(header.starts_with("seq,t,time,paused,valence,"), "{header}");
    let from_csv: Vec<u64> = rows
        .lines()
        .map(|row| row.split(',').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(from_csv, seqs);
}

#[test]
fn csv_has_the_values_of_json() {
    let csv = run(&["stdout?format=csv"]).output().unwrap();
    let csv = String::from_utf8(csv.stdout).unwrap();
    let mut rows = csv.lines().map(|row| row.split(',').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
    for (row, line) in rows.zip(Replay::of(&demo()).lines) {
        assert_eq!(row.len(), header.len());
        let cell = |name: &str| row[column(name)].parse::<f64>().ok();
        assert_eq!(cell("valence"), line["valence"].as_f64());
        assert_eq!(cell("arousal"), line["arousal"].as_f64());
        assert_eq!(cell("confidence"), line["confidence"].as_f64());
        assert_eq!(cell("face_id"), line["face"]["id"].as_f64());
        assert_eq!(cell("face_w"), line["face"]["box"][2].as_f64());
        let modalities: Vec<&str> = line["modalities"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(cell("from_face") == Some(1.0), modalities.contains(&"face"));
        assert_eq!(cell("from_voice") == Some(1.0), modalities.contains(&"voice"));
        assert_eq!(cell("voice_level_db"), line["voice"]["level_db"].as_f64());
        if let Some(happiness) = line["expression"]["happiness"].as_f64() {
            assert_eq!(cell("expression_happiness"), Some(happiness));
        }
    }
}

/// The error of `affectd run` and `affectd check` for an output, without the folder. Both end with `code`.
fn error_of(code: i32, spec: &str, folder: &Path) -> String {
    let run = run(&["stdout", spec]).output().unwrap();
    assert!(run.stdout.is_empty(), "affectd must not start");
    let log = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(code), "{log}");
    let message = log.lines().last().unwrap().to_string();
    let check = affectd()
        .args(["check", "--input"])
        .arg(demo())
        .env("AFFECTD_OUTPUT", format!("stdout,{spec}"))
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(code));
    let error = String::from_utf8(check.stderr).unwrap();
    assert_eq!(error.lines().last().unwrap(), message);
    message.replace(&folder.display().to_string(), "/tmp")
}

#[test]
fn invalid_specs_are_a_wrong_configuration() {
    let folder = Path::new("/nonexistent");
    insta::assert_snapshot!(error_of(2, "file:~/affect.csv", folder), @r#"affectd: output = "file:~/affect.csv": ~ stands for the home folder only in a shell, at the start of a word: write the whole path, or file:"$HOME"/affect.csv"#);
    for scheme in ["http", "MQTT", "tcp"] {
        assert_eq!(
            error_of(2, &format!("{scheme}://user:secret@broker"), folder),
            format!(
                "affectd: output = \"{scheme}://user:…@broker\": unknown scheme {scheme}://: a broker is mqtt://HOST, or mqtts://HOST with TLS, in small letters"
            )
        );
    }
    insta::assert_snapshot!(error_of(2, "carrier:pigeon", folder), @r#"affectd: output = "carrier:pigeon": unknown output: use stdout, serial:/dev/ttyUSB0, file:/path or mqtt://broker"#);
    insta::assert_snapshot!(error_of(2, "serial:/dev/ttyAMA0?baud=fast", folder), @r#"affectd: output = "serial:/dev/ttyAMA0?baud=fast": baud=fast: must be a number from 300 to 4000000, for example 115200"#);
    insta::assert_snapshot!(error_of(2, "stdout?format=csv", folder), @r#"affectd: output = "stdout?format=csv": writes to the same place as stdout: keep one"#);
}

#[test]
fn outputs_that_cannot_be_opened_end_affectd_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let missing = format!("file:{}", path("nowhere/affect.csv"));
    insta::assert_snapshot!(error_of(5, &missing, folder), @"affectd: /tmp/nowhere/affect.csv: no such folder: create it with mkdir -p /tmp/nowhere");
    insta::assert_snapshot!(error_of(5, "serial:/dev/null", folder), @"affectd: /dev/null: is not a serial port: use a serial port, for example /dev/ttyUSB0 or /dev/serial0");
    insta::assert_snapshot!(error_of(5, &format!("serial:{}", path("ttyAMA0")), folder), @"affectd: /tmp/ttyAMA0: no such port: list the ports with ls -l /dev/serial/by-id /dev/serial[01]; a UART of the board must be enabled first (sudo raspi-config)");
}

#[test]
fn two_outputs_that_write_the_same_file_are_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink("y.json", path("link.json")).unwrap();
    let rejected = |first: &str, second: &str, text: &str| {
        let output = run(&[first, second]).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(text), "{log}");
    };
    let file = |name: &str| format!("file:{}", path(name).display());
    rejected(&file("y.json"), &file("link.json"), "writes to the same place as file:");
    rejected(
        &file("z"),
        &file("z.1"),
        "an old file of one would get the name of the other",
    );
    let broker = |host: &str| format!("mqtt://{host}?device=a");
    rejected(
        &broker("localhost"),
        &broker("127.0.0.1"),
        "writes to the same place as mqtt:",
    );
    assert!(!path("y.json").exists());
}

#[test]
fn a_file_to_which_standard_output_is_redirected_is_not_written_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("affect.jsonl");
    let output = run(&["stdout", &format!("file:{}", path.display())])
        .stdout(fs::File::create(&path).unwrap())
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("writes to the same place as stdout: keep one"), "{log}");
}

#[test]
fn a_port_in_use_by_another_program_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("ttyUSB0");
    let _pty = Pty::plug_in(&link);
    let other = fs::OpenOptions::new().read(true).write(true).open(&link).unwrap();
    // SAFETY: the call acts on a descriptor that `other` keeps open, and accesses no memory.
    let locked = unsafe { libc::flock(other.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    assert_eq!(locked, 0);
    let spec = format!("serial:{}", link.display());
    insta::assert_snapshot!(error_of(5, &spec, folder.path()), @"affectd: /tmp/ttyUSB0: is in use by another program: stop that program, or use another port");
}

#[test]
fn checking_usable_outputs_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("ttyUSB0");
    let mut pty = Pty::plug_in(&link);
    let file = folder.path().join("affect.jsonl");
    let check = affectd()
        .args(["check", "--input"])
        .arg(demo())
        .env(
            "AFFECTD_OUTPUT",
            format!("serial:{},file:{}", link.display(), file.display()),
        )
        .output()
        .unwrap();
    let report = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success(), "{report}");
    assert!(report.contains("ok   output: serial:"), "{report}");
    assert!(report.contains("ok   output: file:"), "{report}");
    assert!(!file.exists());
    assert!(pty.drain().is_empty());
}
