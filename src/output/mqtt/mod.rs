//! Estimates, health and status to an MQTT broker.
//!
//! ```text
//! output thread ─ Mqtt::write ─▶ spool ─▶ publisher thread ─▶ connection ─▶ broker
//! ```
//!
//! The client is our own, built on the packets of `mqtt-proto` and the TLS of rustls. The reason is one promise: no estimate
//! is lost when a broker is killed. Existing clients send QoS 0 messages and forget them; the [`spool`] keeps them until
//! they are confirmed.

mod address;
mod connection;
mod credentials;
mod error;
mod home_assistant;
mod packet;
mod publisher;
mod settings;
mod spool;
mod state;
mod stream;
pub mod subscriber;
mod tls;
mod topics;
mod version;

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::warn;

use super::contract::{HostIdentity, Output, OutputContext, OutputError};
use super::estimate::write_json;
use super::estimate_rate::EstimateRate;
use super::wall_clock::WallClock;
use crate::fusion::Estimate;
use crate::health::{HealthReport, temperature_c};
use crate::queue::WhenFull;
use publisher::{Publisher, Shared};
use settings::ConnectionSettings;
use spool::QueuedEstimate;
use state::StateReporter;
use topics::{BoardId, ClientRole, Topics, identity_problems};

pub use address::{Address, without_password};

/// How long waiting estimates may still be sent at the end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// An MQTT broker.
pub struct Mqtt {
    name: String,
    shared: Arc<Shared>,
    wake: UnixStream,
    publisher: Option<JoinHandle<()>>,
    clock: WallClock,
    state: StateReporter,
    rate: EstimateRate,
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
        let failed = |e: std::io::Error| {
            OutputError::Failed(format!(
                "{address}: cannot start ({e}): end other programs to free threads and file descriptors"
            ))
        };
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        wake.set_nonblocking(true).map_err(failed)?;
        woken.set_nonblocking(true).map_err(failed)?;
        let shared = Arc::new(Shared::new(address.spool.as_duration()));
        let publisher = Publisher {
            settings,
            topics: Topics::under(&address.base),
            board: BoardId::of(&context.host),
            rate_hz: rate_hz(context.period),
            has_temperature: temperature_c().is_some(),
            shared: Arc::clone(&shared),
            wake: woken,
        };
        let publisher = std::thread::Builder::new()
            .name("mqtt".into())
            .spawn(move || publisher.run())
            .map_err(failed)?;
        Ok(Mqtt {
            name: address.to_string(),
            shared,
            wake,
            publisher: Some(publisher),
            clock: WallClock::default(),
            state: StateReporter::default(),
            rate: EstimateRate::default(),
            period: context.period,
            when_full: context.when_full,
            dropped: Arc::clone(&context.dropped),
        })
    }

    /// Whether [`Mqtt::open`] would succeed. Reads the files and does not contact the broker.
    pub fn check(address: &Address, host: &HostIdentity) -> Result<(), OutputError> {
        ConnectionSettings::load(address, host, ClientRole::Device).map(|_| ())
    }

    fn wake(&mut self) {
        match self.wake.write(&[0]) {
            Ok(_) => {}
            // The buffer is full of wake-ups already.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => warn!("{}: the publisher thread cannot be woken ({e})", self.name),
        }
    }

    /// Sends what waits, publishes `offline` and ends the publisher, within a limited time. Returns how many estimates were
    /// not delivered.
    fn close(&mut self) -> usize {
        let Some(publisher) = self.publisher.take() else {
            return 0;
        };
        let deadline = Instant::now() + FINISH_TIMEOUT;
        self.shared.state().finish_by = Some(deadline);
        self.wake();
        // Name resolution can block the publisher for longer. Then the thread is left running.
        while !publisher.is_finished() && Instant::now() < deadline + Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if publisher.is_finished() && publisher.join().is_err() {
            warn!(
                "{}: the publisher thread panicked: this is a bug in affectd, please report it with the log above",
                self.name
            );
        }
        self.shared.state().spool.len()
    }
}

/// Estimates per second.
fn rate_hz(period: Duration) -> f64 {
    // Rounded, because 1/0.2 is not exactly 5 in every division.
    (1000.0 / period.as_secs_f64()).round() / 1000.0
}

impl Output for Mqtt {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        let (now, wall) = (Instant::now(), self.clock.now());
        if self.when_full == WhenFull::DropOldest {
            let rate_hz = self.rate.hz().unwrap_or_else(|| rate_hz(self.period));
            if let Some(state) = self.state.add(estimate, rate_hz, now, wall) {
                self.shared.state().present =
                    Some(serde_json::to_vec(&state).expect("plain numbers serialize into memory"));
            }
        }
        let mut json = Vec::new();
        write_json(estimate, &mut json, now, wall);
        let at = estimate.at;
        let mut state = self.shared.state();
        if self.when_full == WhenFull::Wait {
            // A replay is faster than a broker. It waits only while connected: without a connection there would never be room.
            let full = |state: &mut publisher::State| state.connected && state.spool.is_full(at);
            let room = self.shared.room.wait_while(state, full);
            state = room.unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let before = state.spool.dropped();
        state.spool.push(QueuedEstimate { at, json });
        self.dropped
            .fetch_add(state.spool.dropped() - before, Ordering::Relaxed);
        drop(state);
        self.wake();
        Ok(())
    }

    fn health(&mut self, report: &HealthReport) -> Result<(), OutputError> {
        let mut state = self.shared.state();
        state.health = Some(report.clone());
        state.health_due = true;
        drop(state);
        self.wake();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        match self.close() {
            0 => Ok(()),
            left => Err(OutputError::Failed(format!(
                "{}: {left} estimates were not delivered: check that the broker runs; the last error is in the log",
                self.name
            ))),
        }
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.close();
    }
}
