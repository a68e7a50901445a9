//! When samples were captured, from a sound card's timestamps, and sound that keeps to that time.
//!
//! A card's crystal is not the computer's: 100 parts in a million apart, 48 000 Hz means a second less or more in three
//! hours. The card's timestamps tell, but jitter by a period. So a [`SampleClock`] follows them slowly, as a delay-locked
//! loop of the second order (F. Adriaensen, "Using a DLL to filter time", 2005), and a [`Steady`] stream adds or leaves out
//! a sample where it must so that sample `n` is the one captured `n` sample periods after the first.

use std::time::Duration;

/// The loop's bandwidth. Slow enough to average jitter away, fast enough to settle in seconds.
const BANDWIDTH_HZ: f64 = 0.1;
/// A timestamp this far from where it is expected starts the loop afresh: sound was lost, or the process stood still.
const JUMP: f64 = 0.1;

/// Follows the capture time of frames counted from the start of a stream.
#[derive(Debug)]
pub struct SampleClock {
    /// Seconds a frame takes, as the card says.
    nominal: f64,
    /// The same, as measured.
    period: f64,
    /// A frame, and when it was captured in seconds.
    anchor: Option<(u64, f64)>,
}

impl SampleClock {
    pub fn new(rate_hz: u32) -> SampleClock {
        let nominal = 1.0 / f64::from(rate_hz);
        SampleClock {
            nominal,
            period: nominal,
            anchor: None,
        }
    }

    /// Takes in that frame `frame` was captured at `at`, give or take some jitter.
    pub fn observe(&mut self, frame: u64, at: Duration) {
        let at = at.as_secs_f64();
        let Some((from, then)) = self.anchor else {
            self.anchor = Some((frame, at));
            return;
        };
        let frames = frame.saturating_sub(from) as f64;
        if frames == 0.0 {
            return;
        }
        let expected = then + frames * self.period;
        let error = at - expected;
        if error.abs() > JUMP {
            self.period = self.nominal;
            self.anchor = Some((frame, at));
            return;
        }
        let omega = std::f64::consts::TAU * BANDWIDTH_HZ * frames * self.nominal;
        let omega = omega.min(0.5);
        self.anchor = Some((frame, expected + std::f64::consts::SQRT_2 * omega * error));
        self.period += omega * omega * error / frames;
        // No crystal is off by more than this: what looks like it is a card that stamps badly.
        let most = self.nominal * 0.002;
        self.period = self.period.clamp(self.nominal - most, self.nominal + most);
    }

    /// When frame `frame` was captured; `None` before the first observation.
    pub fn at(&self, frame: u64) -> Option<Duration> {
        let (from, then) = self.anchor?;
        let at = then + (frame as f64 - from as f64) * self.period;
        Some(Duration::from_secs_f64(at.max(0.0)))
    }
}

/// A stream whose sample count is its clock, give or take two milliseconds.
#[derive(Debug, Default)]
pub struct Steady {
    /// When the first sample was captured, and how many there have been since.
    start: Option<Duration>,
    count: u64,
    /// Samples are being added or left out.
    nudging: bool,
}

/// So far out of step (seconds) samples begin to be added or left out, until it is in step again. Changing the sound a
/// little for a while is better than all the time.
const OUT_OF_STEP: f64 = 0.002;

/// Beyond this the samples cannot be nudged back into step: a new stretch starts.
const FARTHEST: f64 = 0.04;

impl Steady {
    /// Takes the next `samples`, the first of them captured at `at`, and makes them one longer or shorter while the stream
    /// is out of step. Returns the time that the first counts as.
    pub fn keep(&mut self, at: Duration, samples: &mut Vec<f32>, rate_hz: u32) -> Duration {
        let rate = f64::from(rate_hz);
        let due = self.due(rate);
        let start = match (self.start, due) {
            (Some(start), Some(due)) if (at.as_secs_f64() - due).abs() <= FARTHEST => {
                let late = (at.as_secs_f64() - due) * rate;
                self.nudging = late.abs() >= if self.nudging { 1.0 } else { OUT_OF_STEP * rate };
                if self.nudging && late > 0.0 {
                    stretch(samples, samples.len() + 1);
                } else if self.nudging && samples.len() > 2 {
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

/// Reads `samples` at `length` places between the first and the last, in straight lines.
fn stretch(samples: &mut Vec<f32>, length: usize) {
    if samples.len() < 2 || length < 2 {
        return;
    }
    let step = (samples.len() - 1) as f64 / (length - 1) as f64;
    let stretched = (0..length).map(|i| {
        let place = i as f64 * step;
        let left = (place as usize).min(samples.len() - 2);
        let right = (place - left as f64) as f32;
        samples[left] * (1.0 - right) + samples[left + 1] * right
    });
    *samples = stretched.collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a card whose clock is off by `ppm` for `seconds`, its stamps late by up to `jitter` seconds. Gives the error of
    /// the followed time at the end, in seconds.
    fn follow(ppm: f64, jitter: f64, seconds: f64) -> f64 {
        let mut clock = SampleClock::new(48_000);
        let true_period = 1.0 / 48_000.0 * (1.0 + ppm * 1e-6);
        let (mut frame, mut noise) = (0u64, 12345u32);
        while (frame as f64) < seconds * 48_000.0 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let late = f64::from(noise >> 8) / f64::from(1 << 24) * jitter;
            clock.observe(frame, Duration::from_secs_f64(1.0 + frame as f64 * true_period + late));
            frame += 960;
        }
        let followed = clock.at(frame).unwrap().as_secs_f64();
        followed - (1.0 + frame as f64 * true_period)
    }

    proptest! {
        #[test]
        fn drift_is_followed_and_jitter_averaged(ppm in -300.0f64..300.0, jitter in 0.0f64..0.008) {
            // Stamps are late by half the jitter on average, and that is all that may remain.
            let error = follow(ppm, jitter, 120.0) - jitter / 2.0;
            prop_assert!(error.abs() < 0.002, "{} ms", error * 1e3);
        }
    }

    #[test]
    fn a_jump_starts_afresh() {
        let mut clock = SampleClock::new(16_000);
        clock.observe(0, Duration::from_secs(1));
        clock.observe(320, Duration::from_millis(1020));
        clock.observe(640, Duration::from_millis(4040));
        assert_eq!(clock.at(640), Some(Duration::from_millis(4040)));
    }

    #[test]
    fn over_hours_the_sample_count_stays_with_the_clock() {
        // 200 parts in a million fast: 16 003.2 samples come each second, and the surplus must go.
        let mut steady = Steady::default();
        let (mut n, mut end) = (0u64, Duration::ZERO);
        for _ in 0..50 * 3600 {
            let at = Duration::from_secs_f64(n as f64 / 16_000.0 / 1.0002);
            let mut chunk = vec![0.5; 320];
            let begins = steady.keep(at, &mut chunk, 16_000);
            let off = begins.as_secs_f64() - at.as_secs_f64();
            assert!(off.abs() < 0.002_1, "off by {off} s after {n} samples");
            end = begins + Duration::from_secs_f64(chunk.len() as f64 / 16_000.0);
            n += 320;
        }
        assert!((end.as_secs_f64() - 3600.0 / 1.0002).abs() < 0.002_1);
    }

    #[test]
    fn chunks_follow_on_without_gap_or_overlap() {
        let mut steady = Steady::default();
        let mut end = None;
        for i in 0..1000u64 {
            let jitter = (i * 7919 % 11) as f64 * 1e-5;
            let mut chunk = vec![0.0; 320];
            let begins = steady.keep(Duration::from_secs_f64(i as f64 * 0.02 + jitter), &mut chunk, 16_000);
            if let Some(end) = end {
                assert!(begins.abs_diff(end) < Duration::from_nanos(10));
            }
            end = Some(begins + Duration::from_secs_f64(chunk.len() as f64 / 16_000.0));
        }
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let mut steady = Steady::default();
        steady.keep(Duration::ZERO, &mut vec![0.0; 320], 16_000);
        let begins = steady.keep(Duration::from_secs(3), &mut vec![0.0; 320], 16_000);
        assert_eq!(begins, Duration::from_secs(3));
    }

    #[test]
    fn stretching_keeps_a_line_a_line() {
        let mut line: Vec<f32> = (0..320).map(|i| i as f32 / 320.0).collect();
        stretch(&mut line, 321);
        assert_eq!(line.len(), 321);
        assert!(
            line.windows(2)
                .all(|pair| pair[1] > pair[0] && pair[1] - pair[0] < 1.0 / 319.0)
        );
    }
}
