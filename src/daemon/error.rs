//! Why the daemon failed. `main` maps each variant to an exit code.

use crate::capture::CaptureError;
use crate::model::ModelError;
use crate::named_thread::ThreadRefused;
use crate::output::OutputError;
use crate::privacy::{ButtonError, LightError};
use crate::status::StatusError;

/// Each text is one line: the thing, the reason, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A camera, microphone or clip cannot be used.
    #[error(transparent)]
    Source(#[from] CaptureError),
    /// The light that shows that a device is open cannot be switched.
    #[error(transparent)]
    Light(#[from] LightError),
    #[error(transparent)]
    Button(#[from] ButtonError),
    /// The models cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An output cannot start, or failed later.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The status page cannot be served.
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(transparent)]
    Thread(#[from] ThreadRefused),
    /// A bug in affectd.
    #[error("{0}: this is a bug in affectd: please report it as an issue in affectd's repository, with the log above")]
    Internal(String),
}
