//! How long it takes from what was captured last to the estimate that rests on it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Up to a second in milliseconds; beyond, all is one.
const BUCKETS: usize = 1001;

/// A histogram by the millisecond that only grows.
#[derive(Debug)]
pub struct Latency(Box<[AtomicU64]>);

impl Default for Latency {
    fn default() -> Latency {
        Latency((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Latency {
    pub fn record(&self, latency: Duration) {
        let bucket = (latency.as_millis() as usize).min(BUCKETS - 1);
        self.0[bucket].fetch_add(1, Relaxed);
    }

    /// The latency that the given share of all stays within, in milliseconds; `None` before the first.
    pub fn quantile_ms(&self, share: f64) -> Option<u32> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut sum = 0;
        let reached = |count: &u64| {
            sum += count;
            sum >= wanted
        };
        counts
            .iter()
            .position(reached)
            .filter(|_| total > 0)
            .map(|ms| ms as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_what_that_share_stays_within() {
        let latency = Latency::default();
        assert_eq!(latency.quantile_ms(0.5), None);
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms));
        }
        latency.record(Duration::from_secs(100));
        assert_eq!(latency.quantile_ms(0.5), Some(51));
        assert_eq!(latency.quantile_ms(0.99), Some(100));
        assert_eq!(latency.quantile_ms(1.0), Some(1000));
    }
}
