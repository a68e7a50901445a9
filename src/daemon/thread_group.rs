//! The threads as a threads: each has a name, and when one fails the others are told to stop.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::DaemonError;

/// Tells when a thread has ended, with whatever outcome: then the channel is closed.
pub struct ExitSignal(Receiver<Never>);

/// What no channel can carry.
enum Never {}

impl ExitSignal {
    pub fn wait(&self) {
        let _ = self.0.recv();
    }

    /// Waits for at most `patience`; whether it has ended.
    pub fn wait_for(&self, patience: Duration) -> bool {
        matches!(self.0.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
    }
}

/// Started threads, and the first failure among them.
pub struct ThreadGroup<'a> {
    stop: &'a AtomicBool,
    failure: Mutex<Option<DaemonError>>,
}

impl<'a> ThreadGroup<'a> {
    /// `stop` is set when a member fails; members look at it between two items of work.
    pub fn new(stop: &'a AtomicBool) -> ThreadGroup<'a> {
        ThreadGroup {
            stop,
            failure: Mutex::new(None),
        }
    }

    /// Starts a thread. Its panic counts as a failure of ours.
    pub fn start<'scope, 'env>(
        &'scope self,
        scope: &'scope Scope<'scope, 'env>,
        name: &str,
        work: impl FnOnce() -> Result<(), DaemonError> + Send + 'scope,
    ) -> ExitSignal {
        let label = name.to_string();
        let (alive, ended) = bounded(0);
        let guarded = move || {
            let _alive = alive;
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                let reason = panic_text(panic.as_ref());
                Err(DaemonError::Internal(format!("the {label} thread stopped ({reason})")))
            });
            if let Err(failure) = result {
                self.note(failure);
            }
        };
        if let Err(e) = Builder::new().name(name.to_string()).spawn_scoped(scope, guarded) {
            self.note(DaemonError::Internal(format!("the {name} thread cannot start ({e})")));
        }
        ExitSignal(ended)
    }

    /// Everybody stops.
    fn note(&self, failure: DaemonError) {
        self.stop.store(true, Ordering::Relaxed);
        self.remember(failure);
    }

    /// The others go on, and this is told at the end. The first failure is the cause, what follows its consequence.
    pub fn remember(&self, failure: DaemonError) {
        let mut first = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert(failure);
    }

    /// The first failure, once all threads have ended.
    pub fn outcome(self) -> Result<(), DaemonError> {
        let failure = self
            .failure
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.map_or(Ok(()), Err)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_stops_the_others_and_is_an_internal_failure() {
        let stop = AtomicBool::new(false);
        let threads = ThreadGroup::new(&stop);
        std::thread::scope(|scope| {
            threads.start(scope, "face", || panic!("out of range"));
            threads.start(scope, "camera", || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                Ok(())
            });
        });
        let failure = threads.outcome().unwrap_err();
        assert!(matches!(&failure, DaemonError::Internal(why) if why == "the face thread stopped (out of range)"));
    }
}
