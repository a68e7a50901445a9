//! The sources of the monitor: a serial port, the topics of a broker, a file, or standard input.

use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::output::mqtt::Address;
use crate::output::mqtt::subscriber::{Event, Listening, Subscriber};
use crate::output::serial::SerialSpec;
use crate::output::{HostIdentity, OutputSpec};
use crate::secrets::masked;

use super::decoder::StreamDecoder;
use super::error::MonitorError;
use super::follow::{FollowedFile, Progress};
use super::foreign_file::Head;
use super::received::Received;
use super::shown_device::ShownDevice;

/// The time between two reads of a file that has not grown.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// The time between two reads of a silent serial port.
const READ_INTERVAL: Duration = Duration::from_millis(20);
/// The time between two attempts to open an absent port.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the port was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    /// It comes back if it is plugged in again, and it may take a moment until it may be used.
    Again,
}

type Listener<'a> = dyn FnMut(Received) -> Listening + 'a;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Serial(SerialSpec),
    Mqtt { address: Box<Address>, topics: Vec<String> },
    File(PathBuf),
    StandardInput,
}

impl Source {
    /// Parses `serial:/dev/ttyUSB0`, `mqtt://broker/affectd/kitchen`, a path, or `-`.
    pub fn parse(text: &str, host: &HostIdentity) -> Result<Source, MonitorError> {
        let failed = |why: String| MonitorError::InvalidSource(format!("{}: {why}", masked(text)));
        if text.is_empty() {
            return Err(MonitorError::InvalidSource(
                "the source is empty: name a serial port, an MQTT address, a file, or - for standard input".into(),
            ));
        }
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
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Source::File(path.into()));
        }
        match Address::mend_of_scheme(text) {
            Some(mend) => Err(failed(mend)),
            None => Ok(Source::File(text.into())),
        }
    }

    /// What to check if no estimates come.
    pub fn hint(&self) -> &'static str {
        match self {
            Source::Serial(_) => "check the cable, and baud= on both sides",
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
                refuse_device(&path, &name)?;
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

/// Fails for what can be opened like a file and is none.
fn refuse_device(path: &Path, name: &str) -> Result<(), MonitorError> {
    // What does not exist is reported when it is opened.
    let Ok(kind) = std::fs::metadata(path).map(|metadata| metadata.file_type()) else {
        return Ok(());
    };
    let is_terminal = || {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"tty"))
    };
    let (what, mend) = if kind.is_dir() {
        ("is a folder", "name a file in it".to_owned())
    } else if kind.is_char_device() && (is_terminal() || path.starts_with("/dev/serial")) {
        ("is a serial port", format!("write serial:{name}"))
    } else {
        return Ok(());
    };
    Err(MonitorError::Source(format!("{name}: {what}: {mend}")))
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
    let (mut decoder, mut head) = (StreamDecoder::default(), Head::default());
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
        refuse_foreign(&mut head, &buffer[..read], name)?;
        if pass_on(decoder.push(&buffer[..read]), listener) == Listening::Stop {
            return Ok(());
        }
    }
}

/// Fails if the first bytes are those of a file that affectd never writes.
fn refuse_foreign(head: &mut Head, bytes: &[u8], name: &str) -> Result<(), MonitorError> {
    match head.push(bytes) {
        Some(foreign) => Err(MonitorError::Source(format!("{name}: {foreign}"))),
        None => Ok(()),
    }
}

/// Reads a file until the listener stops, and waits for what is appended.
fn follow(mut file: FollowedFile, name: &str, listener: &mut Listener) -> Result<(), MonitorError> {
    let (mut decoder, mut head) = (StreamDecoder::default(), Head::default());
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
            Progress::Bytes(count) => {
                refuse_foreign(&mut head, &buffer[..count], name)?;
                pass_on(decoder.push(&buffer[..count]), listener)
            }
            Progress::Restarted => {
                decoder = StreamDecoder::default();
                listener(Received::Status("the file starts anew".into()))
            }
            Progress::Nothing if told => {
                thread::sleep(FOLLOW_INTERVAL);
                Listening::Continue
            }
            Progress::Nothing => {
                told = true;
                listener(Received::CaughtUp)
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
    let open = |attempt| {
        let port = match attempt {
            Attempt::First => serial.open_port(),
            Attempt::Again => serial.reopen_port(),
        };
        match port {
            Ok(port) => Ok(port.map(|port| move |buffer: &mut [u8]| port.read(buffer))),
            Err(error) => Err(MonitorError::Source(error.to_string())),
        }
    };
    read_reopening(open, thread::sleep, listener)
}

/// Reads what `open` returns until the listener stops, and opens it again after each failure. Only the first attempt may fail. `wait`
/// passes the time between two attempts.
fn read_reopening<R: Fn(&mut [u8]) -> io::Result<usize>>(
    open: impl Fn(Attempt) -> Result<Option<R>, MonitorError>,
    wait: impl Fn(Duration),
    listener: &mut Listener,
) -> Result<(), MonitorError> {
    let mut buffer = [0; 1024];
    let mut attempt = Attempt::First;
    loop {
        let opened = match open(attempt) {
            Ok(Some(read)) => Ok(read),
            Ok(None) => Err("the port does not exist".to_owned()),
            Err(error) if attempt == Attempt::First => return Err(error),
            Err(error) => Err(error.to_string()),
        };
        attempt = Attempt::Again;
        let read = match opened {
            Ok(read) => read,
            Err(why) => {
                if listener(Received::Status(why)) == Listening::Stop {
                    return Ok(());
                }
                wait(RETRY_INTERVAL);
                continue;
            }
        };
        let mut decoder = StreamDecoder::default();
        if listener(Received::Status("open".into())) == Listening::Stop {
            return Ok(());
        }
        let failure = loop {
            match read(&mut buffer) {
                Ok(0) => wait(READ_INTERVAL),
                Ok(read) => {
                    if pass_on(decoder.push(&buffer[..read]), listener) == Listening::Stop {
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

/// Reads the topics of one device until the listener stops.
fn read_broker(
    address: &Address,
    topics: &[String],
    host: &HostIdentity,
    listener: &mut Listener,
) -> Result<(), MonitorError> {
    let mut subscriber = Subscriber::new(address, topics, host).map_err(|e| MonitorError::Source(e.to_string()))?;
    let mut device = ShownDevice::default();
    subscriber.run(&mut |event| match event {
        Event::Connected => listener(Received::Status("connected".into())),
        Event::Disconnected(why) => listener(Received::Status(why)),
        Event::Device(base) => listener(Received::Device(base)),
        Event::Message { topic, payload } => {
            let Some((base, kind)) = topic.rsplit_once('/') else {
                return Listening::Continue;
            };
            let received = match kind {
                "status" => Some(Received::Status(String::from_utf8_lossy(&payload).into_owned())),
                _ => Received::from_json(&payload),
            };
            let shown = received.map_or(Vec::new(), |received| device.choose(base, received));
            pass_on(shown, listener)
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
        let error = |text: &str| parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(error("MQTT://b/x"), @"MQTT://b/x: unknown scheme MQTT://: write mqtt:// in small letters");
        insta::assert_snapshot!(error("http://b:1883"), @"http://b:1883: unknown scheme http://: a broker is mqtt://HOST");
        for spec in ["mqtt://li:hunter2@b", "mqtt://b?password=hunter2"] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
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
        read_reopening(|_| Ok(Some(fail)), wait, &mut listener).unwrap();
        let gone = "the port is gone (Input/output error (os error 5))";
        assert_eq!(statuses, ["open", gone, "open", gone, "open", gone]);
        assert_eq!(*waits.borrow(), [RETRY_INTERVAL; 2]);
    }
}
