//! How long to wait before the next connection.

use std::time::{Duration, Instant};

use super::error::{LinkError, Prospect};
use crate::retry::{Retry, RetryPolicy};

/// After this time a connection counts as stable, and the next failure as the first.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Short, so that the connection is back within five seconds after the network is: an attempt itself takes up to three.
const UNREACHABLE: RetryPolicy = RetryPolicy::Exponential {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(2),
};
const BROKEN: RetryPolicy = RetryPolicy::Exponential {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(4),
};
const REFUSED: RetryPolicy = RetryPolicy::Exponential {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(120),
};

/// Grows on its own for each [`Prospect`].
#[derive(Debug)]
pub struct Backoff {
    unreachable: Retry,
    broken: Retry,
    refused: Retry,
    /// Failures since the last stable connection.
    failures: u32,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff {
            unreachable: Retry::new(UNREACHABLE),
            broken: Retry::new(BROKEN),
            refused: Retry::new(REFUSED),
            failures: 0,
        }
    }

    /// The wait after `error`, which ended a connection that had been accepted for `connected`.
    pub fn after(&mut self, error: &LinkError, connected: Option<Duration>) -> Duration {
        if connected.is_some_and(|time| time > STABLE_AFTER) {
            *self = Backoff::new();
        }
        self.failures = self.failures.saturating_add(1);
        let retry = match error.prospect() {
            Prospect::Unreachable => &mut self.unreachable,
            Prospect::Broken => &mut self.broken,
            Prospect::Refused => &mut self.refused,
        };
        retry.failed(Instant::now())
    }

    /// Failures since the last stable connection.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::mqtt::error::Login;

    #[test]
    fn an_unreachable_broker_is_tried_every_two_seconds_and_a_refusing_one_every_two_minutes() {
        let mut backoff = Backoff::new();
        let mut longest = |error: &LinkError| (0..10).map(|_| backoff.after(error, None)).max();
        assert!(longest(&LinkError::ConnectionRefused) <= Some(Duration::from_secs(2)));
        let refused = longest(&LinkError::NotAuthorized(Login::default())).unwrap();
        assert!((60.0..=120.0).contains(&refused.as_secs_f64()), "{refused:?}");
        // The network fails: the broker is tried often again.
        assert!(longest(&LinkError::Timeout) <= Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_first_attempt_after_a_stable_connection_comes_soon() {
        let mut backoff = Backoff::new();
        for _ in 0..10 {
            backoff.after(&LinkError::Closed, Some(Duration::from_secs(1)));
        }
        assert!(backoff.after(&LinkError::Closed, None) > Duration::from_secs(1));
        let wait = backoff.after(&LinkError::Closed, Some(Duration::from_secs(60)));
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(backoff.failures(), 1);
    }
}
