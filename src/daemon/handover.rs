//! How an output ends, and what it leaves to its successor in the same place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::output::Backlog;

/// Why the queue of an output ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueEnd {
    #[default]
    EndOfRun,
    /// A reload has removed the output.
    Removed,
    /// A reload opens another output in the same place.
    Replaced,
}

/// Shared between the thread of an output, that of its successor, and the reload.
#[derive(Debug, Clone, Default)]
pub struct Handover(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    end: QueueEnd,
    backlog: Backlog,
}

impl Handover {
    /// Tells the output why its queue will end. Called before the end.
    pub fn announce(&self, end: QueueEnd) {
        self.state().end = end;
    }

    pub fn end(&self) -> QueueEnd {
        self.state().end
    }

    /// Leaves estimates to the successor.
    pub fn leave(&self, backlog: Backlog) {
        self.state().backlog = backlog;
    }

    /// Takes what was left.
    pub fn take(&self) -> Backlog {
        std::mem::take(&mut self.state().backlog)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
