//! The interface between outputs and the daemon that runs them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::control::Control;
use crate::fusion::Estimate;
use crate::health::{HealthReport, LiveHealth};
use crate::privacy::PauseSwitch;
use crate::queue::WhenFull;

/// A destination for estimates. All methods are called on the output's own thread.
pub trait Output: Send {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError>;

    /// Receives the newest health report. Outputs that do not publish it ignore it.
    fn health(&mut self, _report: &HealthReport) -> Result<(), OutputError> {
        Ok(())
    }

    /// The files that the output's spec names, such as certificates, may have changed.
    fn reload(&mut self) {}

    /// After how long without an item [`Output::poll`] is called; `None` if the output never needs it.
    fn poll_interval(&self) -> Option<Duration> {
        None
    }

    /// Does the work besides writing: reopens a lost port, answers commands.
    fn poll(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    /// Called once after the last item: writes what is still queued and closes the output in order.
    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    /// Called instead of [`Output::finish`] if another output takes over the same place: returns what is still queued.
    fn hand_over(&mut self) -> Result<Backlog, OutputError> {
        self.finish().map(|()| Backlog::default())
    }

    /// Called before the first item: takes what its predecessor in the same place could not deliver.
    fn take_over(&mut self, _backlog: Backlog) {}
}

/// Estimates that an output could not deliver yet, oldest first.
#[derive(Debug, Default)]
pub struct Backlog(pub Vec<QueuedEstimate>);

/// An estimate, encoded when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedEstimate {
    /// Time on the source's clock.
    pub at: Duration,
    pub json: Vec<u8>,
}

/// Why an output cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader closed its end, as `head` does after its last line. This is an end, not a fault.
    #[error("the reader closed the output")]
    ReaderGone,
    /// One line for the user: the thing, the reason, the remedy.
    #[error("{0}")]
    Failed(String),
}

/// What an output gets from the daemon when it is opened.
#[derive(Debug, Clone)]
pub struct OutputContext {
    /// Time between two estimates, on the source's clock.
    pub period: Duration,
    /// Whether a replay waits for a slow output, or drops estimates.
    pub when_full: WhenFull,
    /// Requests from readers, for the `fusion` thread.
    pub controls: Sender<Control>,
    /// Counts the estimates that outputs dropped.
    pub dropped: Arc<AtomicU64>,
    /// Counts how often an output lost its port, file or broker, or did not find it.
    pub lost: Arc<AtomicU64>,
    /// Answers requests for a health report.
    pub health: LiveHealth,
    /// Closes and opens the devices.
    pub pause: Arc<PauseSwitch>,
    pub host: Arc<HostIdentity>,
}

/// The identity of this machine. `main` reads it and passes it to the other modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostIdentity {
    /// The host name; empty if unknown. It is the default device name of an MQTT output.
    pub host_name: String,
    /// The content of `/etc/machine-id`, if there is one.
    pub machine_id: Option<String>,
    /// The board's serial number, if the firmware tells it. Boards with copies of one SD card differ in it alone.
    pub board_serial: Option<String>,
    /// The folder of this service's systemd credentials.
    pub credentials_directory: Option<PathBuf>,
    /// The absolute path of the configuration file, if there is one. It tells two services on one machine apart.
    pub configuration: Option<PathBuf>,
}

impl HostIdentity {
    /// What tells this machine apart from others; `None` if nothing does.
    pub fn machine(&self) -> Option<String> {
        let parts: Vec<&str> = [&self.machine_id, &self.board_serial]
            .into_iter()
            .filter_map(|part| part.as_deref())
            .collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }
}
