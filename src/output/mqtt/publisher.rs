//! The thread that talks to the broker: it connects, publishes, and reconnects whenever the connection breaks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, warn};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::client::{Client, Purpose};
use super::error::{LinkError, Prospect};
use super::message::{IncomingMessage, Message};
use super::outbox::Outbox;
use super::session::Session;
use super::settings::ConnectionSettings;
use super::topics::Topics;
use super::version::Version;
use crate::rate_limited_log::RateLimitedLog;

pub const ONLINE: &[u8] = b"online";
pub const OFFLINE: &[u8] = b"offline";

pub struct Publisher {
    pub settings: ConnectionSettings,
    pub topics: Topics,
    pub outbox: Arc<Outbox>,
    /// Published at the start of each connection, and when a subscription asks for it. The topics are those of other programs,
    /// such as Home Assistant.
    pub announcements: Vec<Message>,
    pub subscriptions: Vec<Subscription>,
    pub log: RateLimitedLog<LogState>,
    /// Complaints of the broker that have been logged: the kind of message and the reason.
    pub complaints: HashSet<(&'static str, String)>,
}

/// A topic to subscribe to on each connection.
pub struct Subscription {
    /// Without wildcards.
    pub topic: String,
    /// What the topic is, for the log.
    pub name: &'static str,
    pub handler: Handler,
}

/// Reacts to a message. It runs on the publisher's thread and must not wait.
pub type Handler = Box<dyn FnMut(&IncomingMessage) -> Reaction + Send>;

/// What a message leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    Ignore,
    /// Publishes the announcements again. Many requests within a few seconds lead to one announcement.
    Announce,
    #[allow(dead_code, reason = "the commands use it")]
    Answer(Message),
}

/// The state of the connection, as far as the log is concerned.
#[derive(Debug, PartialEq)]
pub enum LogState {
    Connected(Version),
    /// With the logarithm of the number of failures, so that a repeated error is logged less and less often: a broker that is
    /// away all night must not fill the journal.
    Failed(LinkError, u32),
}

impl Publisher {
    /// Runs until it is told to finish.
    pub fn run(mut self, runtime: Runtime) {
        runtime.block_on(self.keep_connected());
        // A name server can block a thread for longer than the process has time to end.
        runtime.shutdown_background();
    }

    async fn keep_connected(&mut self) {
        let mut backoff = Backoff::new();
        let mut version = self.settings.address.version.first();
        loop {
            let finishing = self.outbox.state().finish_by.is_some();
            let mut connected = None;
            let Err(error) = self.run_connection(version, &mut connected).await else {
                return;
            };
            let waiting = {
                let mut state = self.outbox.state();
                state.end_connection();
                state.spool.len()
            };
            self.outbox.room.notify_all();
            if finishing {
                let address = &self.settings.address;
                warn!("{address}: {error}; {waiting} estimates are not delivered");
                return;
            }
            let connected = connected.map(|since| since.elapsed());
            let next_version = self.settings.next_version(version, &error, connected.is_some());
            // The first try with the other version follows at once.
            let wait = match (version, next_version) {
                _ if error == LinkError::FilesChanged => Duration::ZERO,
                (Version::V5, Version::V3) if connected.is_none() => Duration::from_millis(100),
                _ => backoff.after(&error, connected),
            };
            version = next_version;
            let (address, seconds) = (&self.settings.address, wait.as_secs_f32());
            let text = format!("{address}: {error}; {waiting} estimates are waiting, next attempt in {seconds:.1} s");
            let failures = backoff.failures().max(1).ilog2();
            let refused = error.prospect() == Prospect::Refused;
            self.log.set(LogState::Failed(error, failures), Level::Warn, text);
            self.sleep(wait).await;
            // Somebody may have replaced a password or a certificate meanwhile.
            if refused {
                self.reload();
            }
        }
    }

    /// Sleeps for `wait`, or until it is time to finish, or until the files have changed.
    async fn sleep(&mut self, wait: Duration) {
        let outbox = Arc::clone(&self.outbox);
        let told = async {
            loop {
                if outbox.state().finish_by.is_some() || self.reload_if_told() {
                    return;
                }
                outbox.changed.notified().await;
            }
        };
        let _ = timeout(wait, told).await;
        self.log.flush();
    }

    /// Reads the files again, if they may have changed. Returns whether they have.
    pub fn reload_if_told(&mut self) -> bool {
        let told = std::mem::take(&mut self.outbox.state().reload);
        told && self.reload()
    }

    /// Reads the files again. Returns whether they have changed.
    fn reload(&mut self) -> bool {
        self.settings.reload().unwrap_or_else(|why| {
            warn!("{}: {why}; the old files stay in use", self.settings.address);
            false
        })
    }

    /// Makes one connection and publishes on it. Sets `connected` when the broker has accepted. Returns `Ok` when everything
    /// is published and it is time to finish.
    async fn run_connection(&mut self, version: Version, connected: &mut Option<Instant>) -> Result<(), LinkError> {
        let deadline = {
            let state = self.outbox.state();
            if state.finish_by.is_some() && state.spool.is_empty() {
                return Ok(());
            }
            state.finish_by.map(Into::into)
        };
        let will = Some(self.status(OFFLINE));
        let client = Client::open(&self.settings, version, &Purpose::Publish { will }, deadline).await?;
        *connected = Some(Instant::now());
        let waiting = {
            let mut state = self.outbox.state();
            state.start_connection();
            state.spool.len()
        };
        let address = &self.settings.address;
        let text = format!("{address}: connected, MQTT {version}; {waiting} estimates are waiting");
        self.log.set(LogState::Connected(version), Level::Info, text);
        Session::new(self, client).run().await
    }

    pub fn status(&self, payload: &[u8]) -> Message {
        let retain = self.settings.address.retain.is_on();
        Message {
            retain,
            ..Message::new(&self.topics.status, payload)
        }
    }

    /// Logs that the broker discards messages of a kind, once for each kind and reason.
    pub fn complain(&mut self, kind: &'static str, why: &str, mend: &str) {
        if self.complaints.insert((kind, why.to_owned())) {
            warn!("{}: {kind} cannot be published: {why}: {mend}", self.settings.address);
        }
    }
}
