//! Why the monitor failed.

use crate::named_thread::ThreadRefused;

/// Each text is one line: the thing, the reason, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The source is not valid.
    #[error("{0}")]
    InvalidSource(String),
    /// The source cannot be read.
    #[error("{0}")]
    Source(String),
    /// The terminal, standard output or the plot cannot be written.
    #[error("{0}")]
    Display(String),
    /// A bug in affectd.
    #[error("{0}: this is a bug in affectd: please report it as an issue in affectd's repository")]
    Internal(String),
    #[error(transparent)]
    Thread(#[from] ThreadRefused),
}
