//! Looks at fewer faces a second while the board is too busy or too hot, and at all again once it is not.

use std::time::{Duration, Instant};

/// How long it must last before anything changes.
const WINDOW: Duration = Duration::from_secs(5);
/// The share of its time that the face stage may work.
const BUDGET: f32 = 0.6;
/// It is raised again only if the work would then stay well below the budget, or it would be lowered at once.
const COMFORT: f32 = 0.45;
/// A Raspberry Pi slows itself down at 80 °C: sooner is smoother.
const HOT_C: f32 = 78.0;
const COOL_C: f32 = 72.0;
/// The steps, as shares of the configured rate.
const STEPS: [f32; 4] = [1.0, 0.5, 0.25, 0.1];

/// Watches the face stage at work.
#[derive(Debug)]
pub struct LoadShedder {
    step: usize,
    began: Instant,
    busy: Duration,
}

/// A change of the rate.
#[derive(Debug, PartialEq)]
pub struct Change {
    /// Of the configured rate.
    pub share: f32,
    /// In words, for the log.
    pub why: String,
}

impl LoadShedder {
    pub fn new(now: Instant) -> LoadShedder {
        LoadShedder {
            step: 0,
            began: now,
            busy: Duration::ZERO,
        }
    }

    /// Takes in that the stage worked for `busy` until `now`. Asks for the temperature once a window.
    pub fn worked(
        &mut self,
        busy: Duration,
        now: Instant,
        temperature_c: impl FnOnce() -> Option<f32>,
    ) -> Option<Change> {
        self.busy += busy;
        let window = now.saturating_duration_since(self.began);
        if window < WINDOW {
            return None;
        }
        let load = self.busy.as_secs_f32() / window.as_secs_f32();
        (self.began, self.busy) = (now, Duration::ZERO);
        // After the process stood still the window says nothing.
        if window > 2 * WINDOW {
            return None;
        }
        let heat = temperature_c();
        let hot = heat.filter(|&t| t >= HOT_C);
        let percent = (load * 100.0).round();
        if (load > BUDGET || hot.is_some()) && self.step + 1 < STEPS.len() {
            self.step += 1;
            let why = match hot {
                Some(t) => format!("the processor is at {t:.0} °C"),
                None => format!("it took {percent} % of the time"),
            };
            return Some(self.change(why));
        }
        let above = self.step.checked_sub(1)?;
        let then = load * STEPS[above] / STEPS[self.step];
        let cool = heat.is_none_or(|t| t <= COOL_C);
        (then < COMFORT && cool).then(|| {
            self.step = above;
            self.change(format!("it takes {percent} % of the time now"))
        })
    }

    fn change(&self, why: String) -> Change {
        Change {
            share: STEPS[self.step],
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate's share after each second of a face stage that takes `cost` seconds of work a second at the full rate.
    fn run(seconds: u64, cost: impl Fn(u64) -> f32, heat: impl Fn(u64) -> Option<f32>) -> Vec<f32> {
        let start = Instant::now();
        let mut pressure = LoadShedder::new(start);
        let mut share = 1.0;
        (1..=seconds)
            .map(|second| {
                let busy = Duration::from_secs_f32(cost(second) * share);
                let now = start + Duration::from_secs(second);
                if let Some(change) = pressure.worked(busy, now, || heat(second)) {
                    share = change.share;
                }
                share
            })
            .collect()
    }

    #[test]
    fn load_above_budget_lowers_the_rate_step_by_step_until_it_fits() {
        let shares = run(30, |_| 0.9, |_| None);
        assert_eq!(shares[3], 1.0);
        assert_eq!(shares[4], 0.5);
        assert!(shares[4..].iter().all(|&share| share == 0.5), "{shares:?}");
    }

    #[test]
    fn it_is_raised_again_once_there_is_room() {
        let shares = run(40, |second| if second <= 10 { 2.0 } else { 0.3 }, |_| None);
        assert_eq!(shares[9], 0.25);
        assert_eq!(shares[39], 1.0);
    }

    #[test]
    fn heat_lowers_it_too_and_only_cool_raises_it() {
        let shares = run(30, |_| 0.1, |second| Some(if second <= 5 { 80.0 } else { 75.0 }));
        assert_eq!((shares[4], shares[29]), (0.5, 0.5));
        let shares = run(30, |_| 0.1, |second| Some(if second <= 5 { 80.0 } else { 60.0 }));
        assert_eq!(shares[29], 1.0);
    }

    #[test]
    fn a_process_that_stood_still_was_not_busy() {
        let start = Instant::now();
        let mut pressure = LoadShedder::new(start);
        let later = start + Duration::from_secs(30);
        assert_eq!(pressure.worked(Duration::from_secs(29), later, || None), None);
    }
}
