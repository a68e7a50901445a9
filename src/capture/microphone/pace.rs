//! Tells a device that captures sound from a plugin that returns samples as fast as they are read.

use std::time::{Duration, Instant};

/// A device may be ahead of the clock by this much. Sound servers have samples ready at the start.
const MAX_LEAD: Duration = Duration::from_secs(2);
/// What a device was behind counts for at most this long: it may still deliver that sound in a burst. Without a limit, a device that
/// ran for a year could be too fast for hours.
const MAX_DEFICIT: Duration = Duration::from_secs(10);
/// The device's clock may be faster than ours by this share. Real clocks differ by less than 0.001.
const MAX_CLOCK_ERROR: f64 = 0.05;

/// The device returned more samples than anything can capture in this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast;

/// Counts samples against the clock.
#[derive(Debug)]
pub struct SamplePace {
    rate_hz: u32,
    counted: Instant,
    /// How many frames the device is ahead of the clock.
    lead: f64,
    max_lead: Duration,
}

impl SamplePace {
    pub fn new(rate_hz: u32, started: Instant) -> SamplePace {
        SamplePace {
            rate_hz,
            counted: started,
            lead: 0.0,
            max_lead: MAX_LEAD,
        }
    }

    /// For a source that may be ahead of the clock by more than a sound server.
    pub fn with_lead(self, max_lead: Duration) -> SamplePace {
        SamplePace { max_lead, ..self }
    }

    /// Counts `frames` that were read at `now`.
    pub fn add(&mut self, frames: u64, now: Instant) -> Result<(), TooFast> {
        let passed_s = now.saturating_duration_since(self.counted).as_secs_f64();
        self.counted = now;
        let frames_in = |seconds: f64| seconds * f64::from(self.rate_hz);
        let lead = self.lead - frames_in(passed_s * (1.0 + MAX_CLOCK_ERROR));
        self.lead = lead.max(-frames_in(MAX_DEFICIT.as_secs_f64())) + frames as f64;
        match self.lead > frames_in(self.max_lead.as_secs_f64()) {
            true => Err(TooFast),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads 20 ms at a time for an hour, with `ahead` ready at the start, from a clock that is faster by `error`. Returns the pace
    /// at the end.
    fn read_for_an_hour(ahead: Duration, error: f64) -> Result<(SamplePace, Instant), TooFast> {
        let started = Instant::now();
        let mut pace = SamplePace::new(48_000, started);
        pace.add(ahead.as_secs() * 48_000, started)?;
        let period = Duration::from_millis(20).div_f64(1.0 + error);
        (1..=180_000).try_for_each(|n| pace.add(960, started + period * n))?;
        Ok((pace, started + period * 180_000))
    }

    #[test]
    fn sound_cards_and_servers_are_not_too_fast() {
        assert!(read_for_an_hour(Duration::ZERO, 0.0).is_ok());
        assert!(read_for_an_hour(Duration::from_secs(1), 0.002).is_ok());
        // A sound server that was stuck for a while.
        let (mut pace, end) = read_for_an_hour(Duration::ZERO, 0.0).unwrap();
        assert_eq!(pace.add(10 * 48_000, end + Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn a_device_without_a_clock_is_too_fast_after_the_permitted_lead() {
        let now = Instant::now();
        let mut pace = SamplePace::new(16_000, now);
        for _ in 0..100 {
            assert_eq!(pace.add(320, now), Ok(()));
        }
        assert_eq!(pace.add(320, now), Err(TooFast));
    }

    #[test]
    fn a_device_that_becomes_too_fast_is_found() {
        assert!(read_for_an_hour(Duration::ZERO, 0.2).is_err());
        // An hour at the right pace does not allow more samples later.
        let (mut pace, end) = read_for_an_hour(Duration::ZERO, 0.0).unwrap();
        let surplus = (0..).take_while(|_| pace.add(960, end).is_ok()).count();
        assert!(surplus <= 600, "{} s", surplus / 50);
    }
}
