//! Where estimates go.
//!
//! Every [`Output`] runs on a thread of its own behind a bounded queue, so that one that is slow or gone holds up
//! nothing else.

pub mod estimate;
pub mod stdout;
pub mod wall_clock;

use std::fmt;
use std::str::FromStr;

use crate::daemon::health::HealthReport;
use crate::fusion::Estimate;

/// A place estimates are written to.
pub trait Output: Send {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError>;

    /// Takes in the newest health record, to pass on or to answer with; not every output carries it.
    fn health(&mut self, _report: &HealthReport) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Why an output stopped.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read it has gone, as `head` does when it has seen enough: an end, not a fault.
    #[error("the reader has gone")]
    ReaderGone,
    #[error("{0}")]
    Failed(String),
}

/// What `--output` and `output = […]` name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputSpec {
    Stdout,
}

impl OutputSpec {
    pub fn open(self) -> Box<dyn Output> {
        match self {
            OutputSpec::Stdout => Box::new(stdout::Stdout::default()),
        }
    }
}

impl fmt::Display for OutputSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputSpec::Stdout => f.write_str("stdout"),
        }
    }
}

impl FromStr for OutputSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        match spec {
            "stdout" => Ok(OutputSpec::Stdout),
            other => Err(format!(
                "\"{other}\" is not an output: this version writes to \"stdout\""
            )),
        }
    }
}
