//! `affectd run` on the demo clip.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;

use super::{Replay, affectd, demo};

#[test]
fn the_demo_has_both_modalities_each_alone_and_neither() {
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
fn five_estimates_a_second_are_numbered_without_gaps() {
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
fn the_same_clip_gives_the_same_estimates() {
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
fn a_closed_standard_output_ends_affectd_without_an_error() {
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
fn a_signal_ends_affectd_without_an_error() {
    let mut child = affectd()
        .args(["run", "--realtime", "--input"])
        .arg(demo())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    // SAFETY: kill is safe to call with any arguments. The child has not been waited for, so its id is still valid.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let rest = lines.count();
    assert!(child.wait().unwrap().success());
    assert!(rest < 30, "{rest} lines came after the signal");
}

#[test]
fn the_integer_kernels_and_tract_agree() {
    let with = |kernel: &str| {
        let run = affectd()
            .env("AFFECTD_KERNEL", kernel)
            .args(["run", "--input"])
            .arg(demo())
            .output()
            .unwrap();
        Replay::from(run).lines
    };
    let near = |a: &Value, b: &Value, tolerance: f64| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= tolerance,
        (a, b) => a == b,
    };
    let tract = with("tract");
    for kernel in ["reference", ""] {
        let ours = with(kernel);
        assert_eq!(ours.len(), tract.len());
        for (a, b) in ours.iter().zip(&tract) {
            assert_eq!(a["modalities"], b["modalities"]);
            assert_eq!(a["face"]["id"], b["face"]["id"]);
            assert!(near(&a["valence"], &b["valence"], 0.03), "{a}\n{b}");
            assert!(near(&a["arousal"], &b["arousal"], 0.03), "{a}\n{b}");
            for k in 0..4 {
                assert!(near(&a["face"]["box"][k], &b["face"]["box"][k], 0.01), "{a}\n{b}");
            }
        }
    }
}

#[test]
fn an_unknown_kernel_is_an_error_that_lists_the_known_ones() {
    let run = affectd().env("AFFECTD_KERNEL", "abacus").arg("bench").output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    let error = String::from_utf8(run.stderr).unwrap();
    assert!(error.contains("AFFECTD_KERNEL=abacus: this processor runs "), "{error}");
    assert!(error.contains("reference or tract"), "{error}");
}

#[test]
fn bench_reports_the_speed_of_every_graph() {
    let run = affectd()
        .args(["bench", "--json", "--iterations", "3"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(report["pipeline"]["cpu_s_per_s"].as_f64().unwrap() > 0.0, "{report}");
    let graphs = report["graphs"].as_array().unwrap();
    assert_eq!(graphs.len(), 4);
    for graph in graphs {
        assert_eq!(graph["int8_share"], 1.0, "{graph}");
        assert!(graph["macs"].as_u64().unwrap() > 100_000, "{graph}");
        assert!(
            graph["median_ms"].as_f64().unwrap() <= graph["p99_ms"].as_f64().unwrap(),
            "{graph}"
        );
    }
}
