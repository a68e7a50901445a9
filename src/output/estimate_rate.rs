//! The rate of estimates that a reader requested with the command `rate`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Selects the estimates that are due at the requested rate. Without a request, all are due.
#[derive(Debug, Default)]
pub struct EstimateRate {
    requested: Option<Requested>,
    /// When the next estimate is due, on the source's clock; `None` for immediately.
    due: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Requested {
    hz: f64,
    interval: Duration,
}

impl EstimateRate {
    /// The rates that a reader may request.
    pub const RANGE_HZ: RangeInclusive<f64> = 0.1..=100.0;

    /// Selects at most `hz` estimates a second from now on. `hz` is in [`EstimateRate::RANGE_HZ`].
    pub fn set_hz(&mut self, hz: f64) {
        let interval = Duration::from_secs_f64(1.0 / hz);
        *self = EstimateRate {
            requested: Some(Requested { hz, interval }),
            due: None,
        };
    }

    /// The requested rate; `None` without a request.
    pub fn hz(&self) -> Option<f64> {
        self.requested.map(|requested| requested.hz)
    }

    /// Whether the estimate of time `at` is due. Estimates are `period` apart.
    pub fn is_due(&mut self, at: Duration, period: Duration) -> bool {
        let Some(Requested { interval, .. }) = self.requested else {
            return true;
        };
        let due = self.due.unwrap_or(at);
        // The nearest estimate is taken: it is up to half a period early or late.
        if at + period / 2 < due {
            return false;
        }
        let next = due + interval;
        self.due = Some(if next < at { at + interval } else { next });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(200);

    /// How many of fifty estimates are due, at five a second.
    fn due(hz: f64) -> usize {
        let mut rate = EstimateRate::default();
        rate.set_hz(hz);
        (1..=50).filter(|k| rate.is_due(PERIOD * *k, PERIOD)).count()
    }

    #[test]
    fn a_requested_rate_selects_evenly_spaced_estimates() {
        assert_eq!(due(1.0), 10);
        assert_eq!(due(5.0), 50);
        assert_eq!(due(100.0), 50);
        assert_eq!(due(2.0), 20);
        assert_eq!(due(0.1), 1);
    }
}
