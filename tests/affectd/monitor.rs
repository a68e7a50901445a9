//! `affectd monitor` with all kinds of sources, on pipes and in a terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use affectd::output::wire::{Message, Record};

use crate::mosquitto::{Mosquitto, wait};
use crate::pty::Pty;
use crate::{affectd, file};

/// The estimates `from` to `to`, as a device writes them.
fn lines(from: u64, to: u64) -> String {
    let line = |seq: u64| {
        let t = seq as f64 / 5.0;
        format!(
            r#"{{"schema":1,"seq":{seq},"t":{t},"time":null,"valence":0.5,"arousal":-0.25,"confidence":0.8,"modalities":["face"],"face":{{"id":1,"box":[0.1,0.1,0.2,0.2],"score":0.9}},"voice":null,"expression":null,"latency_ms":9}}"#
        ) + "\n"
    };
    (from..=to).map(line).collect()
}

fn monitor(arguments: &[&str]) -> Child {
    affectd()
        .arg("monitor")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The first line with `text` that the monitor prints. Kills the monitor after it.
fn first_line_with(mut monitor: Child, text: &str) -> String {
    let mut lines = BufReader::new(monitor.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let line = lines
        .find(|line| line.contains(text))
        .expect("the monitor ended without the line");
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    line
}

#[test]
fn a_pipe_yields_text_and_a_plot_with_the_losses() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("session.svg");
    let mut monitor = monitor(&["-", "--save", plot.to_str().unwrap()]);
    let mut stdin = monitor.stdin.take().unwrap();
    stdin
        .write_all((lines(1, 5) + "torn li\n" + &lines(8, 10)).as_bytes())
        .unwrap();
    drop(stdin);
    let output = monitor.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 8, "{text}");
    insta::assert_snapshot!(text.lines().last().unwrap().trim(), @"2.0 s  valence +0.50  arousal -0.25  confidence 0.80  face        missed 2  invalid lines 1");
    let plot = std::fs::read_to_string(plot).unwrap();
    assert!(plot.contains("8 estimates, 2 missed, 1 invalid lines"), "{plot}");
}

#[test]
fn a_missing_source_ends_with_exit_code_3_and_one_line() {
    let output = affectd().args(["monitor", "nothing.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap().trim(), @"affectd: nothing.json: cannot be read (No such file or directory (os error 2)): give a file, a port such as serial:/dev/ttyUSB0, an mqtt:// address, or -");
}

#[test]
fn an_invalid_source_is_a_usage_error() {
    let output = affectd().args(["monitor", "serial:ttyUSB0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_file_is_followed_while_it_is_written_and_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lines.json", lines(1, 2).as_bytes());
    let mut monitor = monitor(&[path.to_str().unwrap()]);
    let mut shown = BufReader::new(monitor.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut wait_for = |text: &str| shown.find(|line| line.contains(text)).expect("the monitor ended");
    wait_for("0.4 s  valence");
    wait_for("waits for more");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(lines(3, 3).as_bytes()).unwrap();
    wait_for("0.6 s  valence");
    std::fs::rename(&path, folder.path().join("lines.json.1")).unwrap();
    std::fs::write(&path, lines(4, 4)).unwrap();
    wait_for("0.8 s  valence");
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

#[test]
fn csv_is_read_like_json() {
    let csv = affectd()
        .args(["run", "--output", "stdout?format=csv", "--input"])
        .arg(crate::demo())
        .output()
        .unwrap();
    let json = affectd().args(["run", "--input"]).arg(crate::demo()).output().unwrap();
    let shown = |estimates: Vec<u8>| {
        let mut monitor = monitor(&["-"]);
        let mut stdin = monitor.stdin.take().unwrap();
        stdin.write_all(&estimates).unwrap();
        drop(stdin);
        let output = monitor.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = shown(csv.stdout);
    assert!(text.lines().count() >= 45, "{text}");
    assert_eq!(text, shown(json.stdout));
}

#[test]
fn what_a_device_sends_does_not_control_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let attack = r"\u001b[31m\u001b]0;PWNED\u0007\u009b5n\u202eabc\r\n\u0000\u007f";
    let estimate = lines(1, 1).replace("\"face\"]", &format!("\"{attack}\"]"));
    let health = affectd::health::HealthReport {
        problem: Some("camera \u{1b}[31m\u{9b}5n\u{202e}\n".into()),
        ..affectd::health::HealthReport::default()
    };
    let health = serde_json::to_string(&health).unwrap();
    let plot = folder.path().join("\u{1b}.svg");
    let mut monitor = monitor(&["-", "--plain", "--save", plot.to_str().unwrap()]);
    let mut stdin = monitor.stdin.take().unwrap();
    stdin.write_all(format!("{estimate}{health}\n").as_bytes()).unwrap();
    drop(stdin);
    let output = monitor.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text:?}");
    assert!(
        text.contains(r"\u{1b}[31m") && text.contains(r"problem: camera \u{1b}[31m\u{9b}5n\u{202e}\n"),
        "{text:?}"
    );
    let is_safe = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    assert!(text.chars().all(is_safe), "{text:?}");
}

#[test]
fn a_device_that_sends_frames_instead_of_lines_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("tty");
    let port = Pty::plug_in(&link);
    let monitor = monitor(&[&format!("serial:{}", link.display())]);
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let record = Record {
                seq: 1,
                t_ms: 200,
                valence: None,
                arousal: None,
                confidence: None,
                from_face: false,
                from_voice: false,
                face: None,
                voice: None,
                paused: false,
                latency_ms: None,
            };
            let mut frame = vec![0];
            Message::Estimate(record).encode(&mut frame);
            while !told.load(Ordering::Relaxed) {
                port.send(&frame);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let line = first_line_with(monitor, "the device sends frames");
        told.store(true, Ordering::Relaxed);
        assert!(line.ends_with("add ?wire=frame"), "{line}");
    });
}

#[test]
fn a_source_without_estimates_is_told_with_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let index = "affectd/boards/affectd0123456789abcdef/hall";
    let entry = r#"{"status":"affectd/hall/status","discovery":null}"#;
    broker.publish(&["-t", index, "-r", "-m", entry]);
    let monitor = monitor(&[&format!("mqtt://127.0.0.1:{}/nothing/here", broker.port)]);
    let line = first_line_with(monitor, "no estimates yet");
    assert!(
        line.contains("connected: no estimates yet: check that the topic")
            && line.ends_with("devices that use this broker: affectd/hall"),
        "{line}"
    );
}

#[test]
fn an_error_in_a_terminal_is_printed_on_the_normal_screen() {
    let binary = env!("CARGO_BIN_EXE_affectd");
    let shell = format!("AFFECTD_CONFIG=/dev/null exec {binary} monitor serial:/dev/ttyNOTHING");
    let output = Command::new("script")
        .args(["-qec", &shell, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::null())
        .output()
        .expect("script is part of every Debian: sudo apt-get install bsdutils");
    assert_eq!(output.status.code(), Some(3));
    let seen = String::from_utf8_lossy(&output.stdout);
    let error = seen.find("/dev/ttyNOTHING: no such port").expect(&seen);
    let normal_screen = seen.find("\u{1b}[?1049l");
    assert!(normal_screen.is_none_or(|at| at < error), "{seen:?}");
}

#[test]
fn topics_of_a_broker_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    broker.publish(&["-t", "affectd/hall/estimate", "-r", "-m", lines(7, 7).trim()]);
    let monitor = monitor(&[&format!("mqtt://127.0.0.1:{}?version=5", broker.port)]);
    let line = first_line_with(monitor, "valence");
    assert!(line.contains("1.4 s") && line.contains("+0.50"), "{line}");
}

#[test]
fn frames_are_read_from_a_serial_line() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("tty");
    let port = Pty::plug_in(&link);
    let monitor = monitor(&[&format!("serial:{}?wire=frame", link.display())]);
    let record = |seq| Record {
        seq,
        t_ms: 200 * seq,
        valence: Some(-5000),
        arousal: Some(2500),
        confidence: Some(8000),
        from_face: false,
        from_voice: true,
        face: None,
        voice: None,
        paused: false,
        latency_ms: None,
    };
    let received = AtomicBool::new(false);
    let line = std::thread::scope(|scope| {
        // Frames are sent until one is received, because the test cannot see when the monitor has opened the port.
        scope.spawn(|| {
            for seq in (1..).take_while(|_| !received.load(Ordering::Relaxed)) {
                let mut frame = vec![0];
                Message::Estimate(record(seq)).encode(&mut frame);
                port.send(&frame);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let line = first_line_with(monitor, "valence");
        received.store(true, Ordering::Relaxed);
        line
    });
    assert!(
        line.contains("-0.50") && line.contains("+0.25") && line.contains("voice"),
        "{line}"
    );
}

#[test]
fn in_a_terminal_the_monitor_survives_resizing_and_restores_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lines.json", lines(1, 300).as_bytes());
    let binary = env!("CARGO_BIN_EXE_affectd");
    // Changes the size of the terminal while the monitor runs in the foreground.
    let shell = format!(
        "stty cols 40 rows 12; (sleep 1; stty cols 90 rows 30; sleep 1; stty cols 20 rows 4; sleep 1; stty cols 100 rows 40) < /dev/tty & \
         AFFECTD_CONFIG=/dev/null exec {binary} monitor {}",
        path.display()
    );
    let mut terminal = Command::new("script")
        .args(["-qec", &shell, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is part of every Debian: sudo apt-get install bsdutils");
    let mut stdin = terminal.stdin.take().unwrap();
    let mut stdout = terminal.stdout.take().unwrap();
    let (to, pieces) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            let _ = to.send(buffer[..n].to_vec());
        }
    });
    let mut seen = String::new();
    let take = |seen: &mut String| {
        pieces
            .try_iter()
            .for_each(|piece| *seen += &String::from_utf8_lossy(&piece))
    };
    // The small screen shows the numbers. Only larger ones show the last 60 s. Only the largest has a row 40.
    for wanted in ["+0.50", "last", "\u{1b}[40;"] {
        wait(|| {
            take(&mut seen);
            seen.contains(wanted).then_some(())
        });
    }
    stdin.write_all(b"q").unwrap();
    let status = terminal.wait().unwrap();
    reading.join().unwrap();
    take(&mut seen);
    assert_eq!(status.code(), Some(0), "{seen}");
    // The normal screen and the cursor are back.
    assert!(seen.contains("\u{1b}[?1049l") && seen.contains("\u{1b}[?25h"));
}
