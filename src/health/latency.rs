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

/// Latencies, sorted into few buckets.
#[derive(Debug, PartialEq)]
pub struct LatencyHistogram {
    /// The upper bound of each bucket in seconds, and the number of latencies in it. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// All latencies in seconds, of which those beyond a second count as one second.
    pub sum_s: f64,
    pub count: u64,
}

impl Latency {
    /// Sorts the latencies into buckets with these upper bounds, which increase.
    pub fn histogram(&self, bounds_ms: &[u32]) -> LatencyHistogram {
        let bounds = bounds_ms.iter().map(|ms| f64::from(*ms) / 1000.0);
        let mut buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
        let (mut sum_ms, mut total) = (0, 0);
        for (count, ms) in self.0.iter().map(|count| count.load(Relaxed)).zip(0u32..) {
            let bucket = bounds_ms.partition_point(|bound| *bound < ms);
            buckets[bucket].1 += count;
            sum_ms += count * u64::from(ms);
            total += count;
        }
        LatencyHistogram {
            buckets,
            sum_s: sum_ms as f64 / 1000.0,
            count: total,
        }
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

    #[test]
    fn a_histogram_has_each_latency_in_one_bucket() {
        let latency = Latency::default();
        for ms in [3, 20, 21, 5000] {
            latency.record(Duration::from_millis(ms));
        }
        let expected = LatencyHistogram {
            buckets: vec![(0.02, 2), (0.05, 1), (f64::INFINITY, 1)],
            sum_s: 1.044,
            count: 4,
        };
        assert_eq!(latency.histogram(&[20, 50]), expected);
    }
}
