//! Compensates the drift between a sound card's clock and the computer's.
//!
//! [`SampleClock`](super::sample_clock::SampleClock) gives the capture times. If the stream is ahead of them, samples are removed;
//! if it is behind, samples are inserted. So sample `n` was captured `n` sample periods after the first one.

use std::time::Duration;

/// At this deviation, in seconds, the compensator starts to insert or remove samples. It continues until the deviation is
/// below one sample, so that the stream is changed for short periods only.
const MAX_DEVIATION_S: f64 = 0.002;

/// A larger deviation, in seconds, cannot be compensated. A new segment starts.
const MAX_COMPENSATED_S: f64 = 0.04;

/// Keeps the sample count of a stream in step with its capture times, to within two milliseconds.
#[derive(Debug, Default)]
pub struct DriftCompensator {
    /// Capture time of the first sample of the segment.
    start: Option<Duration>,
    /// Samples since then.
    count: u64,
    /// Samples are being inserted or removed at the moment.
    active: bool,
}

impl DriftCompensator {
    /// Adds the next `samples`, the first of which was captured at `at`. While the compensator is active, makes them one sample
    /// longer or shorter. Returns the time of the first sample according to the sample count.
    pub fn compensate(&mut self, at: Duration, samples: &mut Vec<f32>, rate_hz: u32) -> Duration {
        let rate = f64::from(rate_hz);
        let due = self.due(rate);
        let start = match (self.start, due) {
            (Some(start), Some(due)) if (at.as_secs_f64() - due).abs() <= MAX_COMPENSATED_S => {
                let late = (at.as_secs_f64() - due) * rate;
                self.active = late.abs() >= if self.active { 1.0 } else { MAX_DEVIATION_S * rate };
                if self.active && late > 0.0 {
                    stretch(samples, samples.len() + 1);
                } else if self.active && samples.len() > 2 {
                    stretch(samples, samples.len() - 1);
                }
                start
            }
            _ => {
                self.count = 0;
                at
            }
        };
        self.start = Some(start);
        let begins = start + Duration::from_secs_f64(self.count as f64 / rate);
        self.count += samples.len() as u64;
        begins
    }

    /// When the next sample is due, in seconds.
    fn due(&self, rate: f64) -> Option<f64> {
        self.start.map(|start| start.as_secs_f64() + self.count as f64 / rate)
    }
}

/// Resamples `samples` to `length` by linear interpolation between the first and the last.
#[expect(
    clippy::cast_possible_truncation,
    reason = "positions lie between the first and the last sample"
)]
fn stretch(samples: &mut Vec<f32>, length: usize) {
    if samples.len() < 2 || length < 2 {
        return;
    }
    let step = (samples.len() - 1) as f64 / (length - 1) as f64;
    let stretched = (0..length).map(|i| {
        let position = i as f64 * step;
        let left = (position as usize).min(samples.len() - 2);
        let weight = (position - left as f64) as f32;
        samples[left] * (1.0 - weight) + samples[left + 1] * weight
    });
    *samples = stretched.collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_count_follows_the_clock_for_an_hour() {
        // A card that is 200 parts per million fast delivers 16 003.2 samples per second. The surplus must be removed.
        let mut drift = DriftCompensator::default();
        let (mut n, mut end) = (0u64, Duration::ZERO);
        for _ in 0..50 * 3600 {
            let at = Duration::from_secs_f64(n as f64 / 16_000.0 / 1.0002);
            let mut block = vec![0.5; 320];
            let begins = drift.compensate(at, &mut block, 16_000);
            let off = begins.as_secs_f64() - at.as_secs_f64();
            assert!(off.abs() < 0.002_1, "off by {off} s after {n} samples");
            end = begins + Duration::from_secs_f64(block.len() as f64 / 16_000.0);
            n += 320;
        }
        assert!((end.as_secs_f64() - 3600.0 / 1.0002).abs() < 0.002_1);
    }

    #[test]
    fn blocks_follow_each_other_without_gap_or_overlap() {
        let mut drift = DriftCompensator::default();
        let mut end = None;
        for i in 0..1000u64 {
            let jitter = (i * 7919 % 11) as f64 * 1e-5;
            let mut block = vec![0.0; 320];
            let begins = drift.compensate(Duration::from_secs_f64(i as f64 * 0.02 + jitter), &mut block, 16_000);
            if let Some(end) = end {
                assert!(begins.abs_diff(end) < Duration::from_nanos(10));
            }
            end = Some(begins + Duration::from_secs_f64(block.len() as f64 / 16_000.0));
        }
    }

    #[test]
    fn a_gap_is_preserved() {
        let mut drift = DriftCompensator::default();
        drift.compensate(Duration::ZERO, &mut vec![0.0; 320], 16_000);
        let begins = drift.compensate(Duration::from_secs(3), &mut vec![0.0; 320], 16_000);
        assert_eq!(begins, Duration::from_secs(3));
    }

    #[test]
    fn stretching_preserves_a_ramp() {
        let mut line: Vec<f32> = (0..320).map(|i| i as f32 / 320.0).collect();
        stretch(&mut line, 321);
        assert_eq!(line.len(), 321);
        assert!(
            line.windows(2)
                .all(|pair| pair[1] > pair[0] && pair[1] - pair[0] < 1.0 / 319.0)
        );
    }
}
