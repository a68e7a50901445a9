//! Where the monitor reads: a serial port, a broker's topics, a file, or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::output::OutputSpec;
use crate::output::mqtt::subscriber::{Event, Subscriber};
use crate::output::mqtt::{Address, without_password};
use crate::output::serial::{SerialSpec, Wire};
use crate::output::wire::{Message, Reader, Record};

use super::reading::{Face, Heard, Lines, Reading, Voice};

/// From one look at a serial port to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// From one try to open a port that is not there to the next.
const RETRY_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Serial(SerialSpec),
    Mqtt { address: Box<Address>, topics: Vec<String> },
    File(PathBuf),
    StandardInput,
}

impl Source {
    /// `serial:/dev/ttyUSB0?wire=frame`, `mqtt://broker/affectd/kitchen`, a path, or `-`.
    pub fn parse(text: &str) -> Result<Source, Failure> {
        let failed = |why: String| Failure::Output(format!("{}: {why}", without_password(text)));
        if text == "-" {
            return Ok(Source::StandardInput);
        }
        if Address::is_one(text) {
            let address = Box::new(Address::parse(text).map_err(failed)?);
            let topics = topics(text, &address);
            return Ok(Source::Mqtt { address, topics });
        }
        if text.starts_with("serial:") {
            return match text.parse::<OutputSpec>().map_err(failed)? {
                OutputSpec::Serial(serial) => Ok(Source::Serial(serial)),
                other => Err(failed(format!("{other} is no serial port"))),
            };
        }
        Ok(Source::File(text.strip_prefix("file:").unwrap_or(text).into()))
    }

    /// Opens it, and then gives what it brings to `to`, on the caller's thread, until it ends or `to` wants no more.
    pub fn listen(self, to: &mut dyn FnMut(Heard) -> bool) -> Result<(), Failure> {
        match self {
            Source::StandardInput => stream(&mut io::stdin().lock(), "standard input", to),
            Source::File(path) => {
                let name = path.display().to_string();
                let mut file = File::open(&path).map_err(|e| {
                    Failure::Output(format!(
                        "{name}: cannot be read ({e}): name a file, a serial:/dev/ttyUSB0 port, an mqtt:// address, or -"
                    ))
                })?;
                stream(&mut file, &name, to)
            }
            Source::Serial(serial) => port(&serial, to),
            Source::Mqtt { address, topics } => broker(&address, &topics, to),
        }
    }
}

/// All devices' topics, unless the address names one.
fn topics(text: &str, address: &Address) -> Vec<String> {
    let (place, options) = text.split_once('?').unwrap_or((text, ""));
    let has_path = place.splitn(4, '/').nth(3).is_some_and(|path| !path.is_empty());
    let has_device = options.split('&').any(|option| option.starts_with("device="));
    let base = if has_path || has_device {
        address.base.as_str()
    } else {
        "affectd/+"
    };
    ["estimate", "health", "status"]
        .map(|name| format!("{base}/{name}"))
        .into()
}

fn stream(from: &mut dyn Read, name: &str, to: &mut dyn FnMut(Heard) -> bool) -> Result<(), Failure> {
    let mut lines = Lines::default();
    let mut buffer = [0; 8192];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::Output(format!("{name}: cannot be read ({e}): is it a file?"))),
        };
        if read == 0 {
            to(Heard::End);
            return Ok(());
        }
        if !lines.take(&buffer[..read]).into_iter().all(&mut *to) {
            return Ok(());
        }
    }
}

/// Reads a port for as long as anybody wants it; one that is pulled out is opened again when it is back.
fn port(serial: &SerialSpec, to: &mut dyn FnMut(Heard) -> bool) -> Result<(), Failure> {
    let mut buffer = [0; 1024];
    loop {
        let Some(port) = serial.open_port().map_err(|e| Failure::Output(e.to_string()))? else {
            if !to(Heard::Note("the port is not there".into())) {
                return Ok(());
            }
            thread::sleep(RETRY_EVERY);
            continue;
        };
        let mut lines = Lines::default();
        let mut frames = Reader::default();
        if !to(Heard::Note("open".into())) {
            return Ok(());
        }
        while let Ok(read) = port.read(&mut buffer) {
            if read == 0 {
                thread::sleep(LOOK_EVERY);
                continue;
            }
            let heard: Vec<Heard> = match serial.wire() {
                Wire::Json => lines.take(&buffer[..read]),
                Wire::Frame => buffer[..read]
                    .iter()
                    .filter_map(|b| frames.push(*b))
                    .filter_map(framed)
                    .collect(),
            };
            if !heard.into_iter().all(&mut *to) {
                return Ok(());
            }
        }
    }
}

fn framed<E>(message: Result<Message, E>) -> Option<Heard> {
    match message {
        Ok(Message::Estimate(record)) => Some(Heard::Estimate(reading(&record))),
        Ok(Message::Text(text)) => Heard::of_json(text.as_bytes()),
        Err(_) => Some(Heard::Garbled),
    }
}

fn reading(record: &Record) -> Reading {
    let fraction = |value: i16| f32::from(value) / 10_000.0;
    let modalities = [(record.from_face, "face"), (record.from_voice, "voice")];
    Reading {
        seq: record.seq.into(),
        t: f64::from(record.t_ms) / 1000.0,
        valence: record.valence.map(fraction),
        arousal: record.arousal.map(fraction),
        confidence: record.confidence.map(fraction),
        modalities: modalities
            .iter()
            .filter(|(there, _)| *there)
            .map(|(_, name)| name.to_string())
            .collect(),
        face: record.face.map(|face| Face {
            id: face.id.into(),
            score: f32::from(face.score) / 100.0,
        }),
        voice: record.voice.map(|voice| Voice {
            active: voice.active,
            level_db: voice.level.map(|level| f32::from(level) / 10.0),
        }),
        latency_ms: record.latency_ms.map(u64::from),
    }
}

/// Of several devices, the first that is heard.
fn broker(address: &Address, topics: &[String], to: &mut dyn FnMut(Heard) -> bool) -> Result<(), Failure> {
    let mut subscriber = Subscriber::new(address, topics).map_err(|e| Failure::Output(e.to_string()))?;
    let mut device: Option<String> = None;
    subscriber.run(&mut |event| match event {
        Event::Connected => to(Heard::Note("connected".into())),
        Event::Broken(why) => to(Heard::Note(why)),
        Event::Message { topic, payload } => {
            let Some((base, kind)) = topic.rsplit_once('/') else {
                return true;
            };
            if device.get_or_insert_with(|| base.into()) != base {
                return true;
            }
            match kind {
                "status" => to(Heard::Note(String::from_utf8_lossy(&payload).into_owned())),
                _ => Heard::of_json(&payload).is_none_or(&mut *to),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_is_known_by_its_form() {
        assert_eq!(Source::parse("-").unwrap(), Source::StandardInput);
        assert_eq!(
            Source::parse("a/lines.json").unwrap(),
            Source::File("a/lines.json".into())
        );
        assert_eq!(Source::parse("file:/x").unwrap(), Source::File("/x".into()));
        assert!(matches!(
            Source::parse("serial:/dev/ttyUSB0?wire=frame").unwrap(),
            Source::Serial(_)
        ));
        let topics = |text: &str| match Source::parse(text).unwrap() {
            Source::Mqtt { topics, .. } => topics[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(topics("mqtt://b"), "affectd/+/estimate");
        assert_eq!(topics("mqtt://b/?version=5"), "affectd/+/estimate");
        assert_eq!(topics("mqtt://b?device=hall"), "affectd/hall/estimate");
        assert_eq!(topics("mqtt://b/home/mood"), "home/mood/estimate");
        let error = Source::parse("mqtt://li:hunter2@b").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_frame_reads_as_the_line_would() {
        let record = Record {
            seq: 7,
            t_ms: 1400,
            valence: Some(-5000),
            arousal: Some(10_000),
            confidence: None,
            from_face: false,
            from_voice: true,
            face: None,
            voice: None,
            latency_ms: Some(12),
        };
        let mut frames = vec![0];
        Message::Estimate(record).encode(&mut frames);
        // The same again, with one bit wrong.
        let whole = frames.len();
        Message::Estimate(record).encode(&mut frames);
        frames[whole + 9] ^= 2;
        let mut reader = Reader::default();
        let heard: Vec<Heard> = frames
            .iter()
            .filter_map(|b| reader.push(*b))
            .filter_map(framed)
            .collect();
        let Heard::Estimate(reading) = &heard[0] else {
            panic!("{heard:?}")
        };
        assert_eq!(
            (reading.seq, reading.t, reading.valence, reading.arousal),
            (7, 1.4, Some(-0.5), Some(1.0))
        );
        assert_eq!(reading.modalities, ["voice"]);
        assert_eq!(heard[1..], [Heard::Garbled]);
    }
}
