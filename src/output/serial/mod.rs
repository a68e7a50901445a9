//! Estimates on a serial line, as JSON lines or binary frames, and answers to a few commands.
//!
//! Nothing here blocks. The `output-serial` thread polls the port fifty times a second, reads what has arrived and writes
//! what the port has room for. A port that disappears is opened again when it is back.

mod encoder;
mod outbox;
mod pacing;
mod port;
mod spec;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::{Level, warn};

use super::commands::{Command, CommandProcessor, CommandReader};
use super::contract::{Output, OutputContext, OutputError};
use super::estimate_rate::EstimateRate;
use crate::fusion::Estimate;
use crate::health::count;
use crate::queue::WhenFull;
use crate::rate_limited_log::RateLimitedLog;
use crate::retry::{Retry, RetryPolicy};
use encoder::SerialEncoder;
use outbox::{AnswerKind, Outbox};
use pacing::Pacing;
use port::{Port, PortError};

pub use encoder::Wire;
pub use spec::SerialSpec;

/// The longest delay of an answer.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time between two attempts to open an absent port.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The longest time that a replay, or a clean exit, waits for the line.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two writes while draining.
const DRAIN_INTERVAL: Duration = Duration::from_millis(2);
/// After this many periods without an estimate, answers no longer wait for the next one.
const ANSWER_PERIODS: u32 = 3;
/// Bytes per read.
const READ_BYTES: usize = 256;
/// Reads per poll. A peer that sends without end must not delay the estimates.
const MAX_READS: usize = 16;

/// A serial line.
pub struct Serial {
    spec: SerialSpec,
    context: OutputContext,
    /// `None` while the port is absent or unusable.
    port: Option<Port>,
    retry: Retry,
    log: RateLimitedLog<PortState>,
    /// A replay has waited for the line until the timeout. It does not wait again until the outbox is empty.
    stuck: bool,
    encoder: SerialEncoder,
    outbox: Outbox,
    /// When one more answer may be written, even if no estimate has been sent.
    answer_due: Instant,
    pacing: Pacing,
    rate: EstimateRate,
    reader: CommandReader,
    commands: CommandProcessor<()>,
}

/// The state of the port, as logged.
#[derive(Debug, PartialEq)]
enum PortState {
    Open,
    /// With the reason.
    Unusable(String),
}

impl Serial {
    /// Opens the port. A missing port that may appear later is not an error.
    pub fn open(spec: &SerialSpec, context: &OutputContext) -> Result<Serial, OutputError> {
        let port = spec.open_port()?;
        let mut serial = Serial {
            retry: Retry::new(RetryPolicy::Fixed(RETRY_INTERVAL)),
            log: RateLimitedLog::new(),
            encoder: SerialEncoder::new(spec.wire()),
            outbox: Outbox::default(),
            answer_due: Instant::now(),
            pacing: Pacing::new(spec.baud(), spec.wire().usual_bytes(), context.period),
            rate: EstimateRate::default(),
            reader: CommandReader::default(),
            commands: CommandProcessor::new(
                context.controls.clone(),
                context.health.clone(),
                Arc::clone(&context.pause),
            ),
            stuck: false,
            port,
            spec: spec.clone(),
            context: context.clone(),
        };
        serial.warn_if_too_slow();
        match serial.port {
            Some(_) => serial.outbox.start_connection(serial.spec.wire().delimiter()),
            None => {
                count(&serial.context.lost);
                serial.set_unusable("no such port".into());
            }
        }
        Ok(serial)
    }

    fn warn_if_too_slow(&self) {
        let capacity = self.pacing.capacity(self.spec.wire().usual_bytes());
        let rate = 1.0 / self.context.period.as_secs_f32();
        if capacity < rate {
            let (path, baud) = (self.spec.path().display(), self.spec.baud());
            warn!(
                "{path}: {baud} baud is too slow: the line carries about {capacity:.1} of {rate} estimates a second \
                 and the others are left out: set a higher baud, or wire=frame"
            );
        }
    }

    /// The open port has failed.
    fn lose(&mut self, why: String) {
        if let Some(port) = self.port.take() {
            port.discard_output();
            count(&self.context.lost);
            self.count_unsent();
        }
        self.set_unusable(why);
    }

    /// The estimates in the outbox are lost.
    fn count_unsent(&self) {
        let unsent = self.outbox.unsent_estimates();
        self.context.dropped.fetch_add(unsent, Ordering::Relaxed);
    }

    fn set_unusable(&mut self, why: String) {
        self.retry.failed(Instant::now());
        let text = format!(
            "{}: {why}; affectd tries to open it until it works",
            self.spec.path().display()
        );
        self.log.set(PortState::Unusable(why), Level::Warn, text);
    }

    fn reopen(&mut self) {
        let now = Instant::now();
        if self.port.is_some() || !self.retry.is_due(now) {
            return;
        }
        match Port::open(self.spec.path(), self.spec.baud()) {
            Ok(port) => {
                self.port = Some(port);
                self.retry.succeeded();
                let text = format_args!("{}: open again", self.spec.path().display());
                self.log.set(PortState::Open, Level::Info, text);
                self.outbox.start_connection(self.spec.wire().delimiter());
                self.reader = CommandReader::default();
            }
            Err(PortError::Absent) => {
                self.retry.failed(now);
            }
            Err(PortError::Unusable(why)) => self.set_unusable(why),
        }
    }

    /// Reads what has arrived and writes what the port has room for.
    fn exchange(&mut self) {
        let now = Instant::now();
        if now >= self.answer_due {
            self.outbox.permit_answer();
            self.answer_due = now + ANSWER_PERIODS * self.context.period;
        }
        let result = self.read_commands().and_then(|()| match &self.port {
            Some(port) => self.outbox.flush(|bytes| port.write(bytes)),
            None => Ok(()),
        });
        if let Err(e) = result {
            self.lose(format!("the port is gone ({e})"));
        }
    }

    fn read_commands(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ_BYTES];
        for _ in 0..MAX_READS {
            let Some(port) = &self.port else { break };
            let length = port.read(&mut bytes)?;
            for byte in &bytes[..length] {
                if let Some(command) = self.reader.push(*byte) {
                    self.execute(command);
                }
            }
            if length < bytes.len() {
                break;
            }
        }
        if let Some(answer) = self.commands.late_answer() {
            self.answer(AnswerKind::Fixed, &answer.body);
        }
        Ok(())
    }

    fn execute(&mut self, command: Result<Command, String>) {
        let kind = match command {
            Ok(Command::Health) => AnswerKind::Present,
            _ => AnswerKind::Fixed,
        };
        if let Some(answer) = self.commands.execute(command, (), &mut self.rate) {
            self.answer(kind, &answer.body);
        }
    }

    /// Queues an answer. Pacing does not count answers, and the outbox sends at most one between two estimates, so a peer that
    /// asks without end cannot hold back the estimates.
    fn answer(&mut self, kind: AnswerKind, answer: &serde_json::Value) {
        self.outbox.push_answer(kind, self.encoder.answer(answer));
    }

    /// Writes until the outbox is empty, the port is gone, or [`DRAIN_TIMEOUT`] is over.
    fn drain(&mut self) {
        let started = Instant::now();
        while self.port.is_some() && !self.outbox.is_idle() {
            if self.stuck || started.elapsed() >= DRAIN_TIMEOUT {
                self.stuck = true;
                return;
            }
            std::thread::sleep(DRAIN_INTERVAL);
            self.exchange();
        }
        self.stuck = false;
    }
}

impl Output for Serial {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        self.reopen();
        if self.port.is_none() {
            count(&self.context.dropped);
            return Ok(());
        }
        if !self.rate.is_due(estimate.at, self.context.period) {
            return Ok(());
        }
        // A replay waits for the line. In real time, estimates that the line has no time for are left out.
        let replay = self.context.when_full == WhenFull::Wait;
        let now = Instant::now();
        if !replay && !self.pacing.is_free(now) {
            count(&self.context.dropped);
            return Ok(());
        }
        let message = self.encoder.estimate(estimate);
        self.pacing.sent(message.len(), now);
        self.answer_due = now + ANSWER_PERIODS * self.context.period;
        if self.outbox.push_estimate(message).is_some() {
            count(&self.context.dropped);
        }
        self.exchange();
        if replay {
            self.drain();
        }
        Ok(())
    }

    fn poll_interval(&self) -> Option<Duration> {
        Some(POLL_INTERVAL)
    }

    fn poll(&mut self) -> Result<(), OutputError> {
        self.reopen();
        self.exchange();
        self.log.flush();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        self.drain();
        if let Some(port) = &self.port
            && !self.outbox.is_idle()
        {
            port.discard_output();
            self.count_unsent();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
