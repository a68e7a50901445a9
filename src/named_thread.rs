//! Starts threads. The system can refuse one, for example at a limit on processes.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// The system refuses a thread.
#[derive(Debug, thiserror::Error)]
#[error(
    "the {name} thread cannot be started ({error}): raise the limit on processes and memory (ulimit -u, ulimit -v, TasksMax= \
     and MemoryMax= of the service), or end other programs"
)]
pub struct ThreadRefused {
    name: String,
    error: io::Error,
}

/// Starts a thread that ends with the process.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ThreadRefused> {
    Builder::new().name(name.into()).spawn(work).map_err(refused(name))
}

/// Starts a thread of `scope`.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, ThreadRefused> {
    Builder::new()
        .name(name.into())
        .spawn_scoped(scope, work)
        .map_err(refused(name))
}

fn refused(name: &str) -> impl FnOnce(io::Error) -> ThreadRefused {
    let name = name.to_owned();
    |error| ThreadRefused { name, error }
}
