//! What the thread that talks to the broker keeps from one connection to the next.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use log::warn;

use super::device::Device;
use super::error::LinkError;
use super::message::Message;
use super::outbox::Outbox;
use super::settings::ConnectionSettings;
use super::version::Version;
use crate::rate_limited_log::RateLimitedLog;

pub struct Publisher {
    pub settings: ConnectionSettings,
    pub device: Device,
    pub outbox: Arc<Outbox>,
    pub log: RateLimitedLog<LogState>,
    /// Counts how often the broker was lost or not found.
    pub lost: Arc<AtomicU64>,
    /// The announcement to Home Assistant is sent and not acknowledged.
    pub announcing: bool,
    /// Connections in a row that ended before the broker acknowledged the announcement to Home Assistant.
    pub failed_announcements: u32,
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
    /// Reads the files again, if they may have changed. Returns whether they have.
    pub fn reload_if_told(&mut self) -> bool {
        let told = std::mem::take(&mut self.outbox.state().reload);
        told && self.reload()
    }

    /// Reads the files again. Returns whether they have changed.
    pub fn reload(&mut self) -> bool {
        self.settings.reload().unwrap_or_else(|why| {
            warn!("{}: {why}; the old files stay in use", self.settings.address);
            false
        })
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
