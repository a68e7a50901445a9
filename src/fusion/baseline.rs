//! What counts as neutral in one person.
//!
//! A resting face is not neutral to the network in everybody: some look glad, some stern. A calibration takes the mean of what
//! is estimated while the person is at rest for that person's zero, and bends the scale so that −1 and +1 stay where they are.

use std::time::Duration;

use log::info;

use super::estimator::Affect;

/// How long a person is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Fewer seconds of estimates than this within [`WATCHED`] are no calibration.
const LEAST: Duration = Duration::from_secs(4);
/// A mean farther from zero than this is a mood, not a face: the zero moves no farther.
const FARTHEST: f32 = 0.5;

/// Whose rest is measured without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaselineMode {
    /// Nobody's: only on demand.
    OnDemand,
    /// Everybody's: the first ten seconds of each new face are taken for its rest.
    EachPerson,
}

#[derive(Debug)]
pub struct Baseline {
    mode: BaselineMode,
    person: Option<u32>,
    watching: Option<Watching>,
    /// Where the person's rest lies, valence and arousal.
    rest: [f32; 2],
}

#[derive(Debug)]
struct Watching {
    since: Duration,
    sum: [f32; 2],
    estimates: u32,
}

impl Baseline {
    pub fn new(mode: BaselineMode) -> Baseline {
        Baseline {
            mode,
            person: None,
            watching: None,
            rest: [0.0; 2],
        }
    }

    /// Forgets the zero and takes the next ten seconds for the person's rest.
    pub fn start(&mut self, at: Duration) {
        self.rest = [0.0; 2];
        self.watching = Some(Watching {
            since: at,
            sum: [0.0; 2],
            estimates: 0,
        });
    }

    /// `raw` as seen from the person's rest. `person` is the face in view, if there is one; estimates are `period` apart.
    pub fn apply(&mut self, at: Duration, period: Duration, person: Option<u32>, raw: Affect) -> Affect {
        if let Some(person) = person
            && self.person.replace(person) != Some(person)
            && self.mode == BaselineMode::EachPerson
        {
            self.start(at);
        }
        if let Some(watching) = &mut self.watching {
            if at.saturating_sub(watching.since) < WATCHED {
                watching.sum[0] += raw.valence;
                watching.sum[1] += raw.arousal;
                watching.estimates += 1;
            } else {
                self.conclude(period);
            }
        }
        Affect {
            valence: from_rest(raw.valence, self.rest[0]),
            arousal: from_rest(raw.arousal, self.rest[1]),
            ..raw
        }
    }

    fn conclude(&mut self, period: Duration) {
        let Some(watching) = self.watching.take() else { return };
        if period * watching.estimates < LEAST {
            info!(
                "neutral calibration: too little was estimated in {WATCHED:?}; the zero stays where the model has it"
            );
            return;
        }
        self.rest = watching
            .sum
            .map(|sum| (sum / watching.estimates as f32).clamp(-FARTHEST, FARTHEST));
        info!(
            "neutral calibration: rest is at valence {:.2}, arousal {:.2}",
            self.rest[0], self.rest[1]
        );
    }
}

/// Piecewise linear: `rest` becomes 0, −1 and +1 stay.
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

    /// What is said after `seconds` of `valence` by `person`.
    fn after(baseline: &mut Baseline, from_s: u64, seconds: u64, person: u32, valence: f32) -> Affect {
        let mut said = affect(valence);
        for tick in 0..=seconds * 5 {
            let at = Duration::from_secs(from_s) + PERIOD * tick as u32;
            said = baseline.apply(at, PERIOD, Some(person), affect(valence));
        }
        said
    }

    #[test]
    fn on_demand_the_next_ten_seconds_become_zero() {
        let mut baseline = Baseline::new(BaselineMode::OnDemand);
        assert_eq!(after(&mut baseline, 0, 20, 1, 0.3), affect(0.3));
        baseline.start(Duration::from_secs(20));
        let said = after(&mut baseline, 20, 11, 1, 0.3);
        assert!(said.valence.abs() < 1e-6 && said.arousal.abs() < 1e-6);
        assert_eq!(said.confidence, 0.5);
    }

    #[test]
    fn each_new_person_is_watched_and_the_same_person_keeps_the_zero() {
        let mut baseline = Baseline::new(BaselineMode::EachPerson);
        assert!(after(&mut baseline, 0, 11, 1, 0.3).valence.abs() < 1e-6);
        assert!(after(&mut baseline, 11, 11, 1, 0.65).valence > 0.49);
        assert!(after(&mut baseline, 22, 5, 2, -0.2).valence < -0.19);
        assert!(after(&mut baseline, 27, 6, 2, -0.2).valence.abs() < 1e-6);
    }

    #[test]
    fn a_glimpse_is_no_calibration() {
        let mut baseline = Baseline::new(BaselineMode::OnDemand);
        baseline.start(Duration::ZERO);
        after(&mut baseline, 0, 2, 1, 0.3);
        assert_eq!(after(&mut baseline, 30, 1, 1, 0.3), affect(0.3));
    }

    proptest! {
        #[test]
        fn the_scale_keeps_its_ends_and_its_order(rest in -FARTHEST..FARTHEST, a in -1.0f32..=1.0, b in -1.0f32..=1.0) {
            prop_assert!((from_rest(1.0, rest) - 1.0).abs() < 1e-6);
            prop_assert!((from_rest(-1.0, rest) + 1.0).abs() < 1e-6);
            prop_assert!(from_rest(rest, rest) == 0.0);
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(from_rest(low, rest) <= from_rest(high, rest));
        }
    }
}
