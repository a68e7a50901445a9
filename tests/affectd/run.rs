//! The main job, on the clip that ships.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;

use super::{Replay, affectd, demo};

#[test]
fn the_demo_shows_both_modalities_each_alone_and_neither() {
    let replay = Replay::of(&demo());
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    for modalities in [&["face", "voice"][..], &["face"], &["voice"], &[]] {
        assert!(
            replay.count(modalities) >= 3,
            "{modalities:?}: {}",
            replay.count(modalities)
        );
    }
    for line in &replay.lines {
        let nothing = line["modalities"].as_array().unwrap().is_empty();
        for key in ["valence", "arousal", "confidence"] {
            assert_eq!(line[key].is_null(), nothing, "{line}");
        }
    }
}

#[test]
fn estimates_come_five_times_a_second_numbered_without_gaps() {
    let lines = Replay::of(&demo()).lines;
    assert!(lines.len() >= 45);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["schema"], 1);
        assert_eq!(line["seq"], i as u64 + 1);
        assert!((line["t"].as_f64().unwrap() - 0.2 * (i as f64 + 1.0)).abs() < 1e-9);
    }
}

#[test]
fn every_value_is_in_its_range() {
    for line in Replay::of(&demo()).lines {
        let within =
            |value: &Value, low: f64, high: f64| value.is_null() || (low..=high).contains(&value.as_f64().unwrap());
        assert!(within(&line["valence"], -1.0, 1.0), "{line}");
        assert!(within(&line["arousal"], -1.0, 1.0), "{line}");
        assert!(within(&line["confidence"], 0.0, 1.0), "{line}");
        assert!(within(&line["face"]["score"], 0.5, 1.0), "{line}");
        assert!(within(&line["voice"]["level_db"], -120.0, 0.0), "{line}");
        if let Some(bounds) = line["face"]["box"].as_array() {
            assert!(bounds.iter().all(|v| within(v, 0.0, 1.0)), "{line}");
        }
        if let Some(expression) = line["expression"].as_object() {
            let sum: f64 = expression.values().map(|p| p.as_f64().unwrap()).sum();
            assert!((0.5..=1.02).contains(&sum), "{line}");
        }
    }
}

#[test]
fn the_same_clip_gives_the_same_lines() {
    let timeless = || {
        let mut lines = Replay::of(&demo()).lines;
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            line.remove("time");
            line.remove("latency_ms");
        }
        lines
    };
    assert_eq!(timeless(), timeless());
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let mut child = affectd()
        .args(["run", "--input"])
        .arg(demo())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
    assert!(first.ends_with('\n'));
    assert!(!log.contains("ERROR") && !log.contains("affectd: "), "{log}");
}

#[test]
fn a_signal_ends_it_in_order() {
    let mut child = affectd()
        .args(["run", "--realtime", "--input"])
        .arg(demo())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    // SAFETY: sends a signal to a child that has not been waited for, so its id is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let rest = lines.count();
    assert!(child.wait().unwrap().success());
    assert!(rest < 30, "{rest} lines came after the signal");
}
