//! The thread that talks to the broker: it connects, publishes, and reconnects whenever the connection breaks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, warn};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::client::{Client, Purpose};
use super::device::{Device, OFFLINE};
use super::error::{LinkError, Prospect};
use super::message::Message;
use super::outbox::Outbox;
use super::session::{Ending, Session};
use super::settings::ConnectionSettings;
use super::version::Version;
use crate::rate_limited_log::RateLimitedLog;

pub struct Publisher {
    pub settings: ConnectionSettings,
    pub device: Device,
    pub outbox: Arc<Outbox>,
    pub log: RateLimitedLog<LogState>,
    /// Complaints of the broker that have been logged: the kind of message and the reason.
    pub complaints: HashSet<(&'static str, String)>,
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
            let error = match self.run_connection(version, &mut connected).await {
                Ok(Ending::Finished) => return,
                Ok(Ending::Moved) => {
                    let mut state = self.outbox.state();
                    state.end_connection();
                    state.move_to(self.device.topics().clone());
                    continue;
                }
                Err(error) => error,
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

    /// Makes one connection and publishes on it. Sets `connected` when the broker has accepted.
    async fn run_connection(&mut self, version: Version, connected: &mut Option<Instant>) -> Result<Ending, LinkError> {
        let deadline = {
            let state = self.outbox.state();
            if state.finish_by.is_some() && state.spool.is_empty() {
                return Ok(Ending::Finished);
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
            ..Message::new(&self.device.topics().status, payload)
        }
    }

    /// Logs that the broker discards messages of a kind, once for each kind and reason.
    pub fn complain(&mut self, kind: &'static str, why: &str, mend: &str) {
        if self.complaints.insert((kind, why.to_owned())) {
            warn!("{}: {kind} cannot be published: {why}: {mend}", self.settings.address);
        }
    }
}
