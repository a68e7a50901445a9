//! Why a command failed: the errors of each layer. `main` chooses the exit code.

use std::io;

use super::health::HealthError;
use super::record::RecordError;
use crate::capture::CaptureError;
use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::model::{ModelError, UnknownKernel};
use crate::monitor::MonitorError;
use crate::named_thread::ThreadRefused;
use crate::output::OutputError;
use crate::status::StatusError;

/// Each text is one line: the thing, the reason, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A camera, microphone or clip cannot be used.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Kernel(#[from] UnknownKernel),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    NotAnswered(#[from] HealthError),
    #[error("affectd has a problem: {0}")]
    Problem(String),
    #[error("no output is an MQTT broker: add --output mqtt://broker")]
    NoBroker,
    #[error("--watch shows a camera and a microphone, and the configuration names a clip: remove input.clip")]
    WatchedClip,
    #[error(transparent)]
    Thread(#[from] ThreadRefused),
    /// The result of a command cannot be written.
    #[error("standard output: cannot be written ({0}): free some space, or write to another place")]
    NotPrinted(io::Error),
    /// A signal handler cannot be installed.
    #[error(
        "signals cannot be caught ({0}): this is a bug in affectd: please report it as an issue in affectd's repository"
    )]
    Signal(io::Error),
    #[error(
        "panicked ({0}): this is a bug in affectd: please report it as an issue in affectd's repository, with the log above"
    )]
    Panicked(String),
    #[error("affectd cannot start itself again ({0}): start it with the same command")]
    NotRestarted(io::Error),
}
