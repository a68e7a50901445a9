//! `affectd monitor` with all kinds of sources, on pipes and in a terminal.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use affectd::output::wire::{Message, Record};

use crate::mosquitto::{Mosquitto, wait};
use crate::pty::Pty;
use crate::{affectd, file};

/// The estimates `from` to `to`, as a device writes them.
pub fn lines(from: u64, to: u64) -> String {
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
        schema: 1,
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

/// A frame as a device sends it.
fn frame(seq: u32) -> Vec<u8> {
    let record = Record {
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
    let mut frame = Vec::new();
    Message::Estimate(record).encode(&mut frame);
    frame
}

#[test]
fn a_capture_of_a_serial_line_with_frames_is_read() {
    let frames: Vec<u8> = (1..=20).flat_map(frame).collect();
    // It begins in the middle of a frame, and one byte is damaged.
    let mut capture = frames[10..].to_vec();
    capture[100] ^= 4;
    let output = monitor_of(&capture);
    let text = String::from_utf8(output.stdout).unwrap();
    insta::assert_snapshot!(text.lines().last().unwrap().trim(), @"4.0 s  valence -0.50  arousal +0.25  confidence 0.80  voice       missed 1  invalid lines 1");
}

/// What `affectd monitor -` does with this input.
fn monitor_of(input: &[u8]) -> Output {
    let mut monitor = affectd()
        .args(["monitor", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read everything.
    let _ = monitor.stdin.take().unwrap().write_all(input);
    monitor.wait_with_output().unwrap()
}

#[test]
fn recordings_of_other_programs_are_read() {
    let estimate = lines(1, 1);
    for recorded in [
        format!("Nov 30 19:03:19 pi systemd[1]: Started affectd.\nNov 30 19:03:20 pi affectd[812]: {estimate}"),
        format!("affectd/hall/status online\naffectd/hall/estimate {estimate}affectd/den/estimate {estimate}"),
        format!(
            "homeassistant/status online\naffectd/boards/affectd0123456789abcdef/hall {{\"status\":\"x\"}}\naffectd/hall/command rate 5\naffectd/hall/estimate {estimate}"
        ),
        format!("[2026-11-30T19:03:19Z INFO  affectd::daemon] camera: running\n{estimate}"),
    ] {
        let output = monitor_of(recorded.as_bytes());
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("valence +0.50").count(), 1, "{recorded}\n{text}");
        assert_eq!(
            text.contains("invalid lines 0"),
            !recorded.starts_with("Nov"),
            "{recorded}\n{text}"
        );
    }
}

#[test]
fn what_is_not_of_affectd_is_named_with_what_to_do() {
    let told = |input: &[u8]| {
        let output = monitor_of(input);
        assert_eq!(output.status.code(), Some(3));
        let error = String::from_utf8(output.stderr).unwrap();
        error.trim_start_matches("affectd: ").trim_end().to_owned()
    };
    let bytes: Vec<u8> = (0..5000u32).map(|k| (k * 167 % 251).to_le_bytes()[0]).collect();
    insta::assert_snapshot!(told(&std::fs::read(crate::demo()).unwrap()), @"standard input: is a Matroska clip: replay it first: affectd run --input CLIP | affectd monitor -");
    insta::assert_snapshot!(told(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), @"standard input: is a PNG image: name a file that affectd writes, such as that of --output file:estimates.jsonl");
    insta::assert_snapshot!(told(&bytes), @"standard input: no estimates, but bytes that are neither text nor frames of affectd: pipe the output of affectd into this command");
    insta::assert_snapshot!(told(b"Nov 30 19:03:19 pi sshd[812]: Accepted publickey\nNov 30 19:03:20 pi sshd[812]: session opened\n"), @"standard input: no estimates, but text such as “Nov 30 19:03:20 pi sshd[812]: session op…” (2 invalid lines): pipe the output of affectd into this command");
    insta::assert_snapshot!(told(b"zigbee2mqtt/lamp {\"state\":\"ON\",\"linkquality\":87}\n"), @r#"standard input: no estimates, but text such as “zigbee2mqtt/lamp {"state":"ON","linkqual…”: pipe the output of affectd into this command"#);
    insta::assert_snapshot!(told(b"{\"temperature\":21.5,\"humidity\":40}\n"), @"standard input: no estimates, but JSON of another program, with the fields humidity, temperature: pipe the output of affectd into this command");
    insta::assert_snapshot!(told(b"[2026-11-30T19:03:19Z INFO  affectd::daemon] camera: running\n"), @"standard input: no estimates, but the log of affectd: its estimates are on standard output and in the files of --output");
    insta::assert_snapshot!(told(b""), @"standard input: no estimates: pipe the output of affectd into this command");
}

#[test]
fn a_file_of_another_program_is_named_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "syslog", b"Nov 30 19:03:19 pi sshd[812]: Accepted publickey\n");
    let monitor = monitor(&[path.to_str().unwrap()]);
    let line = first_line_with(monitor, "no estimates yet");
    assert!(
        line.contains("waits for more: no estimates yet, but text such as")
            && line.ends_with("of an output of affectd"),
        "{line}"
    );
}

#[test]
fn folders_and_ports_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let told = |path: &str| {
        let output = affectd().args(["monitor", path]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(
        told(folder.path().to_str().unwrap())
            .trim_end()
            .ends_with("is a folder: name a file in it")
    );
    insta::assert_snapshot!(told("/dev/tty").trim(), @"affectd: /dev/tty: is a serial port: write serial:/dev/tty");
}

#[test]
fn the_suffix_decides_the_format_of_the_plot() {
    let folder = tempfile::tempdir().unwrap();
    let saved = |name: &str| {
        let path = folder.path().join(name);
        let mut monitor = affectd()
            .args(["monitor", "-", "--save"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = monitor.stdin.take().unwrap().write_all(lines(1, 9).as_bytes());
        let output = monitor.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), error, std::fs::read(path).unwrap_or_default())
    };
    let (code, _, png) = saved("plot.png");
    assert!(
        code == Some(0) && png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() < 200_000,
        "{}",
        png.len()
    );
    let (code, error, nothing) = saved("plot.pdf");
    assert!(
        code == Some(2) && error.contains("end it with .svg or .png") && nothing.is_empty(),
        "{error}"
    );
    // A file of the user's is never overwritten, not even an earlier plot.
    let (code, error, same) = saved("plot.png");
    assert!(
        code == Some(5) && error.contains("plot.png: exists already: choose another name"),
        "{error}"
    );
    assert_eq!(same, png);
    // It is told at once, not after a session of hours.
    let (code, error, _) = saved("absent/plot.svg");
    assert!(code == Some(5) && error.contains("cannot be written"), "{error}");
}

#[test]
fn a_session_without_an_estimate_leaves_no_plot() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let monitor = affectd()
        .args(["monitor", "-", "--save"])
        .arg(&plot)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!((monitor.status.code(), plot.exists()), (Some(3), false));
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
fn topics_of_a_broker_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    broker.publish(&["-t", "affectd/hall/estimate", "-r", "-m", lines(7, 7).trim()]);
    let monitor = monitor(&[&format!("mqtt://127.0.0.1:{}?version=5", broker.port)]);
    let line = first_line_with(monitor, "valence");
    assert!(line.contains("1.4 s") && line.contains("+0.50"), "{line}");
}

#[test]
fn it_ends_when_its_reader_has_closed_and_nothing_more_comes() {
    let mut monitor = monitor(&["-"]);
    let mut stdin = monitor.stdin.take().unwrap();
    // A minute and more between the estimates: for long, nothing more is printed.
    let rare = lines(1, 2).replace("\"t\":0.4", "\"t\":100");
    stdin.write_all(rare.as_bytes()).unwrap();
    let mut shown = BufReader::new(monitor.stdout.take().unwrap()).lines();
    assert!(shown.any(|line| line.unwrap().contains("100.0 s  valence")));
    drop(shown);
    let status = wait(|| monitor.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    drop(stdin);
}

#[test]
fn a_retained_status_of_a_device_that_is_gone_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    broker.publish(&["-t", "affectd/gone/status", "-r", "-m", "offline"]);
    let mut monitor = monitor(&[&format!("mqtt://127.0.0.1:{}", broker.port)]);
    let mut shown = BufReader::new(monitor.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(shown.any(|line| line.contains("offline")));
    broker.publish(&["-t", "affectd/hall/estimate", "-q", "1", "-m", lines(7, 7).trim()]);
    assert!(shown.any(|line| line.contains("1.4 s  valence")));
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

/// Sends estimates until the monitor has shown one. The test cannot see when the monitor has opened the port.
fn until_shown(port: &Pty, shown: &mut impl Iterator<Item = String>) {
    let received = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in (1..).take_while(|_| !received.load(Ordering::Relaxed)) {
                port.offer(lines(seq, seq).as_bytes());
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        assert!(shown.any(|line| line.contains("valence")));
        received.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_port_of_any_name_is_waited_for_when_it_was_unplugged() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("board");
    let port = Pty::plug_in(&link);
    let mut monitor = monitor(&[&format!("serial:{}", link.display())]);
    let mut shown = BufReader::new(monitor.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    until_shown(&port, &mut shown);
    drop(port);
    assert!(shown.any(|line| line.contains("the port does not exist")));
    let port = Pty::plug_in(&link);
    until_shown(&port, &mut shown);
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

#[test]
fn an_address_with_another_scheme_is_a_usage_error_that_names_the_right_one() {
    let told = |source: &str| {
        let output = affectd().args(["monitor", source]).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap().trim().to_owned(),
        )
    };
    let error = |text: &str| (Some(2), text.to_owned());
    assert_eq!(
        told("MQTT://broker/affectd/hall"),
        error("affectd: MQTT://broker/affectd/hall: unknown scheme MQTT://: write mqtt:// in small letters")
    );
    assert_eq!(
        told("http://broker:1883"),
        error("affectd: http://broker:1883: unknown scheme http://: a broker is mqtt://HOST")
    );
    let (code, text) = told("https://li:hunter2@broker");
    assert!(
        code == Some(2) && !text.contains("hunter2") && text.ends_with("a broker with TLS is mqtts://HOST"),
        "{text}"
    );
}

#[test]
fn frames_are_read_from_a_serial_line() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("tty");
    let port = Pty::plug_in(&link);
    let monitor = monitor(&[&format!("serial:{}", link.display())]);
    let received = AtomicBool::new(false);
    let line = std::thread::scope(|scope| {
        // Frames are sent until one is received, because the test cannot see when the monitor has opened the port.
        scope.spawn(|| {
            for seq in (1..).take_while(|_| !received.load(Ordering::Relaxed)) {
                port.send(&frame(seq));
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
