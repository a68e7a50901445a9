//! Smooths the estimates over time.

use std::time::Duration;

use super::estimator::Affect;

/// An exponential moving average. It starts at neutral with a confidence of zero, so that the first impression of a person is no
/// outburst. It restarts there after a tick without an estimate.
#[derive(Debug)]
pub struct Smoother {
    time_constant: Duration,
    last: Option<(Duration, Affect)>,
}

impl Smoother {
    /// After `time_constant`, the output has followed 63 % of a step. Zero disables the smoothing.
    pub fn new(time_constant: Duration) -> Smoother {
        Smoother {
            time_constant,
            last: None,
        }
    }

    /// Starts again at neutral, for another person.
    pub fn restart(&mut self) {
        self.last = None;
    }

    /// The smoothed estimate at time `at`. `None` without a new estimate. `period` is the time between two estimates.
    pub fn next(&mut self, at: Duration, period: Duration, estimate: Option<Affect>) -> Option<Affect> {
        let smooth = estimate.map(|estimate| {
            let (before, last) = self.last.unwrap_or((at.saturating_sub(period), Affect::NEUTRAL));
            let elapsed = at.saturating_sub(before).as_secs_f32();
            let weight = 1.0 - (-elapsed / self.time_constant.as_secs_f32()).exp();
            let blend = |old: f32, new: f32| old + weight * (new - old);
            Affect {
                valence: blend(last.valence, estimate.valence),
                arousal: blend(last.arousal, estimate.arousal),
                confidence: blend(last.confidence, estimate.confidence),
            }
        });
        self.last = smooth.map(|affect| (at, affect));
        smooth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valence(valence: f32) -> Option<Affect> {
        Some(Affect {
            valence,
            arousal: 0.0,
            confidence: 0.5,
        })
    }

    fn s(s: f32) -> Duration {
        Duration::from_secs_f32(s)
    }

    const PERIOD: Duration = Duration::from_millis(200);

    #[test]
    fn the_first_output_moves_from_neutral_by_one_period() {
        let mut smoother = Smoother::new(s(0.5));
        let first = smoother.next(s(7.0), PERIOD, valence(1.0)).unwrap();
        let weight = 1.0 - (-0.4f32).exp();
        assert!((first.valence - weight).abs() < 1e-6);
        assert!((first.confidence - 0.5 * weight).abs() < 1e-6);
    }

    #[test]
    fn the_output_follows_63_percent_of_a_step_after_the_time_constant() {
        let mut smoother = Smoother::new(s(0.5));
        smoother.next(s(0.0), PERIOD, valence(0.0));
        let output = smoother.next(s(0.5), PERIOD, valence(1.0)).unwrap().valence;
        assert!((output - 0.632).abs() < 1e-3);
    }

    #[test]
    fn a_tick_without_an_estimate_and_another_person_restart_the_average() {
        let mut smoother = Smoother::new(s(0.5));
        let first = smoother.next(s(0.2), PERIOD, valence(1.0));
        assert_eq!(smoother.next(s(0.4), PERIOD, None), None);
        let again = smoother.next(s(0.6), PERIOD, valence(1.0));
        assert!((again.unwrap().valence - first.unwrap().valence).abs() < 1e-6);
        smoother.restart();
        let other = smoother.next(s(0.8), PERIOD, valence(-1.0));
        assert!((other.unwrap().valence + first.unwrap().valence).abs() < 1e-6);
    }

    #[test]
    fn a_zero_time_constant_disables_the_smoothing() {
        let mut smoother = Smoother::new(Duration::ZERO);
        assert_eq!(smoother.next(s(0.2), PERIOD, valence(0.5)), valence(0.5));
        assert_eq!(smoother.next(s(0.4), PERIOD, valence(1.0)), valence(1.0));
    }
}
