//! Estimates on a serial line, as lines or as frames, and a few commands from whoever reads them.
//!
//! Nothing here waits: the `output-serial` thread looks at the port fifty times a second, takes what has come in, and gives
//! it what it has room for. A [`Port`](port::Port) that goes away is looked for again until it is back.

pub mod commands;
pub mod outbox;
pub mod pacing;
pub mod port;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use log::{info, warn};
use serde_json::json;

use super::lines::{Format, Lines};
use super::spec::{Options, option};
use super::wire::{self, Message, Record};
use super::{Output, OutputError, Service};
use crate::control::Control;
use crate::fusion::Estimate;
use crate::health::{HealthReport, count};
use crate::queue::WhenFull;
use commands::{Command, Commands};
use outbox::Outbox;
use pacing::Pacing;
use port::{Port, PortError};

/// From one look at the port to the next: how late an answer may come.
const TEND_EVERY: Duration = Duration::from_millis(20);
/// From one try to open an absent port to the next.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How long a replay waits for a line that takes nothing, and a clean end for the rest to go out.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes taken in at one look.
const READ_AT_ONCE: usize = 256;
/// Looks at the port that one tending may make: a peer that never stops talking must not hold up the writing.
const MOST_READS: usize = 16;

/// `serial:PATH?baud=…&wire=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialSpec {
    path: PathBuf,
    baud: Baud,
    wire: Wire,
}

/// Bits a second, from 300 to 4 000 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Baud(u32);

/// What goes over the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Json,
    Frame,
}

impl SerialSpec {
    /// `path` is what stands between the colon and the question mark.
    pub fn parse(path: &str, options: Options) -> Result<SerialSpec, String> {
        if !path.starts_with('/') {
            return Err("names no port: give its path, serial:/dev/ttyUSB0 say".into());
        }
        let [baud, wire] = options.take(["baud", "wire"])?;
        Ok(SerialSpec {
            path: path.into(),
            baud: option("baud", baud, Baud(115_200))?,
            wire: option("wire", wire, Wire::Json)?,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A port that a plug may bring later is not an error.
    pub fn check(&self) -> Result<(), OutputError> {
        self.open_port().map(|_| ())
    }

    pub fn open(&self, service: &Service) -> Result<Serial, OutputError> {
        let port = self.open_port()?;
        Ok(Serial::new(self.clone(), service.clone(), port))
    }

    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// `None` if the port is not there, but may come.
    pub fn open_port(&self) -> Result<Option<Port>, OutputError> {
        let path = self.path.display();
        match Port::open(&self.path, self.baud.0) {
            Ok(port) => Ok(Some(port)),
            Err(PortError::Absent) if may_come_later(&self.path) => Ok(None),
            Err(PortError::Absent) => Err(OutputError::Failed(format!(
                "{path}: no such port: list those there are with ls -l /dev/serial/by-id /dev/serial[01]; \
                 a UART of the board must be enabled first (sudo raspi-config)"
            ))),
            Err(PortError::Refused(why)) => Err(OutputError::Failed(format!("{path}: {why}"))),
        }
    }
}

/// Whether a port is one that comes and goes with a plug.
fn may_come_later(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    name.starts_with("ttyUSB") || name.starts_with("ttyACM") || folder == "by-id" || folder == "by-path"
}

impl fmt::Display for SerialSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = match self.wire {
            Wire::Json => "json",
            Wire::Frame => "frame",
        };
        write!(f, "serial:{}?baud={}&wire={wire}", self.path.display(), self.baud.0)
    }
}

impl FromStr for Baud {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(baud @ 300..=4_000_000) => Ok(Baud(baud)),
            _ => Err("is a number from 300 to 4000000, 115200 say"),
        }
    }
}

impl FromStr for Wire {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Wire::Json),
            "frame" => Ok(Wire::Frame),
            _ => Err("is json or frame"),
        }
    }
}

impl Wire {
    /// What ends a message.
    fn delimiter(self) -> u8 {
        match self {
            Wire::Json => b'\n',
            Wire::Frame => wire::DELIMITER,
        }
    }

    /// About how long an estimate is.
    fn usual_bytes(self) -> usize {
        match self {
            Wire::Json => 330,
            Wire::Frame => 38,
        }
    }
}

/// A serial line.
pub struct Serial {
    spec: SerialSpec,
    service: Service,
    port: Option<Port>,
    /// Why the port is away, as it was said.
    away: Option<String>,
    /// Whether a replay has waited for the line in vain: it does not wait again before the line has moved.
    stuck: bool,
    tried: Instant,
    lines: Lines,
    outbox: Outbox,
    pacing: Pacing,
    commands: Commands,
    newest_health: Option<HealthReport>,
    /// Where the answer to `baseline` will come from.
    baseline: Option<Receiver<()>>,
}

impl Serial {
    fn new(spec: SerialSpec, service: Service, port: Option<Port>) -> Serial {
        let mut serial = Serial {
            lines: Lines::new(Format::Json),
            outbox: Outbox::default(),
            pacing: Pacing::new(spec.baud.0),
            commands: Commands::default(),
            newest_health: None,
            baseline: None,
            away: None,
            stuck: false,
            tried: Instant::now(),
            port,
            spec,
            service,
        };
        serial.tell_capacity();
        match serial.port {
            Some(_) => serial.outbox.connect(serial.spec.wire.delimiter()),
            None => serial.lose("no such port".into()),
        }
        serial
    }

    /// Says at the start if the line is too slow.
    fn tell_capacity(&self) {
        let carried = self.pacing.capacity(self.spec.wire.usual_bytes());
        let wanted = 1.0 / self.service.period.as_secs_f32();
        if carried < wanted {
            let (path, baud) = (self.spec.path.display(), self.spec.baud.0);
            warn!(
                "{path}: {baud} baud carry about {carried:.1} of {wanted} estimates a second, the rest is left out: \
                 set a higher baud, or wire=frame"
            );
        }
    }

    /// Notes that the port is away; says so once for each reason.
    fn lose(&mut self, why: String) {
        if let Some(port) = self.port.take() {
            port.abandon();
        }
        self.tried = Instant::now();
        if self.away.as_ref() == Some(&why) {
            return;
        }
        if self.away.is_none() {
            count(&self.service.lost);
        }
        warn!("{}: {why}; it is tried again until it works", self.spec.path.display());
        self.away = Some(why);
    }

    fn reopen(&mut self) {
        if self.port.is_some() || self.tried.elapsed() < RETRY_EVERY {
            return;
        }
        match Port::open(&self.spec.path, self.spec.baud.0) {
            Ok(port) => {
                info!("{}: open again", self.spec.path.display());
                self.port = Some(port);
                self.away = None;
                self.outbox.connect(self.spec.wire.delimiter());
                self.commands = Commands::default();
            }
            // Known already.
            Err(PortError::Absent) => self.tried = Instant::now(),
            Err(PortError::Refused(why)) => self.lose(why),
        }
    }

    /// Takes in what has come, and gives the port what it has room for.
    fn exchange(&mut self) {
        let done = self.listen().and_then(|()| match &self.port {
            Some(port) => self.outbox.flush(|bytes| port.write(bytes)),
            None => Ok(()),
        });
        if let Err(e) = done {
            self.lose(format!("gone ({e})"));
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ_AT_ONCE];
        for _ in 0..MOST_READS {
            let Some(port) = &self.port else { break };
            let came = port.read(&mut bytes)?;
            for byte in &bytes[..came] {
                match self.commands.push(*byte) {
                    Some(Ok(command)) => self.obey(command),
                    Some(Err(why)) => self.answer(json!({ "error": why })),
                    None => {}
                }
            }
            if came < bytes.len() {
                break;
            }
        }
        self.pass_on_baseline();
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Ping => self.answer(json!({ "ok": "pong" })),
            Command::Rate(rate) => {
                self.pacing.set_rate(rate);
                self.answer(json!({ "ok": { "rate": rate } }));
            }
            Command::Health => match &self.newest_health {
                Some(report) => self.answer(json!({ "ok": report })),
                None => self.answer(json!({ "error": "no health record yet: ask again in a second" })),
            },
            Command::Baseline => {
                let (begun, from_fusion) = bounded(1);
                match self
                    .service
                    .controls
                    .try_send(Control::StartBaseline { started: begun })
                {
                    Ok(()) => self.baseline = Some(from_fusion),
                    Err(_) => self.answer(json!({ "error": "baseline: busy: ask again in a second" })),
                }
            }
        }
    }

    fn pass_on_baseline(&mut self) {
        let Some(from_fusion) = &self.baseline else { return };
        let answer = match from_fusion.try_recv() {
            Ok(()) => json!({ "ok": "baseline" }),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => json!({ "error": "baseline: affectd is about to end" }),
        };
        self.baseline = None;
        self.answer(answer);
    }

    fn answer(&mut self, answer: serde_json::Value) {
        let mut message = Vec::new();
        match self.spec.wire {
            Wire::Json => message.extend_from_slice(format!("{answer}\n").as_bytes()),
            Wire::Frame => Message::Text(answer.to_string()).encode(&mut message),
        }
        // Not counted against the estimates: whoever asks without end must not silence them.
        self.outbox.answer(message);
    }

    fn message(&mut self, estimate: &Estimate) -> Vec<u8> {
        match self.spec.wire {
            Wire::Json => self.lines.line(estimate).to_vec(),
            Wire::Frame => {
                let mut frame = Vec::with_capacity(Wire::Frame.usual_bytes());
                Message::Estimate(Record::of(estimate, Instant::now())).encode(&mut frame);
                frame
            }
        }
    }

    /// Goes on until all is out, the port is gone, or it has taken nothing for as long as one should wait.
    fn drain(&mut self) {
        let started = Instant::now();
        while self.port.is_some() && !self.outbox.is_empty() {
            if self.stuck || started.elapsed() >= PATIENCE {
                self.stuck = true;
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
            self.exchange();
        }
        self.stuck = false;
    }
}

impl Output for Serial {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        self.reopen();
        if self.port.is_none() {
            self.service.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        // Replayed, the line sets the pace; by the clock, it takes what it can carry.
        let replayed = self.service.when_full == WhenFull::Wait;
        let now = Instant::now();
        let carried = replayed || self.pacing.is_free(now);
        if !carried || !self.pacing.is_due(estimate.at, self.service.period) {
            return Ok(());
        }
        let message = self.message(estimate);
        self.pacing.sent(message.len(), now);
        if !self.outbox.estimate(message) {
            self.service.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.exchange();
        if replayed {
            self.drain();
        }
        Ok(())
    }

    fn health(&mut self, report: &HealthReport) -> Result<(), OutputError> {
        self.newest_health = Some(report.clone());
        Ok(())
    }

    fn poll_interval(&self) -> Option<Duration> {
        Some(TEND_EVERY)
    }

    fn poll(&mut self) -> Result<(), OutputError> {
        self.reopen();
        self.exchange();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        self.drain();
        if let Some(port) = &self.port
            && !self.outbox.is_empty()
        {
            port.abandon();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<SerialSpec, String> {
        let (path, options) = spec.split_once('?').unwrap_or((spec, ""));
        SerialSpec::parse(path, Options::parse(options)?)
    }

    #[test]
    fn specs_say_all_in_full() {
        let full = |spec: &str| parse(spec).unwrap().to_string();
        assert_eq!(full("/dev/ttyAMA0"), "serial:/dev/ttyAMA0?baud=115200&wire=json");
        assert_eq!(
            full("/dev/x?wire=frame&baud=9600"),
            "serial:/dev/x?baud=9600&wire=frame"
        );
    }

    #[test]
    fn specs_that_cannot_work_are_refused_with_what_would() {
        let error = |spec: &str| parse(spec).unwrap_err();
        insta::assert_snapshot!(error("ttyUSB0"), @"names no port: give its path, serial:/dev/ttyUSB0 say");
        insta::assert_snapshot!(error("/dev/x?baud=fast"), @"baud=fast: is a number from 300 to 4000000, 115200 say");
        insta::assert_snapshot!(error("/dev/x?baud=0"), @"baud=0: is a number from 300 to 4000000, 115200 say");
        insta::assert_snapshot!(error("/dev/x?wire=morse"), @"wire=morse: is json or frame");
        insta::assert_snapshot!(error("/dev/x?parity=odd"), @"no option parity: there is baud, wire");
        insta::assert_snapshot!(error("/dev/x?baud"), @r#""baud" after the question mark is not key=value"#);
        insta::assert_snapshot!(error("/dev/x?baud=1&baud=2"), @"baud is given twice: keep one");
    }

    #[test]
    fn only_ports_that_come_with_a_plug_are_waited_for() {
        for path in [
            "/dev/ttyUSB0",
            "/dev/ttyACM3",
            "/dev/serial/by-id/usb-FTDI_X",
            "/dev/serial/by-path/p",
        ] {
            assert!(may_come_later(Path::new(path)), "{path}");
        }
        for path in ["/dev/ttyAMA0", "/dev/serial0", "/dev/nothing"] {
            assert!(!may_come_later(Path::new(path)), "{path}");
        }
    }
}
