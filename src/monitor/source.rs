//! The sources of the monitor: a serial port, the topics of a broker, a file, or standard input.

use std::io::{self, Read};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::output::mqtt::Address;
use crate::output::mqtt::subscriber::{Event, Listening, Subscriber};
use crate::output::serial::{SerialSpec, Wire};
use crate::output::wire::{FrameReader, Message, Record};
use crate::output::{HostIdentity, OutputSpec};
use crate::secrets::masked;

use super::error::MonitorError;
use super::follow::{FollowedFile, Progress};
use super::received::{Face, LineSplitter, Reading, Received, Voice};

/// The time between two reads of a file that has not grown.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// The time between two reads of a silent serial port.
const READ_INTERVAL: Duration = Duration::from_millis(20);
/// The time between two attempts to open an absent port.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

type Listener<'a> = dyn FnMut(Received) -> Listening + 'a;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Serial(SerialSpec),
    Mqtt { address: Box<Address>, topics: Vec<String> },
    File(PathBuf),
    StandardInput,
}

impl Source {
    /// Parses `serial:/dev/ttyUSB0?wire=frame`, `mqtt://broker/affectd/kitchen`, a path, or `-`.
    pub fn parse(text: &str, host: &HostIdentity) -> Result<Source, MonitorError> {
        let failed = |why: String| MonitorError::InvalidSource(format!("{}: {why}", masked(text)));
        if text == "-" {
            return Ok(Source::StandardInput);
        }
        if Address::is_address(text) {
            let address = Box::new(Address::parse(text, host).map_err(failed)?);
            let topics = topics(text, &address);
            return Ok(Source::Mqtt { address, topics });
        }
        if text.starts_with("serial:") {
            return match OutputSpec::parse(text, host).map_err(failed)? {
                OutputSpec::Serial(serial) => Ok(Source::Serial(serial)),
                other => Err(failed(format!(
                    "{other} is not a serial port: write, for example, serial:/dev/ttyUSB0"
                ))),
            };
        }
        Ok(Source::File(text.strip_prefix("file:").unwrap_or(text).into()))
    }

    /// What to check if no estimates come.
    pub fn hint(&self) -> &'static str {
        match self {
            Source::Serial(_) => "check the cable, and baud= and wire= on both sides",
            Source::Mqtt { .. } => "check that the topic is that of a running affectd",
            Source::File(_) => "name the file of an output of affectd",
            Source::StandardInput => "pipe the output of affectd into this command",
        }
    }

    /// Opens the source and passes everything received to `listener`, on the caller's thread, until the source ends or the
    /// listener stops.
    pub fn listen(self, host: &HostIdentity, listener: &mut Listener) -> Result<(), MonitorError> {
        match self {
            Source::StandardInput => read_stream(&mut io::stdin().lock(), "standard input", listener),
            Source::File(path) => {
                // A misspelt address of a broker, with its password, counts as a path, too.
                let name = masked(&path.display().to_string());
                let file = FollowedFile::open(&path).map_err(|e| {
                    MonitorError::Source(format!(
                        "{name}: cannot be read ({e}): give a file, a port such as serial:/dev/ttyUSB0, an mqtt:// address, or -"
                    ))
                })?;
                follow(file, &name, listener)
            }
            Source::Serial(serial) => read_port(&serial, listener),
            Source::Mqtt { address, topics } => read_broker(&address, &topics, host, listener),
        }
    }
}

/// The topics of the device that the address names, or those of all devices.
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

/// Passes on all of `received`.
fn pass_on(received: Vec<Received>, listener: &mut Listener) -> Listening {
    match received.into_iter().all(|one| listener(one) == Listening::Continue) {
        true => Listening::Continue,
        false => Listening::Stop,
    }
}

fn read_stream(from: &mut dyn Read, name: &str, listener: &mut Listener) -> Result<(), MonitorError> {
    let mut lines = LineSplitter::default();
    let mut buffer = [0; 8192];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                return Err(MonitorError::Source(format!(
                    "{name}: cannot be read ({e}): give a file of JSON lines"
                )));
            }
        };
        if read == 0 {
            listener(Received::End);
            return Ok(());
        }
        if pass_on(lines.push(&buffer[..read]), listener) == Listening::Stop {
            return Ok(());
        }
    }
}

/// Reads a file until the listener stops, and waits for what is appended.
fn follow(mut file: FollowedFile, name: &str, listener: &mut Listener) -> Result<(), MonitorError> {
    let mut lines = LineSplitter::default();
    let mut buffer = [0; 8192];
    let mut told = false;
    loop {
        let progress = match file.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            result => {
                result.map_err(|e| MonitorError::Source(format!("{name}: cannot be read ({e}): check its disk")))?
            }
        };
        let listening = match progress {
            Progress::Bytes(count) => pass_on(lines.push(&buffer[..count]), listener),
            Progress::Restarted => {
                lines.restart();
                listener(Received::Status("the file starts anew".into()))
            }
            Progress::Nothing if told => {
                thread::sleep(FOLLOW_INTERVAL);
                Listening::Continue
            }
            Progress::Nothing => {
                told = true;
                listener(Received::Status("at the end of the file, waits for more".into()))
            }
            Progress::End => {
                listener(Received::End);
                Listening::Stop
            }
        };
        if listening == Listening::Stop {
            return Ok(());
        }
    }
}

/// Reads a port until the listener stops. Reopens a port that was unplugged and comes back.
fn read_port(serial: &SerialSpec, listener: &mut Listener) -> Result<(), MonitorError> {
    let open = || match serial.open_port() {
        Ok(port) => Ok(port.map(|port| move |buffer: &mut [u8]| port.read(buffer))),
        Err(error) => Err(MonitorError::Source(error.to_string())),
    };
    read_reopening(serial.wire(), open, thread::sleep, listener)
}

/// Reads what `open` returns until the listener stops, and opens it again after each failure. `wait` passes the time between two
/// attempts.
fn read_reopening<R: Fn(&mut [u8]) -> io::Result<usize>>(
    wire: Wire,
    open: impl Fn() -> Result<Option<R>, MonitorError>,
    wait: impl Fn(Duration),
    listener: &mut Listener,
) -> Result<(), MonitorError> {
    let mut buffer = [0; 1024];
    loop {
        let Some(read) = open()? else {
            if listener(Received::Status("the port does not exist".into())) == Listening::Stop {
                return Ok(());
            }
            wait(RETRY_INTERVAL);
            continue;
        };
        let mut decoders = Decoders::default();
        if listener(Received::Status("open".into())) == Listening::Stop {
            return Ok(());
        }
        let failure = loop {
            match read(&mut buffer) {
                Ok(0) => wait(READ_INTERVAL),
                Ok(read) => {
                    if pass_on(decoders.push(wire, &buffer[..read]), listener) == Listening::Stop {
                        return Ok(());
                    }
                }
                Err(error) => break error,
            }
        };
        if listener(Received::Status(format!("the port is gone ({failure})"))) == Listening::Stop {
            return Ok(());
        }
        // A port that opens and cannot be read would otherwise keep a core busy.
        wait(RETRY_INTERVAL);
    }
}

/// Decodes both forms of messages, to see which one the device sends.
#[derive(Default)]
pub(super) struct Decoders {
    lines: LineSplitter,
    frames: FrameReader,
    /// The device sends the configured form, or the user knows that it sends the other one.
    settled: bool,
}

impl Decoders {
    /// What arrived in the form `wire`. Tells once if estimates arrive in the other form.
    pub(super) fn push(&mut self, wire: Wire, bytes: &[u8]) -> Vec<Received> {
        let mut received = self.decode(wire, bytes);
        if self.settled {
            return received;
        }
        let (other, mend) = match wire {
            Wire::Json => (Wire::Frame, "the device sends frames: add ?wire=frame"),
            Wire::Frame => (Wire::Json, "the device sends lines of JSON: use wire=json"),
        };
        let are_valid = |received: &[Received]| received.iter().any(|one| matches!(one, Received::Estimate(_)));
        if are_valid(&received) {
            self.settled = true;
        } else if are_valid(&self.decode(other, bytes)) {
            self.settled = true;
            received.push(Received::Status(mend.into()));
        }
        received
    }

    fn decode(&mut self, wire: Wire, bytes: &[u8]) -> Vec<Received> {
        match wire {
            Wire::Json => self.lines.push(bytes),
            Wire::Frame => bytes
                .iter()
                .filter_map(|b| self.frames.push(*b))
                .filter_map(from_frame)
                .collect(),
        }
    }
}

fn from_frame<E>(message: Result<Message, E>) -> Option<Received> {
    match message {
        Ok(Message::Estimate(record)) => Some(Received::Estimate(reading(&record))),
        Ok(Message::Text(text)) => Received::from_json(text.as_bytes()),
        Err(_) => Some(Received::Invalid),
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
        paused: record.paused,
        latency_ms: record.latency_ms.map(u64::from),
    }
}

/// Reads the topics of one device until the listener stops. If several devices publish, the first one received is shown.
fn read_broker(
    address: &Address,
    topics: &[String],
    host: &HostIdentity,
    listener: &mut Listener,
) -> Result<(), MonitorError> {
    let mut subscriber = Subscriber::new(address, topics, host).map_err(|e| MonitorError::Source(e.to_string()))?;
    let mut device: Option<String> = None;
    subscriber.run(&mut |event| match event {
        Event::Connected => listener(Received::Status("connected".into())),
        Event::Disconnected(why) => listener(Received::Status(why)),
        Event::Device(base) => listener(Received::Device(base)),
        Event::Message { topic, payload } => {
            let Some((base, kind)) = topic.rsplit_once('/') else {
                return Listening::Continue;
            };
            if device.get_or_insert_with(|| base.into()) != base {
                return Listening::Continue;
            }
            match kind {
                "status" => listener(Received::Status(String::from_utf8_lossy(&payload).into_owned())),
                _ => Received::from_json(&payload).map_or(Listening::Continue, &mut *listener),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn parse(text: &str) -> Result<Source, MonitorError> {
        Source::parse(text, &HostIdentity::default())
    }

    #[test]
    fn every_kind_of_source_is_parsed() {
        assert_eq!(parse("-").unwrap(), Source::StandardInput);
        assert_eq!(parse("a/lines.json").unwrap(), Source::File("a/lines.json".into()));
        assert_eq!(parse("file:/x").unwrap(), Source::File("/x".into()));
        assert!(matches!(
            parse("serial:/dev/ttyUSB0?wire=frame").unwrap(),
            Source::Serial(_)
        ));
        let topics = |text: &str| match parse(text).unwrap() {
            Source::Mqtt { topics, .. } => topics[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(topics("mqtt://b"), "affectd/+/estimate");
        assert_eq!(topics("mqtt://b/?version=5"), "affectd/+/estimate");
        assert_eq!(topics("mqtt://b?device=hall"), "affectd/hall/estimate");
        assert_eq!(topics("mqtt://b/home/mood"), "home/mood/estimate");
        for spec in ["mqtt://li:hunter2@b", "mqtt://b?password=hunter2"] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_device_that_sends_the_other_form_is_told_once() {
        let mut frame = vec![0];
        let record = Record {
            seq: 7,
            t_ms: 1400,
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
        Message::Estimate(record).encode(&mut frame);
        let line = b"{\"seq\":1,\"t\":0.2}\n";
        let told = |wire: Wire, bytes: &[u8]| -> Vec<String> {
            let mut decoders = Decoders::default();
            let received = (0..3).flat_map(|_| decoders.push(wire, bytes));
            let statuses = received.filter_map(|one| match one {
                Received::Status(status) => Some(status),
                _ => None,
            });
            statuses.collect()
        };
        assert_eq!(told(Wire::Json, &frame), ["the device sends frames: add ?wire=frame"]);
        assert_eq!(
            told(Wire::Frame, line),
            ["the device sends lines of JSON: use wire=json"]
        );
        assert!(told(Wire::Frame, &frame).is_empty() && told(Wire::Json, line).is_empty());
    }

    #[test]
    fn a_port_whose_reads_fail_is_opened_again_after_a_wait() {
        let waits = RefCell::new(Vec::new());
        let mut statuses = Vec::new();
        let mut listener = |received| {
            statuses.extend(match received {
                Received::Status(status) => Some(status),
                _ => None,
            });
            match statuses.len() {
                6 => Listening::Stop,
                _ => Listening::Continue,
            }
        };
        let fail = |_: &mut [u8]| Err(io::Error::from_raw_os_error(libc::EIO));
        let wait = |time| waits.borrow_mut().push(time);
        read_reopening(Wire::Json, || Ok(Some(fail)), wait, &mut listener).unwrap();
        let gone = "the port is gone (Input/output error (os error 5))";
        assert_eq!(statuses, ["open", gone, "open", gone, "open", gone]);
        assert_eq!(*waits.borrow(), [RETRY_INTERVAL; 2]);
    }

    #[test]
    fn frames_are_read_like_lines() {
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
            paused: true,
            latency_ms: Some(12),
        };
        let mut frames = vec![0];
        Message::Estimate(record).encode(&mut frames);
        // The same frame again, with one wrong bit.
        let whole = frames.len();
        Message::Estimate(record).encode(&mut frames);
        frames[whole + 9] ^= 2;
        let mut reader = FrameReader::default();
        let received: Vec<Received> = frames
            .iter()
            .filter_map(|b| reader.push(*b))
            .filter_map(from_frame)
            .collect();
        let Received::Estimate(reading) = &received[0] else {
            panic!("{received:?}")
        };
        assert_eq!(
            (reading.seq, reading.t, reading.valence, reading.arousal),
            (7, 1.4, Some(-0.5), Some(1.0))
        );
        assert_eq!(reading.modalities, ["voice"]);
        assert_eq!(received[1..], [Received::Invalid]);
    }
}
