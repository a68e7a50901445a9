//! The neutral calibration of a person.
//!
//! The network does not rate every resting face as neutral: some faces look happy at rest, others stern. A calibration averages
//! the estimates of a person at rest. That average becomes zero, and the scale is adjusted so that −1 and +1 stay fixed.

use std::time::Duration;

use log::info;

use super::estimator::Affect;

/// Duration of a calibration.
const CALIBRATION: Duration = Duration::from_secs(10);
/// A calibration fails with fewer seconds of estimates than this.
const MIN_ESTIMATED: Duration = Duration::from_secs(4);
/// The largest offset. A larger average shows a mood, not a resting face.
const MAX_OFFSET: f32 = 0.5;

/// When a calibration starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaselineMode {
    /// Only on request.
    OnDemand,
    /// On request, and in the first ten seconds of each new face.
    EachPerson,
}

/// Valence and arousal of a person at rest.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    valence: f32,
    arousal: f32,
}

#[derive(Debug)]
pub struct Baseline {
    mode: BaselineMode,
    person: Option<u32>,
    calibration: Option<Calibration>,
    /// The person's averages at rest.
    rest: Rest,
}

#[derive(Debug)]
struct Calibration {
    since: Duration,
    sum: Rest,
    estimates: u32,
}

impl Baseline {
    pub fn new(mode: BaselineMode) -> Baseline {
        Baseline {
            mode,
            person: None,
            calibration: None,
            rest: Rest::default(),
        }
    }

    /// Forgets the person and a calibration in progress.
    pub fn forget(&mut self) {
        *self = Baseline::new(self.mode);
    }

    /// Starts a calibration. Until it ends, the estimates are not adjusted.
    pub fn start(&mut self, at: Duration) {
        self.rest = Rest::default();
        self.calibration = Some(Calibration {
            since: at,
            sum: Rest::default(),
            estimates: 0,
        });
    }

    /// Adjusts the estimate `raw` to the person's rest. `person` is the id of the face in view. `period` is the time between two
    /// estimates.
    pub fn apply(&mut self, at: Duration, period: Duration, person: Option<u32>, raw: Affect) -> Affect {
        if let Some(person) = person
            && self.person.replace(person) != Some(person)
            && self.mode == BaselineMode::EachPerson
        {
            self.start(at);
        }
        if let Some(calibration) = &mut self.calibration {
            if at.saturating_sub(calibration.since) < CALIBRATION {
                calibration.sum.valence += raw.valence;
                calibration.sum.arousal += raw.arousal;
                calibration.estimates += 1;
            } else {
                self.conclude(period);
            }
        }
        Affect {
            valence: from_rest(raw.valence, self.rest.valence),
            arousal: from_rest(raw.arousal, self.rest.arousal),
            ..raw
        }
    }

    fn conclude(&mut self, period: Duration) {
        let Some(calibration) = self.calibration.take() else {
            return;
        };
        if period * calibration.estimates < MIN_ESTIMATED {
            info!("neutral calibration failed: too few estimates in {CALIBRATION:?}; estimates are not adjusted");
            return;
        }
        let mean = |sum: f32| (sum / calibration.estimates as f32).clamp(-MAX_OFFSET, MAX_OFFSET);
        self.rest = Rest {
            valence: mean(calibration.sum.valence),
            arousal: mean(calibration.sum.arousal),
        };
        info!(
            "neutral calibration: at rest, valence is {:.2}, arousal is {:.2}",
            self.rest.valence, self.rest.arousal
        );
    }
}

/// Piecewise linear: maps `rest` to 0 and keeps −1 and +1.
fn from_rest(value: f32, rest: f32) -> f32 {
    let room = if value >= rest { 1.0 - rest } else { 1.0 + rest };
    (value - rest) / room
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_millis(200);

    fn affect(valence: f32) -> Affect {
        Affect {
            valence,
            arousal: -0.1,
            confidence: 0.5,
        }
    }

    /// The adjusted estimate after `seconds` of `valence`.
    fn after(baseline: &mut Baseline, from_s: u64, seconds: u64, person: u32, valence: f32) -> Affect {
        let mut adjusted = affect(valence);
        for tick in 0..=seconds * 5 {
            let at = Duration::from_secs(from_s) + PERIOD * tick as u32;
            adjusted = baseline.apply(at, PERIOD, Some(person), affect(valence));
        }
        adjusted
    }

    #[test]
    fn on_request_the_next_ten_seconds_become_zero() {
        let mut baseline = Baseline::new(BaselineMode::OnDemand);
        assert_eq!(after(&mut baseline, 0, 20, 1, 0.3), affect(0.3));
        baseline.start(Duration::from_secs(20));
        let adjusted = after(&mut baseline, 20, 11, 1, 0.3);
        assert!(adjusted.valence.abs() < 1e-6 && adjusted.arousal.abs() < 1e-6);
        assert_eq!(adjusted.confidence, 0.5);
    }

    #[test]
    fn each_new_person_is_calibrated_once() {
        let mut baseline = Baseline::new(BaselineMode::EachPerson);
        assert!(after(&mut baseline, 0, 11, 1, 0.3).valence.abs() < 1e-6);
        assert!(after(&mut baseline, 11, 11, 1, 0.65).valence > 0.49);
        assert!(after(&mut baseline, 22, 5, 2, -0.2).valence < -0.19);
        assert!(after(&mut baseline, 27, 6, 2, -0.2).valence.abs() < 1e-6);
    }

    #[test]
    fn what_is_forgotten_adjusts_nobody() {
        let mut baseline = Baseline::new(BaselineMode::OnDemand);
        baseline.start(Duration::ZERO);
        after(&mut baseline, 0, 11, 1, 0.3);
        assert!(after(&mut baseline, 11, 1, 1, 0.3).valence.abs() < 1e-6);
        baseline.forget();
        assert_eq!(after(&mut baseline, 12, 11, 1, 0.3), affect(0.3));
    }

    #[test]
    fn a_calibration_with_too_few_estimates_changes_nothing() {
        let mut baseline = Baseline::new(BaselineMode::OnDemand);
        baseline.start(Duration::ZERO);
        after(&mut baseline, 0, 2, 1, 0.3);
        assert_eq!(after(&mut baseline, 30, 1, 1, 0.3), affect(0.3));
    }

    proptest! {
        #[test]
        fn the_scale_keeps_its_ends_and_its_order(rest in -MAX_OFFSET..MAX_OFFSET, a in -1.0f32..=1.0, b in -1.0f32..=1.0) {
            prop_assert!((from_rest(1.0, rest) - 1.0).abs() < 1e-6);
            prop_assert!((from_rest(-1.0, rest) + 1.0).abs() < 1e-6);
            prop_assert!(from_rest(rest, rest) == 0.0);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(from_rest(low, rest) <= from_rest(high, rest));
        }
    }
}
