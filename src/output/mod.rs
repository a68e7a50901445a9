//! Where estimates go.
//!
//! [`spec`] reads what the user named; each kind of [`Output`] has its module. Every one runs on a thread of its own behind
//! a bounded queue, so that one that is slow or gone holds up nothing else.

pub mod csv;
pub mod estimate;
pub mod file;

pub mod lines;
pub mod mqtt;
pub mod serial;
pub mod spec;
pub mod stdout;
pub mod wall_clock;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::control::Control;
use crate::fusion::Estimate;
use crate::health::HealthReport;
use crate::queue::WhenFull;

pub use spec::OutputSpec;

/// A place estimates are written to. Its methods are called on its own thread and by nobody else.
pub trait Output: Send {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError>;

    /// Takes in the newest health record, to pass on or to answer with; not every output carries it.
    fn health(&mut self, _report: &HealthReport) -> Result<(), OutputError> {
        Ok(())
    }

    /// How long nothing may come before [`Output::poll`] is called; `None` if there is nothing to tend.
    fn poll_interval(&self) -> Option<Duration> {
        None
    }

    /// What is to be done beside writing: reopen what went away, answer who asks.
    fn poll(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    /// Nothing more comes: write what still waits, say goodbye.
    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Why an output cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has gone, as `head` does when it has seen enough: an end, not a fault.
    #[error("the reader has gone")]
    ReaderGone,
    /// One line: the thing, the reason, the mend.
    #[error("{0}")]
    Failed(String),
}

/// What an output is told of the daemon it serves.
#[derive(Debug, Clone)]
pub struct Service {
    /// From one estimate to the next, on the source's clock.
    pub period: Duration,
    /// Whether a replay waits for a slow output, or estimates are lost on it.
    pub when_full: WhenFull,
    /// To the `fusion` thread, for readers that may ask for something.
    pub controls: Sender<Control>,
    /// Estimates an output had to drop.
    pub dropped: Arc<AtomicU64>,
    /// Times an output lost what it writes to, or did not find it.
    pub lost: Arc<AtomicU64>,
}
