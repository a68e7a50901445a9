//! `affectd check` and `check --watch` with programs in place of camera and microphone, and their output in a pipe.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use super::programs::Pieces;
use super::{affectd, demo};

/// A running `check --watch --json`, and its output.
struct Watch {
    child: Child,
    /// `None` once the pipe is closed.
    lines: Option<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(arguments: &[&str]) -> Watch {
        let mut child = affectd()
            .args(["check", "--watch", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = child.stdout.take().map(BufReader::new);
        Watch { child, lines }
    }

    /// Reads lines until one is as `wanted`.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let lines = self.lines.as_mut().unwrap();
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "no such line");
            let line: Value = serde_json::from_str(&line).unwrap();
            if wanted(&line) {
                return line;
            }
        }
    }

    /// The exit code, and what standard error says.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.code(), log)
    }
}

fn interrupt(child: &Child) {
    // SAFETY: the process is a child that has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
}

#[test]
fn watch_shows_face_light_and_level_and_ends_quietly() {
    let pieces = Pieces::new();
    for pipe_closes in [false, true] {
        let mut watch = Watch::start(&["--camera", &pieces.camera(), "--microphone", &pieces.microphone()]);
        let line = watch
            .until(|line| line["camera"]["seen"]["face"].is_object() && line["microphone"]["seen"]["voice"] == true);
        assert_eq!(line["schema"], 1);
        assert_eq!([&line["camera"]["state"], &line["microphone"]["state"]], ["running"; 2]);
        let seen = &line["camera"]["seen"];
        assert!(
            seen["face"]["width_px"].as_u64() > seen["face"]["needed_px"].as_u64(),
            "{seen}"
        );
        assert_eq!(
            (&seen["light"], &seen["face"]["frontal"], &seen["rotate"]),
            (&json!("good"), &json!(true), &Value::Null)
        );
        let level = line["microphone"]["seen"]["level_db"].as_f64().unwrap();
        assert!((-60.0..0.0).contains(&level), "{level}");
        match pipe_closes {
            true => watch.lines = None,
            false => interrupt(&watch.child),
        }
        assert_eq!(watch.end(), (Some(0), String::new()));
    }
}

#[test]
fn watch_names_a_device_that_fails_and_goes_on() {
    let mut watch = Watch::start(&["--camera", "command:exit 3", "--microphone", "off"]);
    for _ in 0..2 {
        let line = watch.until(|line| line["camera"]["state"] == "failed");
        let problem = line["camera"]["problem"].as_str().unwrap();
        assert!(problem.contains("the program ended"), "{problem}");
        assert_eq!(line["microphone"]["state"], "off");
    }
    interrupt(&watch.child);
    assert_eq!(watch.end().0, Some(0));
}

#[test]
fn check_as_json_has_each_part_and_what_the_devices_see_and_hear() {
    let pieces = Pieces::new();
    let output = affectd()
        .args([
            "check",
            "--json",
            "--camera",
            &pieces.camera(),
            "--microphone",
            &pieces.microphone(),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["schema"], &json["ok"]), (&json!(1), &json!(true)));
    let parts: Vec<_> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["part"].as_str().unwrap())
        .collect();
    for part in ["configuration", "models", "camera", "microphone", "clock", "output"] {
        assert!(parts.contains(&part), "{parts:?}");
    }
    assert!(json["camera"]["face"]["width_px"].as_u64() > Some(40), "{json}");
    assert!(json["microphone"]["level_db"].is_number(), "{json}");
}

#[test]
fn a_camera_that_is_upside_down_is_named_with_the_setting() {
    let pieces = Pieces::new();
    let output = affectd()
        .args([
            "check",
            "--camera",
            &pieces.camera(),
            "--microphone",
            "off",
            "--rotate",
            "180",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("warn camera: the face in view is not upright: set rotate = 0 under [camera]"),
        "{text}"
    );
}

#[test]
fn a_clip_cannot_be_watched() {
    let output = affectd()
        .args(["check", "--watch"])
        .env("AFFECTD_INPUT_CLIP", demo())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("--watch shows a camera and a microphone"), "{log}");
}
