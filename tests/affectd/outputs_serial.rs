//! The serial line, on pseudo-terminals.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use affectd::output::wire::{FrameReader, Message};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::json_schema::Schema;
use super::pty::Pty;
use super::{Replay, affectd, demo};

/// A path at which a port can be plugged in and unplugged.
struct PortPath {
    folder: TempDir,
}

impl PortPath {
    fn new() -> PortPath {
        PortPath {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ttyUSB0")
    }

    fn plug_in(&self) -> Pty {
        Pty::plug_in(&self.path())
    }

    fn spec(&self, options: &str) -> String {
        format!("serial:{}?{options}", self.path().display())
    }
}

fn replay(outputs: &[&str]) -> Command {
    let mut command = affectd();
    command.args(["run", "--input"]).arg(demo());
    for output in outputs {
        command.args(["--output", output]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// affectd on the demo clip in real time. It is killed when this is dropped.
struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn new(outputs: &[&str]) -> Running {
        let mut child = replay(outputs).arg("--realtime").spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, stdout }
    }

    /// Stops affectd with SIGTERM. Returns its log.
    fn stop(mut self) -> String {
        let id = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: the call accesses no memory. The child has not been waited for, so its id belongs to no other process.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        self.end()
    }

    /// Waits until affectd ends. Returns its log.
    fn end(&mut self) -> String {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(self.child.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn estimate(line: &str) -> Value {
    let json: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    assert_eq!(json["schema"], 1, "{line}");
    json
}

/// The next line that is not an estimate.
fn answer(pty: &mut Pty) -> Value {
    loop {
        let line = pty.line();
        if !line.is_empty() && !line.starts_with("{\"schema\"") {
            return serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        }
    }
}

#[test]
fn in_a_replay_the_serial_line_has_all_lines_of_stdout() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    let mut child = replay(&["stdout", &port.spec("wire=json")]).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let without_times = |line: &str| {
        let mut line = estimate(line);
        line.as_object_mut().unwrap().remove("latency_ms");
        line.as_object_mut().unwrap().remove("time");
        line
    };
    assert_eq!(pty.line(), "", "the line begins with a delimiter");
    let mut lines = 0;
    for line in stdout.lines() {
        assert_eq!(without_times(&pty.line()), without_times(&line.unwrap()));
        lines += 1;
    }
    assert!(child.wait().unwrap().success());
    assert!(lines >= 45, "{lines}");
}

#[test]
fn frames_have_the_values_of_lines() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    let run = replay(&["stdout", &port.spec("wire=frame")]).output().unwrap();
    let lines = Replay::from(run).lines;
    let mut reader = FrameReader::default();
    let frames: Vec<Message> = pty
        .drain()
        .iter()
        .filter_map(|b| reader.push(*b))
        .map(Result::unwrap)
        .collect();
    assert_eq!(frames.len(), lines.len());
    for (frame, line) in frames.iter().zip(&lines) {
        let Message::Estimate(record) = frame else {
            panic!("no command was sent, but there is an answer");
        };
        let near =
            |in_frame: Option<i16>, scale: f64, in_line: &Value, tolerance: f64| match (in_frame, in_line.as_f64()) {
                (Some(in_frame), Some(in_line)) => (f64::from(in_frame) / scale - in_line).abs() <= tolerance,
                (in_frame, in_line) => in_frame.is_none() == in_line.is_none(),
            };
        assert_eq!(u64::from(record.seq), line["seq"].as_u64().unwrap());
        assert!(near(record.valence, 10_000.0, &line["valence"], 6e-4), "{line}");
        assert!(near(record.arousal, 10_000.0, &line["arousal"], 6e-4), "{line}");
        assert!(near(record.confidence, 10_000.0, &line["confidence"], 6e-4), "{line}");
        assert_eq!(record.face.is_some(), line["face"].is_object());
        assert_eq!(
            record.from_voice,
            line["modalities"].as_array().unwrap().contains(&json!("voice"))
        );
        let level = record.voice.and_then(|v| v.level);
        assert!(near(level, 10.0, &line["voice"]["level_db"], 0.06), "{line}");
    }
}

#[test]
fn commands_are_answered_and_noise_is_ignored() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    let running = Running::new(&[&port.spec("wire=json")]);
    estimate(&{
        assert_eq!(pty.line(), "");
        pty.line()
    });
    pty.send(b"\xFF\x00\xFE noise\n{\"schema\":1}\n\r\n\nping\n");
    assert_eq!(answer(&mut pty), json!({"ok": "pong"}));
    pty.send(b"health\r\n");
    let health = answer(&mut pty);
    assert_eq!(health["ok"]["schema"], 1, "{health}");
    assert_eq!(Schema::read("health").validate(&health["ok"]), Ok(()));
    pty.send(b"rate 0\n");
    assert!(
        answer(&mut pty)["error"]
            .as_str()
            .unwrap()
            .starts_with("rate 0: must be a number")
    );
    pty.send(b"sing\n");
    insta::assert_snapshot!(answer(&mut pty), @r#"{"error":"unknown command \"sing\": the commands are ping, rate N, health, baseline, pause, resume, restart"}"#);
    pty.send(b"baseline\n");
    assert_eq!(answer(&mut pty), json!({"ok": "baseline"}));
    pty.send(b"rate 2.5\n");
    assert_eq!(answer(&mut pty), json!({"ok": {"rate": 2.5}}));
    let seqs: Vec<u64> = (0..4).map(|_| estimate(&pty.line())["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] >= pair[0] + 2), "{seqs:?}");
    running.stop();
}

#[test]
fn with_wire_frame_answers_are_frames() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    let running = Running::new(&[&port.spec("wire=frame")]);
    let mut reader = FrameReader::default();
    let mut next = || loop {
        let read: Vec<_> = pty.until(0).iter().filter_map(|b| reader.push(*b)).collect();
        if let Some(message) = read.into_iter().next() {
            return (message.unwrap(), pty.send(b"ping\n"));
        }
    };
    assert!(matches!(next().0, Message::Estimate(_)));
    let answer = (0..10).map(|_| next().0).find(|m| matches!(m, Message::Text(_)));
    assert_eq!(answer, Some(Message::Text(r#"{"ok":"pong"}"#.into())));
    running.stop();
}

#[test]
fn a_port_plugged_in_again_carries_whole_lines() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    let mut running = Running::new(&["stdout", &port.spec("wire=json")]);
    assert_eq!(pty.line(), "");
    let before = estimate(&pty.line())["seq"].as_u64().unwrap();
    drop(pty);
    // affectd continues without the port. After four estimates it has noticed the loss.
    for _ in 0..4 {
        running.stdout.next().unwrap().unwrap();
    }
    let mut pty = port.plug_in();
    assert_eq!(pty.line(), "", "the line begins with a delimiter again");
    let after = estimate(&pty.line())["seq"].as_u64().unwrap();
    assert!(after > before + 1);
    assert_eq!(estimate(&pty.line())["seq"], after + 1);
    let log = running.stop();
    assert_eq!(
        log.matches("affectd tries to open it until it works").count(),
        1,
        "{log}"
    );
    assert!(log.contains("open again"), "{log}");
    assert!(log.contains("output outages: 1"), "{log}");
}

#[test]
fn a_usb_port_can_be_plugged_in_after_the_start() {
    let port = PortPath::new();
    let mut running = Running::new(&["stdout", &port.spec("wire=json")]);
    running.stdout.next().unwrap().unwrap();
    let mut pty = port.plug_in();
    assert_eq!(pty.line(), "");
    assert!(estimate(&pty.line())["seq"].as_u64().unwrap() > 1);
    let log = running.stop();
    assert!(
        log.contains("no such port; affectd tries to open it until it works"),
        "{log}"
    );
}

#[test]
fn a_line_without_a_reader_delays_no_other_output_and_keeps_lines_whole() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    pty.fill();
    let file = port.folder.path().join("affect.jsonl");
    let to_file = format!("file:{}", file.display());
    let mut running = Running::new(&["stdout", &port.spec("wire=json&baud=4000000"), &to_file]);
    let mut next = |_| running.stdout.next().map(|line| estimate(&line.unwrap()));
    let mut lines: Vec<Value> = (0..30).map_while(&mut next).collect();
    // The reader starts: the message in progress is finished, and the newest one follows.
    let mut on_line = pty.drain();
    lines.extend((30..).map_while(&mut next));
    let log = running.end();
    on_line.extend(pty.drain());
    assert!(log.contains("dropped estimates: "), "the port was full: {log}");
    let seqs = |lines: &[Value]| lines.iter().map(|l| l["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs(&lines), (1..=lines.len() as u64).collect::<Vec<_>>());
    let in_file: Vec<Value> = fs::read_to_string(file).unwrap().lines().map(estimate).collect();
    assert_eq!(seqs(&in_file), seqs(&lines));
    let on_line = String::from_utf8(on_line).unwrap();
    assert!(on_line.ends_with('\n'));
    let on_line: Vec<Value> = on_line.trim_start().lines().map(estimate).collect();
    let on_line = seqs(&on_line);
    assert!(on_line.len() < lines.len() && on_line.is_sorted(), "{on_line:?}");
    assert_eq!(on_line.last(), Some(&(lines.len() as u64)));
}

#[test]
fn a_slow_line_logs_a_warning_and_carries_what_it_can() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    let mut running = Running::new(&["stdout", &port.spec("wire=json&baud=4800")]);
    let given = running.stdout.by_ref().take(20).count();
    let log = running.stop();
    assert!(
        log.contains("4800 baud is too slow: the line carries about 1.5 of 5 estimates a second"),
        "{log}"
    );
    let on_line = String::from_utf8(pty.drain()).unwrap();
    let on_line: Vec<Value> = on_line.lines().skip(1).map(estimate).collect();
    assert!(
        !on_line.is_empty() && on_line.len() < given,
        "{} of {given}",
        on_line.len()
    );
}

#[test]
fn check_reports_a_port_that_is_not_plugged_in() {
    let output = affectd()
        .arg("check")
        .env("AFFECTD_INPUT_CLIP", crate::demo())
        .env("AFFECTD_OUTPUT", "serial:/dev/ttyUSB77")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(
        report.contains("fail output: /dev/ttyUSB77: not plugged in: "),
        "{report}"
    );
}

#[test]
fn a_peer_that_prints_without_pause_gets_at_most_one_answer_between_two_estimates() {
    let port = PortPath::new();
    let mut pty = port.plug_in();
    let running = Running::new(&["stdout", &port.spec("wire=json")]);
    let (mut estimates, mut answers_since) = (0, 0);
    while estimates < 10 {
        pty.offer(b"login incorrect\nwho are you\n");
        let line = pty.line();
        if line.starts_with("{\"schema\"") {
            estimates += 1;
            answers_since = 0;
        } else if line.starts_with("{\"error\"") {
            answers_since += 1;
            assert!(answers_since <= 1, "{line}");
        }
    }
    running.stop();
}
