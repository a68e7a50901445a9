//! The latency from the capture of the newest input of an estimate to its output.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One bucket for each millisecond below a second, and one for all longer latencies.
const BUCKETS: usize = 1001;

/// A histogram with a resolution of one millisecond.
#[derive(Debug)]
pub struct Latency(Box<[AtomicU64]>);

impl Default for Latency {
    fn default() -> Latency {
        Latency((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Latency {
    pub fn record(&self, latency: Duration) {
        let bucket = usize::try_from(latency.as_millis()).unwrap_or(usize::MAX);
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// The latency in milliseconds, up to 1000, that `percent` of all estimates do not exceed. `None` before the first.
    pub fn percentile_ms(&self, percent: u8) -> Option<u32> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = (total * u64::from(percent)).div_ceil(100).max(1);
        let mut sum = 0;
        let (_, ms) = counts.iter().zip(0..).find(|(count, _)| {
            sum += **count;
            sum >= wanted
        })?;
        Some(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_latency_that_this_share_does_not_exceed() {
        let latency = Latency::default();
        assert_eq!(latency.percentile_ms(50), None);
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms));
        }
        latency.record(Duration::from_secs(100));
        assert_eq!(latency.percentile_ms(50), Some(51));
        assert_eq!(latency.percentile_ms(99), Some(100));
        assert_eq!(latency.percentile_ms(100), Some(1000));
    }
}
