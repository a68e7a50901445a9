//! Decides which estimates are sent: as many as the line carries.

use std::time::{Duration, Instant};

/// A start bit, eight data bits, a stop bit.
const BITS_PER_BYTE: u32 = 10;

#[derive(Debug)]
pub struct Pacing {
    baud: u32,
    /// When the last estimate will have left the line.
    free_at: Option<Instant>,
}

impl Pacing {
    pub fn new(baud: u32) -> Pacing {
        Pacing { baud, free_at: None }
    }

    /// How many messages of `bytes` bytes the line carries in a second.
    pub fn capacity(&self, bytes: u32) -> f32 {
        self.baud as f32 / (BITS_PER_BYTE * bytes) as f32
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
