//! Named threads that stop together: when one fails, the others are told to stop.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::error::DaemonError;
use crate::named_thread;

/// Signals that a thread has ended, even by a panic: its channel is then closed.
pub struct ExitSignal(Receiver<Infallible>);

impl ExitSignal {
    /// Whether the thread has ended.
    pub fn has_come(&self) -> bool {
        self.wait_timeout(Duration::ZERO)
    }

    /// Waits for at most `timeout`; returns whether the thread has ended.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        matches!(self.0.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected))
    }
}

/// Started threads, and the first failure among them.
pub struct ThreadGroup<'a> {
    stop: &'a AtomicBool,
    failure: Mutex<Option<DaemonError>>,
    /// The names of the threads that have not ended.
    running: Mutex<Vec<String>>,
    /// Notified when a thread ends.
    ended: Condvar,
}

impl<'a> ThreadGroup<'a> {
    /// Sets `stop` when a thread fails. The threads check it between two items of work.
    pub fn new(stop: &'a AtomicBool) -> ThreadGroup<'a> {
        ThreadGroup {
            stop,
            failure: Mutex::new(None),
            running: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Starts a thread. If it panics, that is an internal error. If the system refuses the thread, that is a failure of the
    /// group, and the signal is that of a thread that has ended.
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
                Err(DaemonError::Internal(format!("the {label} thread panicked ({reason})")))
            });
            if let Err(error) = result {
                self.fail(error);
            }
            self.remove(&label);
        };
        self.running().push(name.to_owned());
        if let Err(error) = named_thread::spawn_scoped(scope, name, guarded) {
            self.remove(name);
            self.fail(error.into());
        }
        ExitSignal(ended)
    }

    fn running(&self) -> MutexGuard<'_, Vec<String>> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn remove(&self, name: &str) {
        let mut running = self.running();
        if let Some(at) = running.iter().position(|other| other == name) {
            running.remove(at);
        }
        self.ended.notify_all();
    }

    /// Waits for at most `timeout`; returns the names of the threads that have not ended.
    pub fn wait_timeout(&self, timeout: Duration) -> Vec<String> {
        let waited = self
            .ended
            .wait_timeout_while(self.running(), timeout, |running| !running.is_empty());
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.clone()
    }

    /// Records a failure and tells all threads to stop.
    fn fail(&self, error: DaemonError) {
        self.record_failure(error);
        self.stop();
    }

    /// Tells all threads to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the threads are told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Records a failure that affectd reports when it ends. The threads keep running. Only the first failure counts, because
    /// later ones are often its consequences.
    pub fn record_failure(&self, error: DaemonError) {
        let mut first = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert(error);
    }

    /// The first failure. Call it once, when affectd ends.
    pub fn result(&self) -> Result<(), DaemonError> {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.take().map_or(Ok(()), Err)
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
    fn a_panic_stops_the_other_threads_and_is_an_internal_error() {
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
        let error = threads.result().unwrap_err();
        assert!(matches!(&error, DaemonError::Internal(why) if why == "the face thread panicked (out of range)"));
    }
}
