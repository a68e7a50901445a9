//! How long to wait before the next attempt to open or connect something that failed.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How the wait grows with the number of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Always the same wait. For devices of this machine: an attempt is cheap, and a device that is back is used at once.
    Fixed(Duration),
    /// The wait doubles from `first` to `longest`, with jitter: each wait is between half of that and all of it. For
    /// servers: a thousand clients must not reconnect at the same moment.
    Exponential { first: Duration, longest: Duration },
}

/// Counts failures in a row, and decides when the next attempt is due.
#[derive(Debug)]
pub struct Retry {
    policy: RetryPolicy,
    failures: u32,
    /// `None` while nothing has failed: then an attempt is always due.
    due: Option<Instant>,
}

impl Retry {
    pub fn new(policy: RetryPolicy) -> Retry {
        Retry {
            policy,
            failures: 0,
            due: None,
        }
    }

    /// Records an attempt that failed at `now`. Returns the wait before the next one.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let wait = match self.policy {
            RetryPolicy::Fixed(wait) => wait,
            RetryPolicy::Exponential { first, longest } => first
                .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
                .min(longest)
                .mul_f64(0.5 + 0.5 * random_fraction()),
        };
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + wait);
        wait
    }

    /// Records an attempt that succeeded. The next failure counts as the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.due = None;
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// From 0 to 1. The keys of the standard hasher come from the kernel's random numbers, so devices differ.
fn random_fraction() -> f64 {
    let random = RandomState::new().hash_one(0) >> 32;
    f64::from(random as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_A_BROKER: RetryPolicy = RetryPolicy::Exponential {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    };

    #[test]
    fn exponential_waits_double_up_to_the_longest_and_are_at_least_half() {
        let mut retry = Retry::new(TO_A_BROKER);
        let now = Instant::now();
        for longest in [1, 2, 4, 8, 16, 32].into_iter().chain([60; 40]) {
            let wait = retry.failed(now).as_secs_f64();
            let longest = f64::from(longest);
            assert!((longest / 2.0..=longest).contains(&wait), "{wait} of {longest}");
        }
        assert_eq!(retry.failures(), 46);
        retry.succeeded();
        assert_eq!(retry.failures(), 0);
        assert!(retry.failed(now) <= Duration::from_secs(1));
    }

    #[test]
    fn exponential_waits_of_two_devices_differ() {
        let now = Instant::now();
        let waits: Vec<_> = (0..8).map(|_| Retry::new(TO_A_BROKER).failed(now)).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }

    #[test]
    fn an_attempt_is_due_when_the_wait_is_over() {
        let wait = Duration::from_millis(500);
        let (mut retry, now) = (Retry::new(RetryPolicy::Fixed(wait)), Instant::now());
        assert!(retry.is_due(now));
        for _ in 0..3 {
            assert_eq!(retry.failed(now), wait);
        }
        assert!(!retry.is_due(now + wait / 2));
        assert!(retry.is_due(now + wait));
        retry.succeeded();
        assert!(retry.is_due(now));
    }
}
