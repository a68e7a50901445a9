//! The thread that talks to the broker: it connects, publishes, and reconnects whenever the connection breaks.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use log::{Level, debug, info, warn};

use super::address::Discovery;
use super::connection::Connection;
use super::error::LinkError;
use super::home_assistant::{self, Announcement};
use super::packet::{Incoming, Message};
use super::settings::ConnectionSettings;
use super::spool::Spool;
use super::stream::wait_for;
use super::topics::{BoardId, Topics};
use super::version::Version;
use crate::health::{HealthReport, MqttHealth};
use crate::rate_limited_log::RateLimitedLog;
use crate::retry::{Retry, RetryPolicy};

const ONLINE: &[u8] = b"online";
const OFFLINE: &[u8] = b"offline";
/// The broker publishes the last will if it receives nothing for one and a half times this.
const KEEP_ALIVE_S: u16 = 10;
/// After how long an unanswered ping counts as a broken connection, even if TCP reports none.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How many estimates may be sent and unconfirmed. The broker must have room for them.
const WINDOW: usize = 64;
/// After this time a connection counts as stable, and the next failure as the first.
const STABLE_AFTER: Duration = Duration::from_secs(10);
const RECONNECT: RetryPolicy = RetryPolicy::Exponential {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};

/// The state that the output's thread and the publisher share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    /// Notified when the spool has room again, or the connection has broken.
    pub room: Condvar,
}

#[derive(Debug)]
pub struct State {
    pub spool: Spool,
    pub health: Option<HealthReport>,
    /// The newest health report is not published on this connection yet.
    pub health_due: bool,
    /// The newest state, if it is not published yet. It is worthless after an outage.
    pub present: Option<Vec<u8>>,
    pub connected: bool,
    /// Connections since the start.
    pub connections: u64,
    /// Set when no more estimates come. What is in the spool is sent until then.
    pub finish_by: Option<Instant>,
}

impl Shared {
    pub fn new(span: Duration) -> Shared {
        Shared {
            state: Mutex::new(State {
                spool: Spool::new(span),
                health: None,
                health_due: false,
                present: None,
                connected: false,
                connections: 0,
                finish_by: None,
            }),
            room: Condvar::new(),
        }
    }

    /// A poisoned lock is used as it is: no holder leaves the state half changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub struct Publisher {
    pub settings: ConnectionSettings,
    pub topics: Topics,
    pub board: BoardId,
    /// Estimates per second.
    pub rate_hz: f64,
    pub has_temperature: bool,
    pub shared: Arc<Shared>,
    /// Receives a byte when `shared` has changed.
    pub wake: UnixStream,
}

impl Publisher {
    /// Runs until it is told to finish.
    pub fn run(mut self) {
        let mut retry = Retry::new(RECONNECT);
        let mut log = RateLimitedLog::new();
        loop {
            let finishing = self.shared.state().finish_by.is_some();
            let started = Instant::now();
            let Err(error) = self.run_connection() else { break };
            let waiting = {
                let mut state = self.shared.state();
                state.spool.rewind();
                if std::mem::take(&mut state.connected) && started.elapsed() > STABLE_AFTER {
                    retry.succeeded();
                }
                state.spool.len()
            };
            self.shared.room.notify_all();
            let wait = retry.failed(Instant::now());
            let address = &self.settings.address;
            if finishing {
                warn!("{address}: {error}; {waiting} estimates are not delivered");
                break;
            }
            // The logarithm thins out a repeated error: a broker that is away all night must not fill the journal.
            let seconds = wait.as_secs_f32();
            let text = format!("{address}: {error}; {waiting} estimates are waiting, next attempt in {seconds:.1} s");
            log.set((error, retry.failures().ilog2()), Level::Warn, text);
            self.sleep(wait);
        }
    }

    /// Sleeps for `wait`, or until it is time to finish.
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

    /// Discards the wake-up bytes. The changes themselves are in `shared`.
    fn drain_wake(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(64)) {}
    }

    /// Makes one connection and publishes on it. Returns `Ok` when everything is published and it is time to finish.
    fn run_connection(&mut self) -> Result<(), LinkError> {
        let deadline = {
            let state = self.shared.state();
            if state.finish_by.is_some() && state.spool.is_empty() {
                return Ok(());
            }
            state.finish_by
        };
        let link = Connection::open(&self.settings, KEEP_ALIVE_S, Some(self.status(OFFLINE)), deadline)?;
        let waiting = {
            let mut state = self.shared.state();
            state.connected = true;
            state.present = None;
            state.health_due = true;
            state.connections += 1;
            state.spool.len()
        };
        let address = &self.settings.address;
        info!(
            "{address}: connected, MQTT {}; {waiting} estimates are waiting",
            address.version
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

    /// Encodes the announcement to Home Assistant.
    fn announce(&self, out: &mut Vec<u8>) {
        let address = &self.settings.address;
        let announcement = Announcement {
            board: &self.board,
            device: &address.device,
            topics: &self.topics,
            has_temperature: self.has_temperature,
            rate_hz: self.rate_hz,
        };
        let message = Message {
            topic: &home_assistant::topic(&address.discovery_prefix, &self.board, &address.device),
            payload: &announcement.payload(),
            retain: true,
        };
        address.version.publish(&message, out);
    }
}

/// One connection's work.
struct Session<'a> {
    publisher: &'a mut Publisher,
    link: Connection,
    out: Vec<u8>,
    /// When each unanswered ping was sent, oldest first.
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
                return Err(LinkError::Timeout);
            }
            if finish_by.is_some() && self.publisher.shared.state().spool.is_empty() {
                return self.disconnect();
            }
            self.link
                .wait(self.publisher.wake.as_fd(), self.time_to_wait(finish_by));
            self.publisher.drain_wake();
            while let Some(incoming) = self.link.receive()? {
                self.handle(incoming);
            }
            if self.pings.front().is_some_and(|sent| sent.elapsed() > PING_TIMEOUT) {
                return Err(LinkError::Timeout);
            }
        }
    }

    fn version(&self) -> Version {
        self.publisher.settings.address.version
    }

    /// Publishes `online` and the announcement to Home Assistant.
    fn greet(&mut self) {
        let version = self.version();
        version.publish(&self.publisher.status(ONLINE), &mut self.out);
        let address = &self.publisher.settings.address;
        if address.discovery == Discovery::On {
            self.publisher.announce(&mut self.out);
            let birth_topic = home_assistant::birth_topic(&address.discovery_prefix);
            version.subscribe(&[birth_topic], &mut self.out);
        }
    }

    /// Encodes what is to be sent into `out`. Returns the time to finish by.
    fn collect(&mut self) -> Option<Instant> {
        let version = self.version();
        let publisher = &*self.publisher;
        let mut state = publisher.shared.state();
        for estimate in state.spool.send(WINDOW) {
            let message = Message {
                topic: &publisher.topics.estimate,
                payload: &estimate.json,
                retain: false,
            };
            version.publish(&message, &mut self.out);
        }
        if let Some(present) = state.present.take() {
            let message = Message {
                topic: &publisher.topics.state,
                payload: &present,
                retain: false,
            };
            version.publish(&message, &mut self.out);
        }
        if let Some(report) = &state.health
            && state.health_due
        {
            let report = HealthReport {
                mqtt: Some(MqttHealth {
                    estimates_waiting: state.spool.len() as u64,
                    estimates_dropped: state.spool.dropped(),
                    connections: state.connections,
                }),
                ..report.clone()
            };
            let message = Message {
                topic: &publisher.topics.health,
                payload: &serde_json::to_vec(&report).expect("plain numbers and strings serialize into memory"),
                retain: true,
            };
            version.publish(&message, &mut self.out);
            state.health_due = false;
        }
        // In the same write as the estimates that it confirms: a broker that received the ping received them too.
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

    /// The time until the next ping, the timeout of the oldest ping, or the time to finish by.
    fn time_to_wait(&self, finish_by: Option<Instant>) -> Duration {
        let mut due = self.last_sent + self.link.keep_alive / 2;
        if let Some(sent) = self.pings.front() {
            due = due.min(*sent + PING_TIMEOUT);
        }
        if let Some(finish_by) = finish_by {
            due = due.min(finish_by);
        }
        due.saturating_duration_since(Instant::now())
    }

    fn handle(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::PingResponse => {
                self.pings.pop_front();
                self.publisher.shared.state().spool.confirm();
                self.publisher.shared.room.notify_all();
            }
            Incoming::Message { topic, payload } => {
                let address = &self.publisher.settings.address;
                let born = topic == home_assistant::birth_topic(&address.discovery_prefix) && payload == ONLINE;
                if born && address.discovery == Discovery::On {
                    debug!("{address}: Home Assistant has started");
                    self.publisher.announce(&mut self.out);
                }
            }
            Incoming::NotSubscribed(why) => warn!(
                "{}: the broker does not allow subscribing to Home Assistant's status ({why}): allow it on the broker, or \
                 add discovery=off",
                self.publisher.settings.address
            ),
            _ => {}
        }
    }

    /// Ends in order: publishes `offline`, waits until that has arrived, and disconnects.
    fn disconnect(&mut self) -> Result<(), LinkError> {
        let version = self.version();
        version.publish(&self.publisher.status(OFFLINE), &mut self.out);
        version.ping(&mut self.out);
        self.pings.push_back(Instant::now());
        self.flush()?;
        let deadline = self.publisher.shared.state().finish_by.unwrap_or_else(Instant::now);
        while !self.pings.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::Timeout);
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
