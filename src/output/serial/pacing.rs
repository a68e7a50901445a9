//! Which estimates go out: as many as the line carries, and no more than its reader asked for.

use std::time::{Duration, Instant};

/// A start bit, eight data bits, a stop bit.
const BITS_PER_BYTE: u32 = 10;

#[derive(Debug)]
pub struct Pacing {
    baud: u32,
    /// When the last estimate given to the line will have left it.
    free_at: Option<Instant>,
    /// From one estimate to the next, if the reader asked for fewer.
    interval: Option<Duration>,
    /// On the source's clock, when the next one is due; `None` for at once.
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

    /// How many messages of so many bytes the line carries in a second.
    pub fn capacity(&self, bytes: usize) -> f32 {
        self.baud as f32 / (BITS_PER_BYTE * bytes as u32) as f32
    }

    /// Thins out to so many estimates a second from now on.
    pub fn set_rate(&mut self, rate: f64) {
        self.interval = Some(Duration::from_secs_f64(1.0 / rate));
        self.due = None;
    }

    /// Whether the reader wants an estimate of the time `at`; estimates come `period` apart.
    pub fn is_due(&mut self, at: Duration, period: Duration) -> bool {
        let Some(interval) = self.interval else {
            return true;
        };
        let due = self.due.unwrap_or(at);
        // The nearest estimate will do: half a period early is as good as half a period late.
        if at + period / 2 < due {
            return false;
        }
        let next = due + interval;
        self.due = Some(if next < at { at + interval } else { next });
        true
    }

    /// Whether the last estimate has left the line, by its baud rate.
    pub fn is_free(&self, now: Instant) -> bool {
        self.free_at.is_none_or(|free| free <= now)
    }

    /// Counts an estimate that goes out.
    pub fn sent(&mut self, bytes: usize, now: Instant) {
        let takes = Duration::from_secs(1) * BITS_PER_BYTE * bytes as u32 / self.baud;
        self.free_at = Some(self.free_at.map_or(now, |free| free.max(now)) + takes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(200);

    /// How many of fifty estimates, five a second, are due.
    fn due(rate: f64) -> usize {
        let mut pacing = Pacing::new(115_200);
        pacing.set_rate(rate);
        (1..=50).filter(|k| pacing.is_due(PERIOD * *k, PERIOD)).count()
    }

    #[test]
    fn a_rate_thins_out_evenly() {
        assert_eq!(due(1.0), 10);
        assert_eq!(due(5.0), 50);
        assert_eq!(due(100.0), 50);
        assert_eq!(due(2.0), 20);
        assert_eq!(due(0.1), 1);
    }

    #[test]
    fn a_line_of_9600_baud_carries_every_second_of_five_long_lines() {
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
