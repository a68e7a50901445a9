//! Decides which estimates are sent: as many as the line carries.

use std::time::{Duration, Instant};

/// A start bit, eight data bits, a stop bit.
const BITS_PER_BYTE: u32 = 10;

/// Estimates that come late come together. A line that is fast enough for all sends them one after the other, and is behind by at
/// most this time. Older ones would no longer be of the present.
const MAX_BACKLOG: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Pacing {
    baud: u32,
    /// How far the line may be behind when one more estimate is sent. Zero for a line that is too slow: it would be behind by this
    /// time for ever.
    backlog: Duration,
    /// When the last estimate will have left the line.
    free_at: Option<Instant>,
}

impl Pacing {
    /// For estimates of `usual_bytes` bytes, `period` apart.
    pub fn new(baud: u32, usual_bytes: u32, period: Duration) -> Pacing {
        let mut pacing = Pacing {
            baud,
            backlog: Duration::ZERO,
            free_at: None,
        };
        if pacing.capacity(usual_bytes) >= 1.0 / period.as_secs_f32() {
            pacing.backlog = MAX_BACKLOG;
        }
        pacing
    }

    /// How many messages of `bytes` bytes the line carries in a second.
    pub fn capacity(&self, bytes: u32) -> f32 {
        self.baud as f32 / (BITS_PER_BYTE * bytes) as f32
    }

    /// Whether one more estimate may be sent: the last ones have left the line, or will soon, calculated from the baud rate.
    pub fn is_free(&self, now: Instant) -> bool {
        self.free_at.is_none_or(|free| free <= now + self.backlog)
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

    #[test]
    fn a_9600_baud_line_carries_every_second_of_five_json_lines() {
        let mut pacing = Pacing::new(9600, 330, PERIOD);
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

    #[test]
    fn a_fast_line_carries_estimates_that_come_together() {
        let now = Instant::now();
        let sent_at_once = |baud| {
            let mut pacing = Pacing::new(baud, 330, PERIOD);
            let free = (0..100).take_while(|_| {
                let free = pacing.is_free(now);
                pacing.sent(330, now);
                free
            });
            free.count()
        };
        // A second of a line that is fast enough.
        assert_eq!(sent_at_once(115_200), 35);
        assert_eq!(sent_at_once(9600), 1);
    }
}
