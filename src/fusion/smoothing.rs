//! Steadying the estimates without holding back a real change.

use std::time::Duration;

use super::estimator::Affect;

/// An exponential average over time, started afresh whenever there was nothing to estimate.
#[derive(Debug)]
pub struct Smoother {
    time_constant: Duration,
    last: Option<(Duration, Affect)>,
}

impl Smoother {
    /// After `time_constant`, 63 % of a sudden change has come through; zero smooths nothing.
    pub fn new(time_constant: Duration) -> Smoother {
        Smoother {
            time_constant,
            last: None,
        }
    }

    pub fn next(&mut self, at: Duration, fresh: Option<Affect>) -> Option<Affect> {
        let smooth = match (self.last, fresh) {
            (Some((before, last)), Some(fresh)) => {
                let elapsed = at.saturating_sub(before).as_secs_f32();
                let weight = 1.0 - (-elapsed / self.time_constant.as_secs_f32()).exp();
                let blend = |old: f32, new: f32| old + weight * (new - old);
                Some(Affect {
                    valence: blend(last.valence, fresh.valence),
                    arousal: blend(last.arousal, fresh.arousal),
                    confidence: blend(last.confidence, fresh.confidence),
                })
            }
            (None, fresh) => fresh,
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
    fn most_of_a_sudden_change_is_through_after_the_time_constant() {
        let mut smoother = Smoother::new(s(0.5));
        smoother.next(s(0.0), valence(0.0));
        let through = smoother.next(s(0.5), valence(1.0)).unwrap().valence;
        assert!((through - 0.632).abs() < 1e-3);
    }

    #[test]
    fn after_nothing_it_starts_afresh() {
        let mut smoother = Smoother::new(s(0.5));
        smoother.next(s(0.0), valence(-1.0));
        assert_eq!(smoother.next(s(0.2), None), None);
        assert_eq!(smoother.next(s(0.4), valence(1.0)), valence(1.0));
    }

    #[test]
    fn a_zero_time_constant_lets_everything_through() {
        let mut smoother = Smoother::new(Duration::ZERO);
        smoother.next(s(0.0), valence(0.0));
        assert_eq!(smoother.next(s(0.2), valence(1.0)), valence(1.0));
    }
}
