//! Measures whether a dead broker delays the serial line: affectd in real time, with both outputs.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use affectd::capture::clip::Clip;
use affectd::capture::clip::writer::{ClipTracks, FrameEncoding, FrameResult, VideoFormat, Writer};
use serde_json::Value;

use super::mosquitto::{Mosquitto, Reader, free_port};
use super::pty::Pty;

/// The largest allowed delay of a serial line due to an outage.
const MAX_DELAY: Duration = Duration::from_millis(20);
/// This time after an outage counts as part of it, because affectd reconnects and sends the waiting estimates.
const RECOVERY: Duration = Duration::from_secs(3);

/// A line received on the serial port.
struct ReceivedLine {
    seq: u64,
    arrived: Instant,
}

/// Runs affectd on the repeated demo clip for `seconds`, while the broker is killed `kills` times.
pub fn punctual(seconds: u64, kills: u64) -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clip = folder.path().join("long.mkv");
    write_repeated_demo(Duration::from_secs(seconds), &clip);
    let broker = Mosquitto::persistent(folder.path(), free_port());
    let reader = Reader::with(&broker, &["affectd/d/estimate"], &["-c", "-i", "reader"]);
    broker.save();
    let port = folder.path().join("ttyUSB0");
    let mut line = Pty::plug_in(&port);
    let mut affectd = start(&clip, broker.port, &port);
    let began = Instant::now();

    let killer = std::thread::spawn(move || super::kill_repeatedly(broker, began, seconds, kills));
    let mut lines = Vec::new();
    while affectd.try_wait().expect("the process is a child").is_none() {
        while let Some(text) = line.try_until(b'\n') {
            let arrived = Instant::now();
            let json: Option<Value> = serde_json::from_slice(&text).ok();
            // affectd sends one delimiter when it opens the port.
            match json.as_ref().and_then(|line| line["seq"].as_u64()) {
                Some(seq) => lines.push(ReceivedLine { seq, arrived }),
                None => assert!(text == b"\n", "not a whole line: {}", String::from_utf8_lossy(&text)),
            }
        }
    }
    let (_broker, outages) = killer.join().expect("the thread does not panic");
    judge(&lines, &outages, &reader)
}

fn judge(lines: &[ReceivedLine], outages: &[(Instant, Instant)], reader: &Reader) -> ExitCode {
    let due = |line: &ReceivedLine| super::time_of(line.seq);
    // The earliest line, relative to its number, defines the schedule.
    let zero = lines
        .iter()
        .filter_map(|line| line.arrived.checked_sub(due(line)))
        .min()
        .expect("there are lines");
    let (mut normal, mut outage) = (Vec::new(), Vec::new());
    for line in lines {
        let late = line.arrived.saturating_duration_since(zero + due(line));
        let during = |(from, to): &(Instant, Instant)| *from <= line.arrived && line.arrived <= *to + RECOVERY;
        let part = if outages.iter().any(during) {
            &mut outage
        } else {
            &mut normal
        };
        part.push(late);
    }
    for (name, part) in [("broker running", &mut normal), ("outage", &mut outage)] {
        part.sort();
        let percentile = |percent: usize| part.get(percent * (part.len().max(1) - 1) / 100);
        let ms = |late: Option<&Duration>| late.map_or(f64::NAN, |late| late.as_secs_f64() * 1000.0);
        println!(
            "serial, {name}: {} lines, delay {:.1} ms (median), {:.1} ms (99th percentile), {:.1} ms (maximum)",
            part.len(),
            ms(percentile(50)),
            ms(percentile(99)),
            ms(percentile(100))
        );
    }
    let last = lines.last().expect("there are lines").seq;
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
    let (missing, _, disordered) = super::losses(&published, last);
    println!("MQTT: {last} estimates, {missing} missing, {disordered} out of order");

    let worst = |part: &[Duration]| part.last().copied().unwrap_or_default();
    let increase = worst(&outage).saturating_sub(worst(&normal));
    println!("an outage increases the maximum delay by {} ms", increase.as_millis());
    let passed = whole && missing + disordered == 0 && increase <= MAX_DELAY && !outage.is_empty();
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Starts affectd. Its program is in the parent folder of the examples.
fn start(clip: &Path, broker: u16, port: &Path) -> Child {
    let own = std::env::current_exe().expect("the program has a path");
    let affectd: PathBuf = own
        .ancestors()
        .nth(2)
        .expect("the program is in target/release/examples")
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

/// Writes a clip that repeats the demo clip until it is `length` long.
fn write_repeated_demo(length: Duration, path: &Path) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.mkv");
    let format = VideoFormat {
        encoding: FrameEncoding::Jpeg,
        width: 640,
        height: 480,
    };
    let tracks = ClipTracks {
        video: Some(format),
        audio: true,
    };
    let file = BufWriter::new(File::create(path).expect("a file"));
    let mut writer = Writer::new(file, tracks).expect("the disk has room");
    let mut offset = Duration::ZERO;
    while offset < length {
        let clip = Clip::open(&demo).expect("the demo clip");
        let (mut video, mut audio) = (
            clip.video.expect("the demo clip has frames"),
            clip.audio.expect("the demo clip has sound"),
        );
        let mut next_frame = video.next_frame().expect("the demo clip is not damaged");
        let mut end = offset;
        while let Some(mut block) = audio.next_block().expect("the demo clip is not damaged") {
            block.at += offset;
            while let Some(frame) = next_frame.take_if(|frame| frame.at + offset <= block.at) {
                let result = writer
                    .add_frame(frame.at + offset, &frame.payload)
                    .expect("the disk has room");
                assert_eq!(result, FrameResult::Added, "the demo clip is MJPEG 640×480");
                next_frame = video.next_frame().expect("the demo clip is not damaged");
            }
            writer.add_audio(&block).expect("the disk has room");
            end = block.end();
        }
        offset = end;
    }
    writer.flush().expect("the disk has room");
}
