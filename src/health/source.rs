//! The state and the faults of each source. The capture threads write them, and the health record reads them.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

/// Faults of a camera that capture recovered from, counted since affectd started.
#[derive(Debug, Default, Clone)]
pub struct CameraCounters {
    /// Buffers whose content differs from what the driver announced.
    pub malformed: Arc<AtomicU64>,
    /// Frames that the driver dropped because it had no free buffer, counted by the gaps in its sequence numbers.
    pub missed: Arc<AtomicU64>,
    /// Frames that were ready but not the newest.
    pub skipped: Arc<AtomicU64>,
}

/// Faults of a microphone that capture recovered from, counted since affectd started.
#[derive(Debug, Default, Clone)]
pub struct MicrophoneCounters {
    /// Overruns: the device's buffer was full before it was read.
    pub xruns: Arc<AtomicU64>,
}

/// The state of a device or clip.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Being opened; nothing captured yet.
    Starting,
    Running,
    /// Open, but delivers nothing.
    Stalled,
    /// Not connected, or cannot be opened for now.
    Absent,
    /// Closed on request.
    Paused,
    /// Not configured, or a clip that has ended.
    #[default]
    Off,
}

impl SourceState {
    pub const ALL: [SourceState; 6] = [
        SourceState::Starting,
        SourceState::Running,
        SourceState::Stalled,
        SourceState::Absent,
        SourceState::Paused,
        SourceState::Off,
    ];
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceState::Starting => "starting",
            SourceState::Running => "running",
            SourceState::Stalled => "stalled",
            SourceState::Absent => "absent",
            SourceState::Paused => "paused",
            SourceState::Off => "off",
        })
    }
}

/// The current state of one source, and the reason if it does not run.
#[derive(Debug, Default)]
pub struct SourceHealth(Mutex<(SourceState, Option<String>)>);

impl SourceHealth {
    fn lock(&self) -> MutexGuard<'_, (SourceState, Option<String>)> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn get(&self) -> SourceState {
        self.lock().0
    }

    /// Why the source does not run; `None` while it does.
    pub fn problem(&self) -> Option<String> {
        self.lock().1.clone()
    }

    pub fn set(&self, state: SourceState, problem: Option<String>) {
        *self.lock() = (state, problem);
    }
}
