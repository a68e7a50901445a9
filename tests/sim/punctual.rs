//! Whether a broker that dies makes the serial line late: the real affectd by the clock, with both outputs.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use affectd::capture::clip::Clip;
use affectd::capture::clip::writer::{PictureKind, Writer};
use serde_json::Value;

use super::PERIOD;
use super::mosquitto::{Mosquitto, Reader, free_port};
use super::pty::Pty;

/// What an outage may cost a serial line.
const LATE: Duration = Duration::from_millis(20);
/// Reconnecting and sending what waited belongs to the outage, too.
const AFTERMATH: Duration = Duration::from_secs(3);

/// A line on the serial port.
struct Line {
    seq: u64,
    arrived: Instant,
}

/// affectd runs on the demo clip, over and over for `seconds`, while the broker is killed `kills` times.
pub fn punctual(seconds: u64, kills: u64) -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clip = folder.path().join("long.mkv");
    make_long(Duration::from_secs(seconds), &clip);
    let broker = Mosquitto::lasting(folder.path(), free_port());
    let reader = Reader::with(&broker, &["affectd/d/estimate"], &["-c", "-i", "reader"]);
    broker.save();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::at(&port);
    let mut affectd = start(&clip, broker.port, &port);
    let began = Instant::now();

    let killer = std::thread::spawn(move || super::kill_over_and_over(broker, began, seconds, kills));
    let mut lines = Vec::new();
    while affectd.try_wait().expect("it is a child of ours").is_none() {
        while let Some(text) = line.soon(b'\n') {
            let arrived = Instant::now();
            let json: Option<Value> = serde_json::from_slice(&text).ok();
            // The line begins with a delimiter.
            match json.as_ref().and_then(|line| line["seq"].as_u64()) {
                Some(seq) => lines.push(Line { seq, arrived }),
                None => assert!(text == b"\n", "torn: {}", String::from_utf8_lossy(&text)),
            }
        }
    }
    let (_broker, outages) = killer.join().expect("it does not panic");
    judge(&lines, &outages, &reader)
}

fn judge(lines: &[Line], outages: &[(Instant, Instant)], reader: &Reader) -> ExitCode {
    let due = |line: &Line| PERIOD * line.seq as u32;
    // The schedule: that of the most punctual line.
    let zero = lines
        .iter()
        .filter_map(|line| line.arrived.checked_sub(due(line)))
        .min()
        .expect("lines came");
    let (mut calm, mut troubled) = (Vec::new(), Vec::new());
    for line in lines {
        let late = line.arrived.saturating_duration_since(zero + due(line));
        let away = |(from, to): &(Instant, Instant)| *from <= line.arrived && line.arrived <= *to + AFTERMATH;
        let part = if outages.iter().any(away) {
            &mut troubled
        } else {
            &mut calm
        };
        part.push(late);
    }
    for (name, part) in [("broker there", &mut calm), ("broker away", &mut troubled)] {
        part.sort();
        let at = |share: f64| part.get((share * (part.len().max(1) - 1) as f64) as usize);
        let ms = |late: Option<&Duration>| late.map_or(f64::NAN, |late| late.as_secs_f64() * 1000.0);
        println!(
            "serial, {name}: {} lines, late by {:.1} ms in the middle, {:.1} ms for 99 %, {:.1} ms at most",
            part.len(),
            ms(at(0.5)),
            ms(at(0.99)),
            ms(at(1.0))
        );
    }
    let last = lines.last().expect("lines came").seq;
    let whole = lines.iter().map(|line| line.seq).eq(1..=last);
    println!(
        "serial: {} of {last} lines, {}",
        lines.len(),
        if whole { "in order" } else { "some are missing" }
    );
    let published: Vec<u64> = reader
        .until(|m| super::seq(m) == Some(last))
        .iter()
        .filter_map(super::seq)
        .collect();
    let (missing, doubled) = super::losses(&published, last);
    println!("MQTT: {last} estimates, {missing} missing, {doubled} doubled or out of order");

    let worst = |part: &[Duration]| part.last().copied().unwrap_or_default();
    let because = worst(&troubled).saturating_sub(worst(&calm));
    println!("later than without an outage by {} ms at most", because.as_millis());
    let well = whole && missing + doubled == 0 && because <= LATE && !troubled.is_empty();
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// affectd lies beside the folder of the examples.
fn start(clip: &Path, broker: u16, port: &Path) -> Child {
    let own = std::env::current_exe().expect("a program has a path");
    let affectd: PathBuf = own
        .ancestors()
        .nth(2)
        .expect("it lies in target/release/examples")
        .join("affectd");
    Command::new(&affectd)
        .args(["run", "--realtime", "--input"])
        .arg(clip)
        .args(["--output", &format!("mqtt://127.0.0.1:{broker}?device=d")])
        .args(["--output", &format!("serial:{}?wire=json", port.display())])
        .env("AFFECTD_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}: cargo build --release", affectd.display()))
}

/// Writes the demo clip as often as it takes to be `length` long.
fn make_long(length: Duration, path: &Path) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.mkv");
    let kind = PictureKind {
        jpeg: true,
        width: 640,
        height: 480,
    };
    let file = BufWriter::new(File::create(path).expect("a file"));
    let mut writer = Writer::new(file, Some(kind), true).expect("room for a file");
    let mut offset = Duration::ZERO;
    while offset < length {
        let clip = Clip::open(&demo).expect("the demo clip");
        let (mut video, mut audio) = (clip.video.expect("has pictures"), clip.audio.expect("has sound"));
        let mut picture = video.next_frame().expect("is whole");
        let mut end = offset;
        while let Some(mut chunk) = audio.next_block().expect("is whole") {
            chunk.at += offset;
            while let Some(frame) = picture.take_if(|frame| frame.at + offset <= chunk.at) {
                let taken = writer
                    .picture(frame.at + offset, &frame.picture)
                    .expect("room for a file");
                assert!(taken, "the demo clip is MJPEG 640×480");
                picture = video.next_frame().expect("is whole");
            }
            writer.sound(&chunk).expect("room for a file");
            end = chunk.end();
        }
        offset = end;
    }
    writer.flush().expect("room for a file");
}
