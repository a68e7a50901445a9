//! What the daemon asks of its caller.

use std::time::Duration;

use crate::config::{Config, ConfigError};

/// What affectd asks of its caller while it runs.
pub struct Callbacks<'a> {
    /// Reads the configuration again when a reload is requested.
    pub read_config: &'a dyn Fn() -> Result<Config, ConfigError>,
    /// Called about four times a second while a clip is replayed.
    pub show_progress: &'a dyn Fn(ReplayProgress),
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplayProgress {
    /// On the clock of the clip.
    pub position: Duration,
    /// 0 to 1; `None` if the length of the clip is not known.
    pub fraction: Option<f64>,
}
