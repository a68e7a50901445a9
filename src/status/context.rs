//! What the status page shows of the daemon, and how it reaches it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::feed::StatusFeed;
use crate::control::Control;
use crate::face::FramePreview;
use crate::health::{Health, LiveHealth};
use crate::output::HostIdentity;
use crate::privacy::PauseSwitch;

/// What the page gets from the daemon.
#[derive(Clone)]
pub struct StatusContext {
    pub feed: StatusFeed,
    pub controls: Sender<Control>,
    pub health: Arc<Health>,
    pub live_health: LiveHealth,
    pub pause: Arc<PauseSwitch>,
    pub host: Arc<HostIdentity>,
    pub outputs: OutputProbe,
    pub model: ModelName,
    /// What the camera sees. Used only if the settings allow it.
    pub image: Arc<FramePreview>,
    /// The time between two estimates.
    pub period: Duration,
}

/// Looks at the outputs. `None` if their list is in use at this moment.
pub type OutputProbe = Arc<dyn Fn() -> Option<Vec<OutputState>> + Send + Sync>;

/// One output.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct OutputState {
    /// Its spec, without passwords.
    pub spec: String,
    /// Estimates and reports that wait in its queue.
    pub queued: usize,
    pub capacity: usize,
    /// False once it has failed or its reader is gone.
    pub running: bool,
}

/// The name and version of the models, which a reload may replace.
#[derive(Debug, Clone, Default)]
pub struct ModelName(Arc<Mutex<String>>);

impl ModelName {
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, name: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}
