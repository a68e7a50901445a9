//! Decides which estimates are sent: as many as the line carries, and no more than its reader requested.

use std::time::{Duration, Instant};

/// A start bit, eight data bits, a stop bit.
const BITS_PER_BYTE: u32 = 10;

#[derive(Debug)]
pub struct Pacing {
    baud: u32,
    /// When the last estimate will have left the line.
    free_at: Option<Instant>,
    /// The time between two estimates that the reader requested with `rate`.
    interval: Option<Duration>,
    /// When the next estimate is due, on the source's clock; `None` for immediately.
    due: Option<Duration>,
}

impl Pacing {
    pub fn new(baud: u32) -> Pacing {
        Pacing {
            baud,
            free_at: None,
            interval: None,
            due: None,
        }
    }

    /// How many messages of `bytes` bytes the line carries in a second.
    pub fn capacity(&self, bytes: u32) -> f32 {
        self.baud as f32 / (BITS_PER_BYTE * bytes) as f32
    }

    /// Sends at most `rate_hz` estimates a second from now on. `rate_hz` is from 0.1 to 100.
    pub fn set_rate(&mut self, rate_hz: f64) {
        self.interval = Some(Duration::from_secs_f64(1.0 / rate_hz));
        self.due = None;
    }

    /// Whether the estimate of time `at` is due at the requested rate. Estimates are `period` apart.
    pub fn is_due(&mut self, at: Duration, period: Duration) -> bool {
        let Some(interval) = self.interval else {
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

    /// Whether the last estimate has left the line, calculated from the baud rate.
    pub fn is_free(&self, now: Instant) -> bool {
        self.free_at.is_none_or(|free| free <= now)
    }

    /// Records that an estimate of `bytes` bytes is sent.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        let duration = Duration::from_secs_f64(f64::from(BITS_PER_BYTE) * bytes as f64 / f64::from(self.baud));
        self.free_at = Some(self.free_at.map_or(now, |free| free.max(now)) + duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(200);

    /// How many of fifty estimates are due, at five a second.
    fn due(rate: f64) -> usize {
        let mut pacing = Pacing::new(115_200);
        pacing.set_rate(rate);
        (1..=50).filter(|k| pacing.is_due(PERIOD * *k, PERIOD)).count()
    }

    #[test]
    fn a_requested_rate_selects_evenly_spaced_estimates() {
        assert_eq!(due(1.0), 10);
        assert_eq!(due(5.0), 50);
        assert_eq!(due(100.0), 50);
        assert_eq!(due(2.0), 20);
        assert_eq!(due(0.1), 1);
    }

    #[test]
    fn a_9600_baud_line_carries_every_second_of_five_json_lines() {
        let mut pacing = Pacing::new(9600);
        let start = Instant::now();
        let sent = (0..50)
            .filter(|k| {
                let now = start + PERIOD * *k;
                let free = pacing.is_free(now);
                if free {
                    pacing.sent(330, now);
                }
                free
            })
            .count();
        assert_eq!(sent, 25);
        assert_eq!(pacing.capacity(480), 2.0);
    }
}
