//! The thread of one output.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;
use log::{info, warn};

use crate::health::{HealthReport, Latency};
use crate::output::{Output, OutputContext, OutputError, OutputSpec};
use crate::queue::QueueReceiver;

use super::handover::{Handover, QueueEnd};
use super::thread_group::ThreadGroup;
use super::unwritten::PendingEstimate;

/// One item in the queue of an output.
#[derive(Debug)]
pub enum OutputItem {
    Estimate(PendingEstimate),
    Health(Arc<HealthReport>),
    /// Wakes the output, which then looks at its [`ReloadRequest`].
    Wake,
}

impl OutputItem {
    pub fn is_estimate(&self) -> bool {
        matches!(self, OutputItem::Estimate(_))
    }
}

/// The configuration was reloaded, and the files that it names may have changed. Beside the queue, because a full queue drops items.
#[derive(Debug, Clone, Default)]
pub struct ReloadRequest(Arc<AtomicBool>);

impl ReloadRequest {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What the thread of an output receives.
pub struct OutputInput {
    pub items: QueueReceiver<OutputItem>,
    pub reload: ReloadRequest,
}

/// An output that is open, and whose thread has not started yet.
pub struct OpenOutput {
    pub spec: OutputSpec,
    pub output: Box<dyn Output>,
}

impl OpenOutput {
    pub fn open(spec: &OutputSpec, context: &OutputContext) -> Result<OpenOutput, OutputError> {
        Ok(OpenOutput {
            spec: spec.clone(),
            output: spec.open(context)?,
        })
    }

    /// The work of the thread: writes until the queue ends, the reader is gone, or the output fails. A failure does not stop
    /// the other outputs; it is recorded for the end. If this was the last output, nothing has to be estimated any more, so
    /// all threads stop. `running` counts the output threads.
    pub fn run(
        mut self,
        input: &OutputInput,
        latency: &Latency,
        running: &AtomicUsize,
        threads: &ThreadGroup<'_>,
        handover: &Handover,
    ) {
        let written = write_all(&mut *self.output, input, latency);
        let others = running.fetch_sub(1, Ordering::Relaxed) - 1;
        let failed = match written {
            // A reload or the end of affectd has closed the queue. The other outputs decide what follows.
            Ok(()) => return self.end(threads, handover),
            Err(error) => error,
        };
        if others > 0
            && let OutputError::Failed(why) = &failed
        {
            warn!("{why}; the other outputs continue");
        }
        self.report(failed, threads);
        if others == 0 {
            threads.stop();
        }
    }

    fn end(&mut self, threads: &ThreadGroup<'_>, handover: &Handover) {
        let ended = match handover.end() {
            QueueEnd::EndOfRun | QueueEnd::Removed => self.output.finish(),
            QueueEnd::Replaced => self.output.hand_over().map(|backlog| handover.leave(backlog)),
        };
        match ended {
            Ok(()) => {}
            // Said now: the end of affectd may be far, and is not the fault of this output.
            Err(OutputError::Failed(why)) if handover.end() == QueueEnd::Removed => warn!("{why}"),
            Err(error) => self.report(error, threads),
        }
    }

    fn report(&self, error: OutputError, threads: &ThreadGroup<'_>) {
        match error {
            OutputError::ReaderGone => info!("{}: the reader is gone", self.spec),
            error @ OutputError::Failed(_) => threads.record_failure(error.into()),
        }
    }
}

/// Writes until the queue ends.
fn write_all(output: &mut dyn Output, input: &OutputInput, latency: &Latency) -> Result<(), OutputError> {
    loop {
        let item = match output.poll_interval() {
            None => input.items.recv().map_err(RecvTimeoutError::from),
            Some(interval) => input.items.recv_timeout(interval),
        };
        if input.reload.take() {
            output.reload();
        }
        match item {
            Ok(OutputItem::Estimate(pending)) => {
                output.write(&pending.estimate)?;
                if let Some(elapsed) = pending.estimate.latency(Instant::now()) {
                    latency.record(elapsed);
                }
            }
            Ok(OutputItem::Health(report)) => output.health(&report)?,
            Ok(OutputItem::Wake) => {}
            Err(RecvTimeoutError::Timeout) => output.poll()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
