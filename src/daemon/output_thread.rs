//! The thread of one output.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;
use log::{info, warn};

use crate::fusion::Estimate;
use crate::health::{HealthReport, Latency};
use crate::output::{Output, OutputContext, OutputError, OutputSpec};
use crate::queue::QueueReceiver;

use super::thread_group::ThreadGroup;

/// One item in the queue of an output.
#[derive(Debug, Clone)]
pub enum OutputItem {
    Estimate(Arc<Estimate>),
    Health(HealthReport),
    /// The configuration was reloaded, and the files that it names may have changed.
    Reload,
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
    /// the other outputs; it is recorded for the end. `running` counts the output threads.
    pub fn run(
        mut self,
        items: &QueueReceiver<OutputItem>,
        latency: &Latency,
        running: &AtomicUsize,
        threads: &ThreadGroup<'_>,
    ) {
        let result = write_all(&mut *self.output, items, latency);
        let others = running.fetch_sub(1, Ordering::Relaxed) - 1;
        match result {
            Ok(()) => {}
            Err(OutputError::ReaderGone) => info!("{}: the reader is gone", self.spec),
            Err(error @ OutputError::Failed(_)) => {
                if others > 0 {
                    warn!("{error}; the other outputs continue");
                }
                threads.record_failure(error.into());
            }
        }
    }
}

fn write_all(output: &mut dyn Output, items: &QueueReceiver<OutputItem>, latency: &Latency) -> Result<(), OutputError> {
    loop {
        let item = match output.poll_interval() {
            None => items.recv().map_err(RecvTimeoutError::from),
            Some(interval) => items.recv_timeout(interval),
        };
        match item {
            Ok(OutputItem::Estimate(estimate)) => {
                output.write(&estimate)?;
                if let Some(elapsed) = estimate.latency(Instant::now()) {
                    latency.record(elapsed);
                }
            }
            Ok(OutputItem::Health(report)) => output.health(&report)?,
            Ok(OutputItem::Reload) => output.reload(),
            Err(RecvTimeoutError::Timeout) => output.poll()?,
            Err(RecvTimeoutError::Disconnected) => return output.finish(),
        }
    }
}
