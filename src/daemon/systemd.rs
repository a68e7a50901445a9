//! What systemd is told, if it started us and wants to know: ready, reloading, stopping, and that the pipeline moves.
//!
//! Whatever else starts affectd hears nothing, and misses nothing.

use std::time::{Duration, Instant};

use log::warn;
use sd_notify::NotifyState;

/// The service manager, if there is one.
pub struct Systemd {
    /// How long it waits for a sign of life before it kills us; `None` where it does not.
    patience: Option<Duration>,
    fed: Option<Instant>,
    status: String,
}

impl Systemd {
    pub fn from_environment() -> Systemd {
        Systemd {
            patience: sd_notify::watchdog_enabled(),
            fed: None,
            status: String::new(),
        }
    }

    /// Estimates come.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => warn!("systemd: the clock cannot be read ({error})"),
        }
    }

    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&mut self, line: String) {
        if line != self.status {
            tell(&[NotifyState::Status(&line)]);
            self.status = line;
        }
    }

    /// A sign of life, four times as often as is needed.
    pub fn feed(&mut self, now: Instant) {
        let Some(patience) = self.patience else { return };
        if self.fed.is_none_or(|fed| now.duration_since(fed) >= patience / 4) {
            self.fed = Some(now);
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(news: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(news) {
        warn!("systemd: cannot be told ({error})");
    }
}
