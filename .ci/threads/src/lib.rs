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
    use std::fmt;

    #[derive(Debug, Clone, PartialEq)]
    pub struct OutputSpec(pub &'static str);

    impl fmt::Display for OutputSpec {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
}

/// The status page, which nobody has opened.
pub mod status {
    use std::sync::Arc;

    use crate::fusion::Estimate;

    pub type OutputProbe = Arc<dyn Fn() -> Option<Vec<OutputState>> + Send + Sync>;

    pub struct OutputState {
        pub spec: String,
        pub queued: usize,
        pub capacity: usize,
        pub running: bool,
    }

    #[derive(Clone, Default)]
    pub struct StatusFeed;

    impl StatusFeed {
        pub fn send(&self, _: &Arc<Estimate>) {}
    }
}

pub mod daemon;
