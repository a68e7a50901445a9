//! Estimates, health and status to an MQTT broker.
//!
//! ```text
//! output thread ─ Mqtt::write ─▶ spool ─▶ publisher thread ─▶ connection ─▶ broker
//! ```
//!
//! The client is our own, over the packets of `mqtt-proto` and the TLS of rustls, because of one promise: a broker that is
//! killed costs no estimate. Clients that are to be had throw QoS 0 messages at the socket and forget them; see [`spool`] for
//! what is done here instead.

pub mod address;
mod backoff;
mod connection;
mod credentials;
mod home_assistant;
mod packet;
mod publisher;
mod spool;
mod stream;
pub mod subscriber;
mod tls;
pub mod topics;

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::warn;

use super::estimate::write_json;
use super::wall_clock::WallClock;
use super::{Output, OutputError, Service};
use crate::fusion::Estimate;
use crate::health::HealthReport;
use crate::queue::WhenFull;

pub use address::{Address, without_password};
use credentials::Credentials;
use publisher::{Publisher, Shared};
use spool::Line;
use topics::Topics;

/// What waits at the end gets so long to go out.
const FINISHED_WITHIN: Duration = Duration::from_secs(5);
/// An MQTT broker.
pub struct Mqtt {
    name: String,
    shared: Arc<Shared>,
    wake: UnixStream,
    publisher: Option<JoinHandle<()>>,
    clock: WallClock,
    when_full: WhenFull,
    dropped: Arc<AtomicU64>,
}

impl Mqtt {
    /// Reads the files that `address` names and starts the publisher. A broker that is away is no error: estimates wait.
    pub fn open(address: &Address, service: &Service) -> Result<Mqtt, OutputError> {
        let Files { tls, credentials } = Files::read(address)?;
        if credentials.as_ref().is_some_and(|c| c.password.is_some()) && tls.is_none() && !is_local(&address.host) {
            warn!("{address}: the password goes over the network unencrypted: prefer mqtts://");
        }
        let io =
            |e: std::io::Error| OutputError::Failed(format!("{address}: cannot start ({e}): close other programs"));
        let (wake, woken) = UnixStream::pair().map_err(io)?;
        wake.set_nonblocking(true).map_err(io)?;
        woken.set_nonblocking(true).map_err(io)?;
        let shared = Arc::new(Shared::new(address.spool));
        let publisher = Publisher {
            address: address.clone(),
            tls,
            credentials,
            topics: Topics::under(&address.base),
            identity: topics::identity(address),
            shared: Arc::clone(&shared),
            wake: woken,
        };
        let publisher = std::thread::Builder::new()
            .name("mqtt".into())
            .spawn(move || publisher.run())
            .map_err(io)?;
        Ok(Mqtt {
            name: address.to_string(),
            shared,
            wake,
            publisher: Some(publisher),
            clock: WallClock::default(),
            when_full: service.when_full,
            dropped: Arc::clone(&service.dropped),
        })
    }

    /// Whether [`Mqtt::open`] would work: reads the files and leaves the broker alone.
    pub fn check(address: &Address) -> Result<(), OutputError> {
        Files::read(address).map(|_| ())
    }

    fn wake(&mut self) {
        match self.wake.write(&[0]) {
            Ok(_) => {}
            // Full: more than enough to wake it.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => warn!("{}: its thread cannot be woken ({e})", self.name),
        }
    }

    /// Lets out what waits and says `offline`, but not for longer than a stop may take. Gives what was not delivered.
    fn close(&mut self) -> usize {
        let Some(publisher) = self.publisher.take() else {
            return 0;
        };
        let by = Instant::now() + FINISHED_WITHIN;
        self.shared.state().finish_by = Some(by);
        self.wake();
        // A name that cannot be resolved may hold it up for longer than anybody wants to wait: then it is left behind.
        while !publisher.is_finished() && Instant::now() < by + Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if publisher.is_finished() && publisher.join().is_err() {
            warn!(
                "{}: its thread ended by a bug, please report it with the log above",
                self.name
            );
        }
        self.shared.state().spool.len()
    }
}

/// What stands in the files that an address names.
struct Files {
    tls: Option<Arc<rustls::ClientConfig>>,
    credentials: Option<Credentials>,
}

impl Files {
    fn read(address: &Address) -> Result<Files, OutputError> {
        let failed = |why: String| OutputError::Failed(format!("{address}: {why}"));
        let tls = address
            .tls
            .as_ref()
            .map(tls::client_config)
            .transpose()
            .map_err(failed)?;
        let credentials = Credentials::load(address, credentials::folder().as_deref()).map_err(failed)?;
        Ok(Files { tls, credentials })
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Output for Mqtt {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        let mut json = Vec::new();
        write_json(estimate, &mut json, Instant::now(), self.clock.now());
        let at = estimate.at;
        let mut state = self.shared.state();
        if self.when_full == WhenFull::Wait {
            // A clip is replayed faster than a broker takes it. Without a connection nobody would ever make room.
            let full = |state: &mut publisher::State| state.connected && state.spool.is_full(at);
            let room = self.shared.room.wait_while(state, full);
            state = room.unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let before = state.spool.dropped();
        state.spool.push(Line { at, json });
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
                "{}: {left} estimates were not delivered: is the broker there? its last word is in the log",
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
