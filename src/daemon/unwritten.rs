//! Estimates that outputs have not written yet. The end of affectd counts those of outputs that it leaves behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::fusion::Estimate;

/// The counters of all outputs.
#[derive(Debug, Clone, Default)]
pub struct UnwrittenEstimates(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    unwritten: Unwritten,
    thread: Weak<()>,
}

/// The counter of one output.
#[derive(Debug, Clone, Default)]
pub struct Unwritten(Arc<AtomicU64>);

/// The thread of an output runs until this is dropped.
#[derive(Debug)]
pub struct RunningOutput {
    _running: Arc<()>,
}

/// An estimate on its way to an output. It counts as unwritten until this is dropped.
#[derive(Debug)]
pub struct PendingEstimate {
    pub estimate: Arc<Estimate>,
    unwritten: Unwritten,
}

impl UnwrittenEstimates {
    /// Adds the counter of an output whose thread will start.
    pub fn add(&self) -> (Unwritten, RunningOutput) {
        let (unwritten, running) = (Unwritten::default(), Arc::new(()));
        let mut entries = self.entries();
        entries.retain(|entry| entry.thread.strong_count() > 0);
        entries.push(Entry {
            unwritten: unwritten.clone(),
            thread: Arc::downgrade(&running),
        });
        (unwritten, RunningOutput { _running: running })
    }

    /// The number in the outputs whose threads have not ended, including those that their threads write at this moment.
    pub fn of_running(&self) -> u64 {
        let entries = self.entries();
        let running = entries.iter().filter(|entry| entry.thread.strong_count() > 0);
        running.map(|entry| entry.unwritten.0.load(Ordering::Relaxed)).sum()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unwritten {
    pub fn add(&self, estimate: &Arc<Estimate>) -> PendingEstimate {
        self.0.fetch_add(1, Ordering::Relaxed);
        PendingEstimate {
            estimate: Arc::clone(estimate),
            unwritten: self.clone(),
        }
    }
}

impl Drop for PendingEstimate {
    fn drop(&mut self) {
        self.unwritten.0.fetch_sub(1, Ordering::Relaxed);
    }
}
