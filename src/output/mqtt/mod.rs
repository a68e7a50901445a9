//! Estimates, health and status to an MQTT broker.
//!
//! ```text
//! output thread ─ Mqtt::write ─▶ spool ─▶ publisher thread ─▶ connection ─▶ broker
//! ```
//!
//! An estimate stays in the [`spool`] until the broker acknowledges it (QoS 1), so an outage of the broker loses none.
//!
//! The client is of the rumqttc-next family. Four were compared: the first by its source and by measurements, the second by parts of
//! its source, the third by its documentation and interface, the last by its manifest and licence:
//!
//! | crate | verdict |
//! | --- | --- |
//! | rumqttc-v4-next, rumqttc-v5-next 0.34 | Chosen. Both versions of MQTT. Each publish returns its own PUBACK with its reason; packets, queues and batches are bounded; it respects receive maximum, maximum packet size and server keep-alive; TLS through our rustls configuration. 0.8 MB of program and 1.2 MB of memory, most of it code pages of tokio. It drops incoming packets that end too early, without an error. Its author alone makes most commits, and minor versions break the interface, so it is behind [`client`]. |
//! | rumqttc 0.25 | The ancestor of the family, last released in November 2025. A publish is not matched with its PUBACK. |
//! | mqtt-protocol-core 0.7 | Good, without I/O. It is half of a client: timers, resending and the two packet sets of the versions remain with the user, which is about what we had. |
//! | paho-mqtt 0.14 | A binding to C with OpenSSL, which every target would have to cross-compile. EPL-2.0. |
//!
//! Sessions always start clean, and a new client is made for each connection: the spool decides what is sent again.

mod action;
mod address;
mod backoff;
mod board_index;
mod client;
mod credentials;
mod device;
mod error;
mod forget;
mod former;
mod home_assistant;
mod liveness;
mod message;
mod network;
mod outbox;
mod probe;
mod publisher;
mod reconnect;
mod request;
mod runtime;
mod session;
mod settings;
mod spool;
mod state;
pub mod subscriber;
mod tls;
mod topics;
mod version;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::commands::CommandProcessor;
use super::contract::{Backlog, HostIdentity, Output, OutputContext, OutputError, QueuedEstimate};
use super::estimate::write_json;
use super::estimate_rate::EstimateRate;
use super::wall_clock::WallClock;
use crate::fusion::Estimate;
use crate::health::{HealthReport, temperature_c};
use crate::queue::WhenFull;
use crate::rate_limited_log::RateLimitedLog;
use device::Device;
use message::Message;
use outbox::{Outbox, State};
use publisher::Publisher;
use request::{ReplyTo, Request};
use runtime::{cannot_start, runtime};
use settings::ConnectionSettings;
use state::StateReporter;
use topics::{ClientRole, Topics, identity_problems};

use address::Retain;
pub use address::{Address, DeviceName};

/// How long waiting estimates may still be sent at the end. Together with [`FINISH_GRACE`], and with the time that a stop takes to
/// reach this output, it must be below the time that affectd has to end: an output that is left behind counts nothing.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// How much later the publisher may end.
const FINISH_GRACE: Duration = Duration::from_millis(200);
/// The shortest time between two commands, and the longest delay of an answer.
const SERVE_INTERVAL: Duration = Duration::from_millis(100);

/// An MQTT broker.
pub struct Mqtt {
    name: String,
    outbox: Arc<Outbox>,
    retain: Retain,
    publisher: Option<JoinHandle<()>>,
    clock: WallClock,
    state: StateReporter,
    rate: EstimateRate,
    commands: CommandProcessor<ReplyTo>,
    /// When a command was last executed.
    served: Option<Instant>,
    period: Duration,
    when_full: WhenFull,
    dropped: Arc<AtomicU64>,
}

impl Mqtt {
    /// Reads the files that `address` names and starts the publisher. An absent broker is not an error: estimates wait for it.
    pub fn open(address: &Address, context: &OutputContext) -> Result<Mqtt, OutputError> {
        let settings = ConnectionSettings::load(address, &context.host, ClientRole::Device)?;
        if settings.exposes_password() {
            warn!("{address}: the password crosses the network unencrypted: use mqtts://");
        }
        for problem in identity_problems(address, &context.host) {
            warn!("{address}: {problem}");
        }
        let runtime = runtime(address)?;
        let topics = Topics::under(&address.base);
        let outbox = Arc::new(Outbox::new(topics, address.spool.as_duration()));
        let device = Device::new(
            address,
            &context.host,
            rate_hz(context.period),
            temperature_c().is_some(),
            is_live(context.when_full),
        );
        let publisher = Publisher {
            settings,
            device,
            outbox: Arc::clone(&outbox),
            log: RateLimitedLog::new(),
            lost: Arc::clone(&context.lost),
            announcing: false,
            failed_announcements: 0,
            complaints: HashSet::new(),
        };
        let publisher = std::thread::Builder::new()
            .name("mqtt".into())
            .spawn(move || publisher.run(runtime))
            .map_err(|e| cannot_start(address, &e))?;
        Ok(Mqtt {
            name: address.to_string(),
            outbox,
            retain: address.retain,
            publisher: Some(publisher),
            clock: WallClock::default(),
            state: StateReporter::default(),
            rate: EstimateRate::default(),
            commands: CommandProcessor::new(
                context.controls.clone(),
                context.health.clone(),
                Arc::clone(&context.pause),
            ),
            served: None,
            period: context.period,
            when_full: context.when_full,
            dropped: Arc::clone(&context.dropped),
        })
    }

    /// Reads the files, connects to the broker and logs in. Publishes nothing and does not disturb a running affectd. Returns what
    /// is known of the broker.
    pub fn check(address: &Address, host: &HostIdentity) -> Result<String, OutputError> {
        let role = ClientRole::Reader {
            process_id: std::process::id(),
        };
        let mut settings = ConnectionSettings::load(address, host, role)?;
        let runtime = runtime(address)?;
        let result = runtime.block_on(probe::probe(&mut settings));
        runtime.shutdown_background();
        result.map_err(|why| OutputError::Failed(format!("{address}: {why}")))
    }

    /// Deletes what `device` has left on the broker. Returns the topics.
    pub fn forget(address: &Address, device: &DeviceName, host: &HostIdentity) -> Result<Vec<String>, OutputError> {
        forget::forget(address, device, host)
    }

    /// Executes the next command, at most one in each [`SERVE_INTERVAL`], and queues its answer.
    fn serve(&mut self, now: Instant) {
        if self.served.is_some_and(|last| now < last + SERVE_INTERVAL) {
            return;
        }
        let late = self.commands.late_answer();
        let answer = late.or_else(|| {
            let Request { command, reply_to, .. } = self.outbox.state().next_request()?;
            self.served = Some(now);
            self.commands.execute(command, reply_to, &mut self.rate)
        });
        if let Some(answer) = answer {
            self.outbox.state().answer(ReplyTo::message(answer));
            self.outbox.changed.notify_one();
        }
    }

    /// Queues an estimate, and counts those that it displaces.
    fn push(&self, state: &mut State, estimate: QueuedEstimate) {
        let before = state.spool.dropped();
        state.spool.push(estimate);
        self.dropped
            .fetch_add(state.spool.dropped() - before, Ordering::Relaxed);
    }

    /// Sends what waits, publishes `offline` and ends the publisher, within a limited time. Returns how many estimates were
    /// not delivered.
    fn close(&mut self) -> usize {
        let Some(publisher) = self.publisher.take() else {
            return 0;
        };
        let deadline = Instant::now() + FINISH_TIMEOUT;
        self.outbox.state().finish_by = Some(deadline);
        self.outbox.changed.notify_one();
        // Name resolution can block the publisher for longer. Then the thread is left running.
        while !publisher.is_finished() && Instant::now() < deadline + FINISH_GRACE {
            std::thread::sleep(Duration::from_millis(2));
        }
        if publisher.is_finished() && publisher.join().is_err() {
            warn!(
                "{}: the publisher thread panicked: this is a bug in affectd: please report it as an issue in affectd's repository, with the log above",
                self.name
            );
        }
        self.outbox.state().spool.len()
    }
}

/// Whether the estimates are of the present. A replay is faster: it has no state, and Home Assistant is not told about it.
fn is_live(when_full: WhenFull) -> bool {
    when_full == WhenFull::DropOldest
}

/// Estimates per second.
fn rate_hz(period: Duration) -> f64 {
    // Rounded, because 1/0.2 is not exactly 5 in every division.
    (1000.0 / period.as_secs_f64()).round() / 1000.0
}

impl Output for Mqtt {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        let (now, wall) = (Instant::now(), self.clock.now());
        self.serve(now);
        if is_live(self.when_full) {
            let rate_hz = self.rate.hz().unwrap_or_else(|| rate_hz(self.period));
            if let Some(state) = self.state.add(estimate, rate_hz, now, wall) {
                let json = serde_json::to_vec(&state).expect("plain numbers serialize into memory");
                let mut outbox = self.outbox.state();
                let message = Message::new(&outbox.topics.state, json);
                outbox.set_present(message);
            }
        }
        if !self.rate.is_due(estimate.at, self.period) {
            self.outbox.changed.notify_one();
            return Ok(());
        }
        let mut json = Vec::new();
        write_json(estimate, &mut json, now, wall);
        let at = estimate.at;
        let mut state = self.outbox.state();
        if self.when_full == WhenFull::Wait {
            // A replay is faster than a broker. It waits only while connected: without a connection there would never be room.
            let full = |state: &mut State| state.connected && state.spool.is_full(at);
            let room = self.outbox.room.wait_while(state, full);
            state = room.unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        self.push(&mut state, QueuedEstimate { at, json });
        drop(state);
        self.outbox.changed.notify_one();
        Ok(())
    }

    fn health(&mut self, report: &HealthReport) -> Result<(), OutputError> {
        let mut state = self.outbox.state();
        state.health = Some(report.clone());
        state.renew_health(self.retain);
        drop(state);
        self.outbox.changed.notify_one();
        Ok(())
    }

    fn reload(&mut self) {
        self.outbox.state().reload = true;
        self.outbox.changed.notify_one();
    }

    fn poll_interval(&self) -> Option<Duration> {
        Some(SERVE_INTERVAL)
    }

    fn poll(&mut self) -> Result<(), OutputError> {
        self.serve(Instant::now());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        let left = self.close();
        if left == 0 {
            return Ok(());
        }
        self.dropped.fetch_add(left as u64, Ordering::Relaxed);
        let why = format!(
            "{}: {left} estimates were not delivered: check that the broker runs; the last error is in the log",
            self.name
        );
        if is_live(self.when_full) {
            // A service that is stopped during an outage has not failed. A replay has: its estimates are wanted for their own sake.
            warn!("{why}");
            return Ok(());
        }
        Err(OutputError::Failed(why))
    }

    fn hand_over(&mut self) -> Result<Backlog, OutputError> {
        // Without a connection, time to finish would deliver nothing.
        if self.outbox.state().connected {
            self.close();
        }
        let left = self.outbox.state().spool.take();
        self.close();
        Ok(Backlog(left))
    }

    fn take_over(&mut self, backlog: Backlog) {
        let Backlog(estimates) = backlog;
        if estimates.is_empty() {
            return;
        }
        info!(
            "{}: takes over {} estimates that are waiting",
            self.name,
            estimates.len()
        );
        let mut state = self.outbox.state();
        for estimate in estimates {
            self.push(&mut state, estimate);
        }
        drop(state);
        self.outbox.changed.notify_one();
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.close();
    }
}
