//! The way of the estimates to the status page.

use crate::fusion::Estimate;
use crate::queue::{QueueReceiver, SwappableSender, WhenFull, queue};
use crate::sync::Arc;

/// Capacity of the queue of estimates: more than a second of them.
const QUEUE: usize = 16;

/// Sends estimates to the page. Never waits: if the page is slow, it misses the oldest ones. Without a page, nothing happens.
#[derive(Clone, Default)]
pub struct StatusFeed(std::sync::Arc<Feed>);

#[derive(Default)]
struct Feed {
    queue: SwappableSender<Arc<Estimate>>,
    #[cfg(feature = "status")]
    arrived: tokio::sync::Notify,
}

impl StatusFeed {
    pub fn send(&self, estimate: &Arc<Estimate>) {
        // No page is no fault.
        let _ = self.0.queue.send(Arc::clone(estimate));
        #[cfg(feature = "status")]
        self.0.arrived.notify_one();
    }

    /// Connects a page, in the place of the previous one.
    pub fn connect(&self) -> Estimates {
        // The page loses estimates only if it is stuck, which it shows by itself.
        let (sender, received) = queue(QUEUE, WhenFull::DropOldest, &Arc::default());
        self.0.queue.connect(sender);
        Estimates {
            feed: self.clone(),
            received,
        }
    }

    pub fn disconnect(&self) {
        self.0.queue.disconnect();
    }
}

/// The receiving end.
#[cfg_attr(not(feature = "status"), expect(dead_code, reason = "without a page, nobody waits"))]
pub struct Estimates {
    feed: StatusFeed,
    received: QueueReceiver<Arc<Estimate>>,
}

#[cfg(feature = "status")]
impl Estimates {
    pub async fn next(&self) -> Arc<Estimate> {
        loop {
            if let Ok(estimate) = self.received.try_recv() {
                return estimate;
            }
            self.feed.0.arrived.notified().await;
        }
    }
}
