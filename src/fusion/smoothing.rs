//! Smooths the estimates over time.

use std::time::Duration;

use super::estimator::Affect;

/// An exponential moving average. It restarts after a tick without an estimate.
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

    /// The smoothed estimate at time `at`. `None` without a new estimate.
    pub fn next(&mut self, at: Duration, estimate: Option<Affect>) -> Option<Affect> {
        let smooth = match (self.last, estimate) {
            (Some((before, last)), Some(estimate)) => {
                let elapsed = at.saturating_sub(before).as_secs_f32();
                let weight = 1.0 - (-elapsed / self.time_constant.as_secs_f32()).exp();
                let blend = |old: f32, new: f32| old + weight * (new - old);
                Some(Affect {
                    valence: blend(last.valence, estimate.valence),
                    arousal: blend(last.arousal, estimate.arousal),
                    confidence: blend(last.confidence, estimate.confidence),
                })
            }
            (None, estimate) => estimate,
            (Some(_), None) => None,
        };
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

    #[test]
    fn the_output_follows_63_percent_of_a_step_after_the_time_constant() {
        let mut smoother = Smoother::new(s(0.5));
        smoother.next(s(0.0), valence(0.0));
        let output = smoother.next(s(0.5), valence(1.0)).unwrap().valence;
        assert!((output - 0.632).abs() < 1e-3);
    }

    #[test]
    fn a_tick_without_an_estimate_restarts_the_average() {
        let mut smoother = Smoother::new(s(0.5));
        smoother.next(s(0.0), valence(-1.0));
        assert_eq!(smoother.next(s(0.2), None), None);
        assert_eq!(smoother.next(s(0.4), valence(1.0)), valence(1.0));
    }

    #[test]
    fn a_zero_time_constant_disables_the_smoothing() {
        let mut smoother = Smoother::new(Duration::ZERO);
        smoother.next(s(0.0), valence(0.0));
        assert_eq!(smoother.next(s(0.2), valence(1.0)), valence(1.0));
    }
}
