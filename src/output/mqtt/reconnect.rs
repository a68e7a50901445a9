//! The loop of the publisher thread: it connects, publishes, and connects again whenever the connection breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, warn};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::client::{Client, Purpose};
use super::error::{LinkError, Prospect};
use super::liveness::OFFLINE;
use super::outbox::Outbox;
use super::publisher::{LogState, Publisher};
use super::session::{Ending, Session};
use super::version::Version;
use crate::health::count;

/// The time that the loop needs to end after an attempt to connect was given up.
const END_MARGIN: Duration = Duration::from_millis(500);

/// Returns shortly before the time to finish by. It may be set while the caller waits.
async fn last_moment(outbox: &Outbox) {
    loop {
        let finish_by = outbox.state().finish_by;
        match finish_by {
            Some(finish_by) => {
                let moment = finish_by.checked_sub(END_MARGIN).unwrap_or(finish_by);
                return tokio::time::sleep_until(moment.into()).await;
            }
            None => outbox.changed.notified().await,
        }
    }
}

/// Connections in a row that the broker had accepted and then closed without a reason.
#[derive(Debug, Default)]
struct Closings(u32);

impl Closings {
    /// After so many, another client may cause them.
    const SUSPICIOUS: u32 = 3;
    /// A connection that was open for longer begins a new row.
    const LONGEST: Duration = Duration::from_secs(5 * 60);

    /// The error for the end of a connection that was open for this time.
    fn add(&mut self, open: Duration, client_id: &str) -> LinkError {
        self.0 = match open < Closings::LONGEST {
            true => self.0.saturating_add(1),
            false => 1,
        };
        match self.0 {
            Closings::SUSPICIOUS.. => LinkError::ClosedRepeatedly {
                client_id: client_id.into(),
            },
            _ => LinkError::Closed,
        }
    }
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
        let mut closings = Closings::default();
        let mut version = self.settings.address.version.first();
        let mut is_away = false;
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
                Err(error) if connected.is_some() => error.after_acceptance(),
                Err(error) => error,
            };
            // Some brokers end the connection because of its size, without a reason.
            let announcing = std::mem::take(&mut self.announcing) && error.may_be_due_to_size();
            if announcing {
                self.failed_announcements += 1;
            }
            let error = match (error, connected) {
                (LinkError::Closed, Some(since)) if !announcing => {
                    closings.add(since.elapsed(), &self.settings.client_id)
                }
                (other, _) => {
                    closings = Closings::default();
                    other
                }
            };
            let waiting = {
                let mut state = self.outbox.state();
                state.end_connection();
                state.spool.len()
            };
            self.outbox.room.notify_all();
            if finishing {
                let address = &self.settings.address;
                warn!("{address}: {error}; {waiting} estimates are waiting, and affectd ends or closes this output");
                return;
            }
            let connected = connected.map(|since| since.elapsed());
            let next_version = self.settings.next_version(version, &error, connected.is_some());
            // The first try with the other version follows at once.
            let wait = match (version, next_version) {
                _ if error == LinkError::FilesChanged => Duration::ZERO,
                (Version::V5, Version::V3) if connected.is_none() => Duration::from_millis(100),
                _ => {
                    // Once for each outage, however many attempts fail.
                    if !is_away || connected.is_some() {
                        count(&self.lost);
                    }
                    is_away = true;
                    backoff.after(&error, connected)
                }
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
        let purpose = Purpose::Publish { will };
        let client = tokio::select! {
            client = Client::open(&self.settings, version, &purpose, deadline) => client?,
            () = last_moment(&self.outbox) => return Err(LinkError::Timeout),
        };
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_closing_in_a_row_suspects_another_client() {
        let mut closings = Closings::default();
        let mut add = |seconds| closings.add(Duration::from_secs(seconds), "affectd0123456789abcdef");
        assert_eq!(add(1), LinkError::Closed);
        assert_eq!(add(1000), LinkError::Closed);
        assert_eq!(add(60), LinkError::Closed);
        insta::assert_snapshot!(add(2), @"the broker closed the connection several times in a row: another client may use the identifier affectd0123456789abcdef: if two devices share a machine identifier and a device name, give each its own device=NAME; otherwise see the broker's log");
        assert_eq!(add(1000), LinkError::Closed);
    }
}
