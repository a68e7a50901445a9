//! Blocks of audio samples, and how long samples last.

use std::time::{Duration, Instant};

/// Sample rate of every [`AudioBlock`]. The voice models were trained at this rate.
pub const AUDIO_RATE_HZ: u32 = 16_000;

/// Consecutive mono samples at [`AUDIO_RATE_HZ`], each in −1..1.
#[derive(Debug)]
pub struct AudioBlock {
    /// Capture time of the first sample on the source's clock.
    pub at: Duration,
    /// The capture time of the last sample on this machine's monotonic clock, as in
    /// [`VideoFrame::captured`](super::VideoFrame::captured).
    pub captured: Instant,
    pub samples: Vec<f32>,
}

impl AudioBlock {
    /// The time just after the last sample, on the source's clock.
    pub fn end(&self) -> Duration {
        self.at + duration_of(self.samples.len() as u64, AUDIO_RATE_HZ)
    }
}

/// How long `samples` samples last at `rate_hz`, which must not be 0. Rounded down to a nanosecond.
pub fn duration_of(samples: u64, rate_hz: u32) -> Duration {
    let rate = u64::from(rate_hz);
    let whole = Duration::from_secs(samples / rate);
    whole + Duration::from_nanos(samples % rate * 1_000_000_000 / rate)
}

/// How many samples fit into `duration` at `rate_hz`, to the nearest.
pub fn samples_in(duration: Duration, rate_hz: u32) -> u64 {
    let rate = u128::from(rate_hz);
    let samples = (duration.as_nanos() * rate + 500_000_000) / 1_000_000_000;
    u64::try_from(samples).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_durations_convert_both_ways() {
        assert_eq!(duration_of(16_001, 16_000), Duration::from_nanos(1_000_062_500));
        assert_eq!(duration_of(1, 48_000), Duration::from_nanos(20_833));
        for samples in [0, 1, 2, 44_099, 44_100, 10_000_000_001] {
            assert_eq!(samples_in(duration_of(samples, 44_100), 44_100), samples);
        }
    }
}
