//! The serial line, on pseudo-terminals.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use affectd::output::wire::{Message, Reader};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::pty::Pty;
use super::{Replay, affectd, demo};

/// A folder with a place for a port that comes and goes.
struct SwappableSender {
    folder: TempDir,
}

impl SwappableSender {
    fn new() -> SwappableSender {
        SwappableSender {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ttyUSB0")
    }

    fn connect(&self) -> Pty {
        Pty::at(&self.path())
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

/// affectd by the clock, until it is dropped.
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

    /// Ends it in order; gives its log.
    fn stop(mut self) -> String {
        // SAFETY: sends a signal to a child that has not been waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
        self.end()
    }

    /// Waits for its end; gives its log.
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
fn replayed_the_line_carries_what_stdout_carries() {
    let socket = SwappableSender::new();
    let mut pty = socket.connect();
    let mut child = replay(&["stdout", &socket.spec("wire=json")]).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let timeless = |line: &str| {
        let mut line = estimate(line);
        line.as_object_mut().unwrap().remove("latency_ms");
        line.as_object_mut().unwrap().remove("time");
        line
    };
    assert_eq!(pty.line(), "", "the line begins with a delimiter");
    let mut lines = 0;
    for line in stdout.lines() {
        assert_eq!(timeless(&pty.line()), timeless(&line.unwrap()));
        lines += 1;
    }
    assert!(child.wait().unwrap().success());
    assert!(lines >= 45, "{lines}");
}

#[test]
fn frames_say_what_lines_say() {
    let socket = SwappableSender::new();
    let mut pty = socket.connect();
    let run = replay(&["stdout", &socket.spec("wire=frame")]).output().unwrap();
    let lines = Replay::from(run).lines;
    let mut reader = Reader::default();
    let frames: Vec<Message> = pty
        .drain()
        .iter()
        .filter_map(|b| reader.push(*b))
        .map(Result::unwrap)
        .collect();
    assert_eq!(frames.len(), lines.len());
    for (frame, line) in frames.iter().zip(&lines) {
        let Message::Estimate(record) = frame else {
            panic!("nobody asked anything");
        };
        let near = |ours: Option<i16>, scale: f64, theirs: &Value, slack: f64| match (ours, theirs.as_f64()) {
            (Some(ours), Some(theirs)) => (f64::from(ours) / scale - theirs).abs() <= slack,
            (ours, theirs) => ours.is_none() == theirs.is_none(),
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
fn commands_are_answered_and_noise_is_not() {
    let socket = SwappableSender::new();
    let mut pty = socket.connect();
    let running = Running::new(&[&socket.spec("wire=json")]);
    estimate(&{
        assert_eq!(pty.line(), "");
        pty.line()
    });
    pty.say(b"\xFF\x00\xFE noise\n{\"schema\":1}\n\r\n\nping\n");
    assert_eq!(answer(&mut pty), json!({"ok": "pong"}));
    pty.say(b"health\r\n");
    let health = answer(&mut pty);
    assert_eq!(health["ok"]["schema"], 1, "{health}");
    assert!(health["ok"]["uptime_s"].is_u64(), "{health}");
    pty.say(b"rate 0\n");
    assert!(
        answer(&mut pty)["error"]
            .as_str()
            .unwrap()
            .starts_with("rate 0: give a number")
    );
    pty.say(b"sing\n");
    insta::assert_snapshot!(answer(&mut pty), @r#"{"error":"no command \"sing\": there is ping, rate N, health, baseline"}"#);
    pty.say(b"baseline\n");
    assert_eq!(answer(&mut pty), json!({"ok": "baseline"}));
    pty.say(b"rate 2.5\n");
    assert_eq!(answer(&mut pty), json!({"ok": {"rate": 2.5}}));
    let seqs: Vec<u64> = (0..4).map(|_| estimate(&pty.line())["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] >= pair[0] + 2), "{seqs:?}");
    running.stop();
}

#[test]
fn among_frames_answers_are_frames() {
    let socket = SwappableSender::new();
    let mut pty = socket.connect();
    let running = Running::new(&[&socket.spec("wire=frame")]);
    let mut reader = Reader::default();
    let mut next = || loop {
        let read: Vec<_> = pty.until(0).iter().filter_map(|b| reader.push(*b)).collect();
        if let Some(message) = read.into_iter().next() {
            return (message.unwrap(), pty.say(b"ping\n"));
        }
    };
    assert!(matches!(next().0, Message::Estimate(_)));
    let answer = (0..10).map(|_| next().0).find(|m| matches!(m, Message::Text(_)));
    assert_eq!(answer, Some(Message::Text(r#"{"ok":"pong"}"#.into())));
    running.stop();
}

#[test]
fn a_cable_pulled_and_put_back_carries_whole_lines_again() {
    let socket = SwappableSender::new();
    let mut pty = socket.connect();
    let mut running = Running::new(&["stdout", &socket.spec("wire=json")]);
    assert_eq!(pty.line(), "");
    let before = estimate(&pty.line())["seq"].as_u64().unwrap();
    drop(pty);
    // It goes on without: by now the port has been missed.
    for _ in 0..4 {
        running.stdout.next().unwrap().unwrap();
    }
    let mut pty = socket.connect();
    assert_eq!(pty.line(), "", "the line begins with a delimiter again");
    let after = estimate(&pty.line())["seq"].as_u64().unwrap();
    assert!(after > before + 1);
    assert_eq!(estimate(&pty.line())["seq"], after + 1);
    let log = running.stop();
    assert_eq!(log.matches("it is tried again until it works").count(), 1, "{log}");
    assert!(log.contains("open again"), "{log}");
    assert!(log.contains("output outages: 1"), "{log}");
}

#[test]
fn a_usb_port_may_come_after_the_start() {
    let socket = SwappableSender::new();
    let mut running = Running::new(&["stdout", &socket.spec("wire=json")]);
    running.stdout.next().unwrap().unwrap();
    let mut pty = socket.connect();
    assert_eq!(pty.line(), "");
    assert!(estimate(&pty.line())["seq"].as_u64().unwrap() > 1);
    let log = running.stop();
    assert!(log.contains("no such port; it is tried again until it works"), "{log}");
}

#[test]
fn a_line_that_nobody_reads_holds_up_nothing_and_tears_nothing() {
    let socket = SwappableSender::new();
    let mut pty = socket.connect();
    pty.fill();
    let file = socket.folder.path().join("affect.jsonl");
    let to_file = format!("file:{}", file.display());
    let mut running = Running::new(&["stdout", &socket.spec("wire=json&baud=4000000"), &to_file]);
    let mut next = |_| running.stdout.next().map(|line| estimate(&line.unwrap()));
    let mut lines: Vec<Value> = (0..30).map_while(&mut next).collect();
    // The reader wakes up: what was begun is finished, and the newest follows.
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
fn a_slow_line_says_so_and_carries_what_it_can() {
    let socket = SwappableSender::new();
    let mut pty = socket.connect();
    let mut running = Running::new(&["stdout", &socket.spec("wire=json&baud=4800")]);
    let given = running.stdout.by_ref().take(20).count();
    let log = running.stop();
    assert!(
        log.contains("4800 baud carry about 1.5 of 5 estimates a second"),
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
