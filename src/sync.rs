//! The primitives of the queues between threads, in one place: the models in `.ci/threads` have those of loom here.

pub use std::sync::atomic::{AtomicU64, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard, Weak};
