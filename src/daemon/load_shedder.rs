//! Lowers the face rate while the board is too busy or too hot, and raises it again afterwards.

use std::time::{Duration, Instant};

/// The load is measured over windows of this length. The rate changes at most once a window.
const WINDOW: Duration = Duration::from_secs(5);
/// The rate is lowered if the face stage works for a larger share of the time.
const MAX_LOAD: f32 = 0.6;
/// The rate is raised only if the load would then stay below this. The distance from `MAX_LOAD` prevents oscillation.
const MAX_LOAD_AFTER_RAISE: f32 = 0.45;
/// The rate is lowered from this temperature on. A Raspberry Pi throttles itself at 80 °C.
const HOT_C: f32 = 78.0;
/// The rate is raised only at or below this temperature.
const COOL_C: f32 = 72.0;
/// The rates, as shares of the configured one.
const STEPS: [f32; 4] = [1.0, 0.5, 0.25, 0.1];

/// Decides the face rate from the face stage's load and the processor's temperature.
#[derive(Debug)]
pub struct LoadShedder {
    /// Index into `STEPS`.
    step: usize,
    window_start: Instant,
    /// Time that the stage worked in this window.
    busy: Duration,
}

/// A change of the rate.
#[derive(Debug, PartialEq)]
pub struct RateChange {
    /// The new rate as a share of the configured one, from 0 to 1.
    pub share: f32,
    /// The reason, for the log.
    pub reason: String,
}

impl LoadShedder {
    pub fn new(now: Instant) -> LoadShedder {
        LoadShedder {
            step: 0,
            window_start: now,
            busy: Duration::ZERO,
        }
    }

    /// Records that the stage worked for `busy` until `now`. Calls `temperature_c` once per window.
    pub fn record(
        &mut self,
        busy: Duration,
        now: Instant,
        temperature_c: impl FnOnce() -> Option<f32>,
    ) -> Option<RateChange> {
        self.busy += busy;
        let window = now.saturating_duration_since(self.window_start);
        if window < WINDOW {
            return None;
        }
        let load = self.busy.as_secs_f32() / window.as_secs_f32();
        (self.window_start, self.busy) = (now, Duration::ZERO);
        // The process was suspended during this window, so the load is meaningless.
        if window > 2 * WINDOW {
            return None;
        }
        let temperature = temperature_c();
        let hot = temperature.filter(|&t| t >= HOT_C);
        let percent = (load * 100.0).round();
        if (load > MAX_LOAD || hot.is_some()) && self.step + 1 < STEPS.len() {
            self.step += 1;
            let reason = match hot {
                Some(t) => format!("the processor is at {t:.0} °C"),
                None => format!("it used {percent} % of the time"),
            };
            return Some(self.change(reason));
        }
        let raised = self.step.checked_sub(1)?;
        let load_after_raise = load * STEPS[raised] / STEPS[self.step];
        let is_cool = temperature.is_none_or(|t| t <= COOL_C);
        (load_after_raise < MAX_LOAD_AFTER_RAISE && is_cool).then(|| {
            self.step = raised;
            self.change(format!("it uses only {percent} % of the time"))
        })
    }

    fn change(&self, reason: String) -> RateChange {
        RateChange {
            share: STEPS[self.step],
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate's share after each second. At the full rate, `load` is the face stage's load in each second.
    fn shares(seconds: u64, load: impl Fn(u64) -> f32, temperature_c: impl Fn(u64) -> Option<f32>) -> Vec<f32> {
        let start = Instant::now();
        let mut shedder = LoadShedder::new(start);
        let mut share = 1.0;
        (1..=seconds)
            .map(|second| {
                let busy = Duration::from_secs_f32(load(second) * share);
                let now = start + Duration::from_secs(second);
                if let Some(change) = shedder.record(busy, now, || temperature_c(second)) {
                    share = change.share;
                }
                share
            })
            .collect()
    }

    #[test]
    fn a_high_load_lowers_the_rate_step_by_step() {
        let shares = shares(30, |_| 0.9, |_| None);
        assert_eq!(shares[3], 1.0);
        assert_eq!(shares[4], 0.5);
        assert!(shares[4..].iter().all(|&share| share == 0.5), "{shares:?}");
    }

    #[test]
    fn a_low_load_raises_the_rate_again() {
        let shares = shares(40, |second| if second <= 10 { 2.0 } else { 0.3 }, |_| None);
        assert_eq!(shares[9], 0.25);
        assert_eq!(shares[39], 1.0);
    }

    #[test]
    fn heat_lowers_the_rate_until_the_processor_is_cool() {
        let warm = shares(30, |_| 0.1, |second| Some(if second <= 5 { 80.0 } else { 75.0 }));
        assert_eq!((warm[4], warm[29]), (0.5, 0.5));
        let cool = shares(30, |_| 0.1, |second| Some(if second <= 5 { 80.0 } else { 60.0 }));
        assert_eq!(cool[29], 1.0);
    }

    #[test]
    fn the_load_of_a_suspended_process_is_ignored() {
        let start = Instant::now();
        let mut shedder = LoadShedder::new(start);
        let later = start + Duration::from_secs(30);
        assert_eq!(shedder.record(Duration::from_secs(29), later, || None), None);
    }
}
