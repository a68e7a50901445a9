//! Capture times of samples, from a sound card's timestamps.
//!
//! The clocks of a card and of the computer differ: at 100 parts per million, they are one second apart after three hours.
//! The card's timestamps follow the computer's clock, but jitter by up to a period. A [`SampleClock`] therefore follows them
//! slowly, as a second-order delay-locked loop (F. Adriaensen, "Using a DLL to filter time", 2005).

use std::time::Duration;

/// Bandwidth of the loop: low enough to average out jitter, high enough to settle within seconds.
const BANDWIDTH_HZ: f64 = 0.1;
/// A timestamp this far from the expected one, in seconds, restarts the loop: samples were lost, or the process was stopped.
const JUMP_S: f64 = 0.1;

/// Follows the capture time of frames, which are counted from the start of a stream.
#[derive(Debug)]
pub struct SampleClock {
    /// Seconds per frame, from the nominal rate.
    nominal: f64,
    /// Seconds per frame, as measured.
    period: f64,
    /// A frame number, and its capture time in seconds.
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

    /// Records that frame number `frame` was captured at about `at`.
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
        if error.abs() > JUMP_S {
            self.period = self.nominal;
            self.anchor = Some((frame, at));
            return;
        }
        let omega = std::f64::consts::TAU * BANDWIDTH_HZ * frames * self.nominal;
        let omega = omega.min(0.5);
        self.anchor = Some((frame, expected + std::f64::consts::SQRT_2 * omega * error));
        self.period += omega * omega * error / frames;
        // No crystal is off by more than this. A larger deviation means bad timestamps.
        let most = self.nominal * 0.002;
        self.period = self.period.clamp(self.nominal - most, self.nominal + most);
    }

    /// Capture time of frame number `frame`. `None` before the first observation.
    pub fn at(&self, frame: u64) -> Option<Duration> {
        let (from, then) = self.anchor?;
        let at = then + (frame as f64 - from as f64) * self.period;
        Some(Duration::from_secs_f64(at.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a card whose clock is off by `ppm` for `seconds`, with timestamps late by up to `jitter` seconds. Returns the error
    /// of the followed time at the end, in seconds.
    fn error_after(ppm: f64, jitter: f64, seconds: f64) -> f64 {
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
        fn drift_is_followed_and_jitter_is_averaged(ppm in -300.0f64..300.0, jitter in 0.0f64..0.008) {
            // Timestamps are late by half the jitter on average. Only that offset may remain.
            let error = error_after(ppm, jitter, 120.0) - jitter / 2.0;
            prop_assert!(error.abs() < 0.002, "{} ms", error * 1e3);
        }
    }

    #[test]
    fn a_jump_restarts_the_clock() {
        let mut clock = SampleClock::new(16_000);
        clock.observe(0, Duration::from_secs(1));
        clock.observe(320, Duration::from_millis(1020));
        clock.observe(640, Duration::from_millis(4040));
        assert_eq!(clock.at(640), Some(Duration::from_millis(4040)));
    }
}
