//! The queues to all outputs.

#[path = "../../../src/daemon/output_senders.rs"]
pub mod output_senders;

#[path = "../../../src/daemon/unwritten.rs"]
pub mod unwritten;

pub mod output_thread {
    use crate::sync::Arc;

    use super::unwritten::PendingEstimate;
    use crate::health::HealthReport;

    #[derive(Debug)]
    pub enum OutputItem {
        Estimate(PendingEstimate),
        Health(Arc<HealthReport>),
        Wake,
    }

    #[derive(Debug, Default)]
    pub struct ReloadRequest;

    impl ReloadRequest {
        pub fn set(&self) {}
    }
}

pub mod handover {
    #[derive(Debug, Default)]
    pub struct Handover;
}

pub mod thread_group {
    #[derive(Debug, Default)]
    pub struct ExitSignal;

    impl ExitSignal {
        pub fn has_come(&self) -> bool {
            false
        }
    }
}
