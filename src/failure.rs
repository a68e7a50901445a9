//! Why affectd ends, other than by having done its work, and the exit code that tells a script.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::model::ModelError;
use crate::monitor::MonitorError;

/// Each variant is one exit code; each text is one line that names the thing, the reason and the mend.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A camera, microphone or clip that cannot be used.
    #[error("{0}")]
    Source(String),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{0}")]
    Output(String),
    /// A mistake of ours.
    #[error("{0}: this is a bug in affectd, please report it with the log above")]
    Internal(String),
}

impl From<MonitorError> for Failure {
    fn from(error: MonitorError) -> Failure {
        match error {
            MonitorError::Source(error) => Failure::Output(error),
            MonitorError::Display(error) => Failure::Output(error),
            MonitorError::Internal(reason) => Failure::Internal(reason),
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Failure {
        match error {
            DaemonError::Source(error) => Failure::Source(error.to_string()),
            DaemonError::Model(error) => Failure::Model(error),
            DaemonError::Output(error) => Failure::Output(error.to_string()),
            DaemonError::Internal(reason) => Failure::Internal(reason),
        }
    }
}

impl Failure {
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Config(ConfigError::Output { .. }) => 5,
            Failure::Config(_) => 2,
            Failure::Source(_) => 3,
            Failure::Model(_) => 4,
            Failure::Output(_) => 5,
            Failure::Internal(_) => 70,
        })
    }
}
