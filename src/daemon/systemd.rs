//! Notifications to systemd: ready, reloading, stopping, a status line, and the watchdog. Without systemd they do nothing.

use std::time::{Duration, Instant};

use log::warn;
use sd_notify::NotifyState;

/// The service manager.
pub struct Systemd {
    /// systemd restarts the service if the watchdog is not fed for this long; `None` without a watchdog.
    watchdog_timeout: Option<Duration>,
    fed: Option<Instant>,
    status: String,
}

impl Systemd {
    /// Reads the variables that systemd sets for a service.
    pub fn from_environment() -> Systemd {
        Systemd {
            watchdog_timeout: sd_notify::watchdog_enabled(),
            fed: None,
            status: String::new(),
        }
    }

    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => warn!("systemd: cannot read the clock ({error})"),
        }
    }

    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// Sets the line that `systemctl status` shows.
    pub fn status(&mut self, line: String) {
        if line != self.status {
            notify(&[NotifyState::Status(&line)]);
            self.status = line;
        }
    }

    /// Feeds the watchdog, at most four times per timeout.
    pub fn feed_watchdog(&mut self, now: Instant) {
        let Some(timeout) = self.watchdog_timeout else { return };
        if self.fed.is_none_or(|fed| now.duration_since(fed) >= timeout / 4) {
            self.fed = Some(now);
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd: cannot be notified ({error})");
    }
}
