//! The queues of affectd, under the same paths as there, and stand-ins for what they carry.

#[path = "../../../src/queue.rs"]
pub mod queue;

pub mod sync {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
    pub use loom::sync::{Mutex, MutexGuard};
    // loom's has no weak references.
    pub use std::sync::{Arc, Weak};
}

pub mod fusion {
    #[derive(Debug)]
    pub struct Estimate {
        pub seq: u64,
    }
}

pub mod health {
    #[derive(Debug, Clone)]
    pub struct HealthReport;
}

pub mod output {
    #[derive(Debug, Clone, PartialEq)]
    pub struct OutputSpec(pub &'static str);
}

pub mod daemon;
