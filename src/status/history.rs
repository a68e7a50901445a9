//! The last ten minutes, second by second, so that a page that is opened after an incident shows it.

use std::collections::VecDeque;

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use crate::fusion::Estimate;
use crate::output::estimate::rounded;

/// Seconds that are kept.
const SECONDS: usize = 600;

#[derive(Debug, Default)]
pub struct History {
    seconds: VecDeque<Second>,
}

/// One second of the source's clock.
#[derive(Debug, Default, Clone, PartialEq)]
struct Second {
    number: u64,
    valence: Mean,
    arousal: Mean,
    confidence: Mean,
    level_db: Mean,
    face: bool,
    speech: bool,
    paused: bool,
}

/// The mean of the values that were known.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Mean {
    sum: f32,
    count: u16,
}

impl Mean {
    fn add(&mut self, value: Option<f32>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.sum += value;
            self.count = self.count.saturating_add(1);
        }
    }

    fn rounded(self, digits: i32) -> Option<f64> {
        rounded(self.sum / f32::from(self.count), f32::MIN..=f32::MAX, digits)
    }
}

impl History {
    pub fn add(&mut self, estimate: &Estimate) {
        let number = estimate.at.as_secs();
        if self.seconds.back().is_none_or(|last| last.number != number) {
            if self.seconds.len() == SECONDS {
                self.seconds.pop_front();
            }
            self.seconds.push_back(Second {
                number,
                ..Second::default()
            });
        }
        let Some(second) = self.seconds.back_mut() else { return };
        let affect = estimate.affect.as_ref();
        second.valence.add(affect.map(|affect| affect.valence));
        second.arousal.add(affect.map(|affect| affect.arousal));
        second.confidence.add(affect.map(|affect| affect.confidence));
        let voice = estimate.voice.as_ref();
        second.level_db.add(voice.and_then(|voice| voice.level_db));
        second.face |= estimate.from_face;
        second.speech |= voice.is_some_and(|voice| voice.active);
        second.paused |= estimate.paused;
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.seconds.len()))?;
        for second in &self.seconds {
            let flags = u8::from(second.face) + 2 * u8::from(second.speech) + 4 * u8::from(second.paused);
            rows.serialize_element(&(
                second.number,
                second.valence.rounded(3),
                second.arousal.rounded(3),
                second.confidence.rounded(3),
                second.level_db.rounded(1),
                flags,
            ))?;
        }
        rows.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::estimate::samples::{everything, nothing};
    use std::time::{Duration, Instant};

    #[test]
    fn a_second_has_the_means_of_what_is_known() {
        let mut history = History::default();
        let at = |ms, estimate| Estimate {
            at: Duration::from_millis(ms),
            ..estimate
        };
        history.add(&at(1200, everything(Instant::now(), 0.2)));
        history.add(&at(1400, everything(Instant::now(), 0.4)));
        history.add(&at(1600, nothing(3)));
        history.add(&at(1800, everything(Instant::now(), f32::NAN)));
        history.add(&Estimate::paused(5, Duration::from_secs(2)));
        let json = serde_json::to_string(&history).unwrap();
        assert_eq!(json, "[[1,0.3,0.18,0.81,-23.1,3],[2,null,null,null,null,4]]");
    }

    #[test]
    fn ten_minutes_are_kept() {
        let mut history = History::default();
        for second in 0..1000 {
            history.add(&Estimate::paused(second, Duration::from_secs(second)));
        }
        assert_eq!(history.seconds.len(), SECONDS);
        assert_eq!(history.seconds[0].number, 400);
    }
}
