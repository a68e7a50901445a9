//! The queues to all outputs.

use crate::fusion::Estimate;
use crate::health::HealthReport;
use crate::output::OutputSpec;
use crate::queue::{Disconnected, QueueSender};
use crate::status::{OutputProbe, OutputState, StatusFeed};
use crate::sync::{Arc, Mutex, MutexGuard};

use super::handover::Handover;
use super::output_thread::{OutputItem, ReloadRequest};
use super::thread_group::ExitSignal;
use super::unwritten::Unwritten;

/// The queues to all running outputs, shared between threads.
#[derive(Clone, Default)]
pub struct OutputSenders {
    list: Arc<Mutex<Vec<OutputSender>>>,
    /// The status page. It is not one of the outputs: affectd ends without it, and never waits for it.
    pub page: StatusFeed,
}

/// The queue to one output, and the exit of its thread.
pub struct OutputSender {
    pub spec: OutputSpec,
    pub queue: QueueSender<OutputItem>,
    pub reload: ReloadRequest,
    pub exit: ExitSignal,
    pub handover: Handover,
    pub unwritten: Unwritten,
}

impl OutputSender {
    fn state(&self) -> OutputState {
        OutputState {
            spec: self.spec.to_string(),
            queued: self.queue.len(),
            capacity: self.queue.capacity(),
            running: !self.exit.has_come(),
        }
    }
}

impl OutputSenders {
    /// Fails if all outputs have ended.
    pub fn send_estimate(&self, estimate: Estimate) -> Result<(), Disconnected> {
        let estimate = Arc::new(estimate);
        self.page.send(&estimate);
        self.send(|sender| OutputItem::Estimate(sender.unwritten.add(&estimate)))
    }

    /// Fails if all outputs have ended.
    pub fn send_health(&self, report: HealthReport) -> Result<(), Disconnected> {
        let report = Arc::new(report);
        self.send(|_| OutputItem::Health(Arc::clone(&report)))
    }

    /// Tells all outputs that the files which their specs name may have changed.
    pub fn send_reload(&self) {
        let senders = self.lock();
        senders.iter().for_each(|sender| sender.reload.set());
        // An output that has ended has nothing to reload.
        let _ = OutputSenders::send_to(&senders, |_| OutputItem::Wake);
    }

    fn send(&self, item_for: impl Fn(&OutputSender) -> OutputItem) -> Result<(), Disconnected> {
        OutputSenders::send_to(&self.lock(), item_for)
    }

    fn send_to(senders: &[OutputSender], item_for: impl Fn(&OutputSender) -> OutputItem) -> Result<(), Disconnected> {
        // Before the first is sent, which may wait for ever: the items for the others count as unwritten, too.
        let items: Vec<OutputItem> = senders.iter().map(item_for).collect();
        let sending = senders.iter().zip(items);
        let sent = sending.filter_map(|(sender, item)| sender.queue.send(item).ok());
        // The list is empty only while a reload replaces the outputs.
        match sent.count() {
            0 if !senders.is_empty() => Err(Disconnected),
            _ => Ok(()),
        }
    }

    /// While the list is locked, senders wait: lock it only for as long as it takes to change the list.
    pub fn lock(&self) -> MutexGuard<'_, Vec<OutputSender>> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Looks at the outputs. It keeps none of them running, and never waits for them.
    pub fn probe(&self) -> OutputProbe {
        let list = Arc::downgrade(&self.list);
        std::sync::Arc::new(move || {
            let list = list.upgrade()?;
            let senders = list.try_lock().ok()?;
            Some(senders.iter().map(OutputSender::state).collect())
        })
    }
}
