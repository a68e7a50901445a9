//! The thread that talks to the broker: connects, greets, publishes, and begins again when the connection breaks.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use rustls::ClientConfig;
use serde::Serialize;

use super::address::Address;
use super::backoff::Backoff;
use super::connection::{Connection, LinkError, wait_for};
use super::credentials::Credentials;
use super::home_assistant;
use super::packet::{Hello, Incoming, Message, Version};
use super::spool::Spool;
use super::topics::Topics;
use crate::health::HealthReport;

const ONLINE: &[u8] = b"online";
const OFFLINE: &[u8] = b"offline";
/// The broker says `offline` for us when it has heard nothing for half as long again.
const KEEP_ALIVE_S: u16 = 10;
/// A broker that leaves a ping unanswered for so long is gone, whatever TCP thinks.
const PATIENCE: Duration = Duration::from_secs(10);
/// Estimates sent and not yet confirmed: what a broker must have room for.
const WINDOW: usize = 64;
/// A connection that held for so long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// What the output's thread and the publisher share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    /// Signalled when the spool has got room, or the connection has gone.
    pub room: Condvar,
}

#[derive(Debug)]
pub struct State {
    pub spool: Spool,
    pub health: Option<HealthReport>,
    /// The record has not been published on this connection.
    pub health_due: bool,
    pub connected: bool,
    /// Connections since the start.
    pub connections: u64,
    /// Set when no more estimates come: what is there goes out, but not for longer than this.
    pub finish_by: Option<Instant>,
}

impl Shared {
    pub fn new(span: Duration) -> Shared {
        Shared {
            state: Mutex::new(State {
                spool: Spool::new(span),
                health: None,
                health_due: false,
                connected: false,
                connections: 0,
                finish_by: None,
            }),
            room: Condvar::new(),
        }
    }

    /// Nothing that holds the lock can leave the state half changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub struct Publisher {
    pub address: Address,
    pub tls: Option<Arc<ClientConfig>>,
    pub credentials: Option<Credentials>,
    pub topics: Topics,
    pub identity: String,
    pub shared: Arc<Shared>,
    /// A byte comes here when there is something new in `shared`.
    pub wake: UnixStream,
}

/// The health record, with how this output does.
#[derive(Serialize)]
struct Health<'a> {
    #[serde(flatten)]
    report: &'a HealthReport,
    mqtt: LinkHealth,
}

#[derive(Serialize)]
struct LinkHealth {
    /// Estimates not yet confirmed by the broker.
    waiting: usize,
    /// Estimates dropped because the broker was away for too long.
    dropped: u64,
    connections: u64,
}

impl Publisher {
    /// Until it is told to finish.
    pub fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let finishing = self.shared.state().finish_by.is_some();
            let began = Instant::now();
            let error = match self.connection() {
                Ok(()) => break,
                Err(error) => error,
            };
            let waiting = {
                let mut state = self.shared.state();
                state.spool.rewind();
                if std::mem::take(&mut state.connected) && began.elapsed() > GOOD_AFTER {
                    backoff.reset();
                }
                state.spool.len()
            };
            self.shared.room.notify_all();
            let wait = backoff.next();
            // The 1st, 2nd, 4th, 8th … time, so that a broker that is away all night does not fill the journal.
            let address = &self.address;
            if finishing {
                warn!("{address}: {error}; {waiting} estimates wait");
                break;
            }
            if backoff.failures().is_power_of_two() {
                let wait = wait.as_secs_f32();
                warn!("{address}: {error}; {waiting} estimates wait, trying again in {wait:.1} s");
            }
            self.sleep(wait);
        }
    }

    /// Waits, but not when it is time to finish.
    fn sleep(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.state().finish_by.is_some() {
                return;
            }
            wait_for(self.wake.as_fd(), left);
            self.drain_wake();
        }
    }

    /// What woke us is looked up in `shared`: the bytes themselves say nothing.
    fn drain_wake(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(64)) {}
    }

    /// One connection, from its start to its end; `Ok` when all is said.
    fn connection(&mut self) -> Result<(), LinkError> {
        let until = {
            let state = self.shared.state();
            if state.finish_by.is_some() && state.spool.is_empty() {
                return Ok(());
            }
            state.finish_by
        };
        let hello = Hello {
            client_id: &self.identity,
            keep_alive_s: KEEP_ALIVE_S,
            credentials: self.credentials.as_ref(),
            will: Some(self.status(OFFLINE)),
        };
        let link = Connection::open(&self.address, self.tls.as_ref(), &hello, until)?;
        let waiting = {
            let mut state = self.shared.state();
            state.connected = true;
            state.health_due = true;
            state.connections += 1;
            state.spool.len()
        };
        info!(
            "{}: connected, MQTT {}; {waiting} estimates wait",
            self.address, self.address.version
        );
        Session::new(self, link).run()
    }

    fn status<'a>(&'a self, payload: &'a [u8]) -> Message<'a> {
        Message {
            topic: &self.topics.status,
            payload,
            retain: true,
        }
    }

    fn announce(&self, prefix: &str, out: &mut Vec<u8>) {
        let name = format!("affectd {}", self.address.device);
        let message = Message {
            topic: &home_assistant::topic(prefix, &self.identity),
            payload: &home_assistant::payload(&self.identity, &name, &self.topics),
            retain: true,
        };
        self.address.version.publish(&message, out);
    }
}

/// What goes on while connected.
struct Session<'a> {
    publisher: &'a mut Publisher,
    link: Connection,
    out: Vec<u8>,
    /// When each ping under way was sent, oldest first.
    pings: VecDeque<Instant>,
    last_sent: Instant,
}

impl<'a> Session<'a> {
    fn new(publisher: &'a mut Publisher, link: Connection) -> Session<'a> {
        Session {
            publisher,
            link,
            out: Vec::new(),
            pings: VecDeque::new(),
            last_sent: Instant::now(),
        }
    }

    fn run(&mut self) -> Result<(), LinkError> {
        self.greet();
        loop {
            let finish_by = self.collect();
            self.flush()?;
            if finish_by.is_some_and(|by| Instant::now() > by) {
                return Err(LinkError::Silent);
            }
            if finish_by.is_some() && self.publisher.shared.state().spool.is_empty() {
                return self.part();
            }
            self.link
                .wait(self.publisher.wake.as_fd(), self.time_to_wait(finish_by));
            self.publisher.drain_wake();
            while let Some(incoming) = self.link.receive()? {
                self.take(incoming);
            }
            if self.pings.front().is_some_and(|sent| sent.elapsed() > PATIENCE) {
                return Err(LinkError::Silent);
            }
        }
    }

    fn version(&self) -> Version {
        self.publisher.address.version
    }

    /// We are here, and this is what we are.
    fn greet(&mut self) {
        let version = self.version();
        version.publish(&self.publisher.status(ONLINE), &mut self.out);
        if let Some(prefix) = &self.publisher.address.discovery {
            self.publisher.announce(prefix, &mut self.out);
            version.subscribe(&[home_assistant::birth_topic(prefix)], &mut self.out);
        }
    }

    /// Puts into `out` what there is to send; gives the time to finish by.
    fn collect(&mut self) -> Option<Instant> {
        let version = self.version();
        let publisher = &*self.publisher;
        let mut state = publisher.shared.state();
        for line in state.spool.send(WINDOW) {
            let message = Message {
                topic: &publisher.topics.estimate,
                payload: &line.json,
                retain: false,
            };
            version.publish(&message, &mut self.out);
        }
        if let Some(report) = &state.health
            && state.health_due
        {
            let health = Health {
                report,
                mqtt: LinkHealth {
                    waiting: state.spool.len(),
                    dropped: state.spool.dropped(),
                    connections: state.connections,
                },
            };
            let message = Message {
                topic: &publisher.topics.health,
                payload: &serde_json::to_vec(&health).expect("plain numbers and strings serialize into memory"),
                retain: true,
            };
            version.publish(&message, &mut self.out);
            state.health_due = false;
        }
        // In the same write as what it confirms: a broker that has taken in the one answers the other.
        if !self.out.is_empty() || self.last_sent.elapsed() >= self.link.keep_alive / 2 {
            version.ping(&mut self.out);
            state.spool.pinged();
            self.pings.push_back(Instant::now());
        }
        state.finish_by
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.link.send(&self.out)?;
        self.out.clear();
        self.last_sent = Instant::now();
        Ok(())
    }

    fn time_to_wait(&self, finish_by: Option<Instant>) -> Duration {
        let due = [
            Some(self.last_sent + self.link.keep_alive / 2),
            self.pings.front().map(|sent| *sent + PATIENCE),
            finish_by,
        ];
        let first = due.into_iter().flatten().min().expect("the first is always there");
        first.saturating_duration_since(Instant::now())
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::PingResponse => {
                self.pings.pop_front();
                self.publisher.shared.state().spool.confirm();
                self.publisher.shared.room.notify_all();
            }
            Incoming::Message { topic, payload } => {
                let Some(prefix) = &self.publisher.address.discovery else {
                    return;
                };
                if topic == home_assistant::birth_topic(prefix) && payload == ONLINE {
                    debug!("{}: Home Assistant has started", self.publisher.address);
                    self.publisher.announce(prefix, &mut self.out);
                }
            }
            Incoming::NotSubscribed(why) => warn!(
                "{}: may not listen for Home Assistant ({why}): allow it there, or add discovery=off",
                self.publisher.address
            ),
            _ => {}
        }
    }

    /// A clean end: says `offline` ourselves, and goodbye only when that has arrived.
    fn part(&mut self) -> Result<(), LinkError> {
        let version = self.version();
        version.publish(&self.publisher.status(OFFLINE), &mut self.out);
        version.ping(&mut self.out);
        self.pings.push_back(Instant::now());
        self.flush()?;
        let by = self.publisher.shared.state().finish_by.unwrap_or_else(Instant::now);
        while !self.pings.is_empty() {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::Silent);
            }
            self.link.wait(self.publisher.wake.as_fd(), left);
            self.publisher.drain_wake();
            while let Some(incoming) = self.link.receive()? {
                if incoming == Incoming::PingResponse {
                    self.pings.pop_front();
                }
            }
        }
        version.disconnect(&mut self.out);
        self.flush()
    }
}
