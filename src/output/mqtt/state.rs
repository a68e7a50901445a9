//! The message on the topic `state`: what the device sees at present, for dashboards and home automation.
//!
//! A recorder writes a row for each change of each value. So values change only if the change is worth a row: numbers have a
//! dead band, and presence is held over short gaps. Together they change at most 200 times a minute. `estimate` carries every
//! value.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::face::{EXPRESSIONS, Expressions};
use crate::fusion::{Affect, Estimate};
use crate::output::estimate::{rounded, time_of_day};

/// The version of the state's fields. It changes when a change could break a reader.
const SCHEMA: u32 = 1;
/// The shortest time between two messages.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time between two messages. Readers may consider a state of three times this age lost.
pub const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// Valence, arousal, confidence and expression change at most this often.
const AFFECT_INTERVAL: Duration = Duration::from_secs(2);
/// A value moves if it differs by this much.
const DEAD_BAND: f64 = 0.05;
/// After this time a value moves even if the difference is small.
const SETTLE_INTERVAL: Duration = Duration::from_secs(30);
/// The time between two latencies.
const LATENCY_INTERVAL: Duration = Duration::from_secs(30);
/// A face, and the values that depend on it, stay for this time after the last frame with a face.
const FACE_HOLD: Duration = Duration::from_secs(2);
/// The same for a voice. People pause between sentences.
const VOICE_HOLD: Duration = Duration::from_secs(3);
/// Another expression must be more probable by this much to replace the present one.
const EXPRESSION_MARGIN: f32 = 0.15;

/// The fields of the message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct State {
    schema: u32,
    /// The time of day; `None` if the clock is not synchronized.
    time: Option<String>,
    #[serde(flatten)]
    values: Values,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
struct Values {
    valence: Option<f64>,
    arousal: Option<f64>,
    confidence: Option<f64>,
    /// The most probable expression; `None` without a face.
    expression: Option<&'static str>,
    face: bool,
    /// `None` without a microphone.
    voice: Option<bool>,
    paused: bool,
    latency_ms: Option<u64>,
    rate_hz: f64,
}

/// Decides when a state is due and which values it has.
#[derive(Debug, Default)]
pub struct StateReporter {
    shown: Values,
    /// When the last message was made, and when the first may be.
    last: Option<Instant>,
    first_due: Option<Instant>,
    affect: Option<AffectShown>,
    newest_affect: Recent<Affect>,
    newest_expressions: Recent<Expressions>,
    voice: Recent<()>,
    latency: Option<Instant>,
}

/// When the values about the person last changed.
#[derive(Debug, Clone, Copy)]
struct AffectShown {
    changed: Instant,
    settled: Instant,
}

/// The newest value of something that is missing now and then.
#[derive(Debug, Clone, Copy)]
struct Recent<T>(Option<(Instant, T)>);

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent(None)
    }
}

impl<T: Copy> Recent<T> {
    /// Adds the value at `now`. Forgets a value that is older than `hold`.
    fn update(&mut self, value: Option<T>, now: Instant, hold: Duration) {
        if let Some(value) = value {
            self.0 = Some((now, value));
        }
        self.0 = self.0.filter(|(at, _)| now.saturating_duration_since(*at) < hold);
    }

    fn get(&self) -> Option<T> {
        self.0.map(|(_, value)| value)
    }
}

impl StateReporter {
    /// Adds an estimate. Returns the message if it is due. `rate_hz` is the rate of the estimates on this output. `wall` is the
    /// time of day, if it is known.
    pub fn add(&mut self, estimate: &Estimate, rate_hz: f64, now: Instant, wall: Option<SystemTime>) -> Option<State> {
        let expressions = estimate.face.map(|face| face.appearance.expressions());
        let voice = estimate.voice.as_ref();
        if estimate.paused {
            self.forget_person();
        }
        self.newest_expressions.update(expressions, now, FACE_HOLD);
        self.newest_affect.update(estimate.affect, now, FACE_HOLD);
        self.voice
            .update(voice.filter(|v| v.active).map(|_| ()), now, VOICE_HOLD);
        // The first message comes after a second: by then the device has received what it needs to know from the broker.
        let first_due = *self.first_due.get_or_insert(now + MIN_INTERVAL);
        let due = self.last.map_or(first_due, |last| last + MIN_INTERVAL);
        if now < due {
            return None;
        }
        let mut values = Values {
            face: self.newest_expressions.get().is_some(),
            voice: voice.map(|_| self.voice.get().is_some()),
            paused: estimate.paused,
            rate_hz,
            ..self.shown.clone()
        };
        self.update_affect(&mut values, now);
        self.update_latency(&mut values, estimate, now);
        let changed = values != self.shown;
        if !changed && self.last.is_some_and(|last| now < last + MAX_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        self.shown = values.clone();
        Some(State {
            schema: SCHEMA,
            time: wall.map(|wall| time_of_day(wall).to_string()),
            values,
        })
    }

    /// What was seen and heard before a pause is not shown during it, however short it was ago.
    fn forget_person(&mut self) {
        self.newest_affect = Recent(None);
        self.newest_expressions = Recent(None);
        self.voice = Recent(None);
        self.affect = None;
        self.latency = None;
        self.shown.latency_ms = None;
    }

    fn update_affect(&mut self, values: &mut Values, now: Instant) {
        if self.affect.is_some_and(|shown| now < shown.changed + AFFECT_INTERVAL) {
            return;
        }
        let before = values.clone();
        let settles = self.affect.is_none_or(|shown| now >= shown.settled + SETTLE_INTERVAL);
        match self.newest_affect.get() {
            Some(affect) => {
                let round = |value, low| rounded(value, low..=1.0, 2);
                follow(&mut values.valence, round(affect.valence, -1.0), settles);
                follow(&mut values.arousal, round(affect.arousal, -1.0), settles);
                follow(&mut values.confidence, round(affect.confidence, 0.0), settles);
            }
            None => (values.valence, values.arousal, values.confidence) = (None, None, None),
        }
        let expressions = self.newest_expressions.get();
        values.expression = expressions.and_then(|Expressions(all)| next_expression(values.expression, &all));
        if *values != before {
            self.affect = Some(AffectShown {
                changed: now,
                settled: match (settles, self.affect) {
                    (false, Some(shown)) => shown.settled,
                    _ => now,
                },
            });
        }
    }

    fn update_latency(&mut self, values: &mut Values, estimate: &Estimate, now: Instant) {
        let due = self.latency.is_none_or(|last| now >= last + LATENCY_INTERVAL);
        if due && let Some(latency) = estimate.latency(now) {
            values.latency_ms = u64::try_from(latency.as_millis()).ok();
            self.latency = Some(now);
        }
    }
}

/// Moves `shown` to `value` if the difference is larger than the dead band, or if `settles`.
fn follow(shown: &mut Option<f64>, value: Option<f64>, settles: bool) {
    let near = match (*shown, value) {
        // Both have two decimals, so the difference is exact up to this tolerance.
        (Some(shown), Some(value)) => (shown - value).abs() < DEAD_BAND - 1e-9,
        _ => false,
    };
    if !near || settles {
        *shown = value;
    }
}

/// The most probable expression. `shown` stays while it is almost as probable.
fn next_expression(shown: Option<&'static str>, probabilities: &[f32; EXPRESSIONS.len()]) -> Option<&'static str> {
    let all = || EXPRESSIONS.into_iter().zip(probabilities);
    let (name, most) = all().filter(|(_, p)| p.is_finite()).max_by(|a, b| a.1.total_cmp(b.1))?;
    let stays = all().any(|(other, p)| Some(other) == shown && p + EXPRESSION_MARGIN > *most);
    if stays { shown } else { Some(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::estimate::samples::{everything, nothing};
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_millis(200);

    /// The states of estimates that are 200 ms apart, with their times in seconds.
    fn states(estimates: impl IntoIterator<Item = Estimate>) -> Vec<(f64, Values)> {
        let mut reporter = StateReporter::default();
        let start = Instant::now();
        let mut states = Vec::new();
        for (k, estimate) in estimates.into_iter().enumerate() {
            let at = PERIOD * k as u32;
            if let Some(state) = reporter.add(&estimate, 5.0, start + at, None) {
                states.push((at.as_secs_f64(), state.values));
            }
        }
        states
    }

    fn person(valence: f32) -> Estimate {
        everything(Instant::now(), valence)
    }

    /// How often each value changes: the rows that a recorder writes.
    fn rows(states: &[(f64, Values)]) -> usize {
        let fields = |values: &Values| -> Vec<serde_json::Value> {
            let value = serde_json::to_value(values).unwrap();
            value.as_object().unwrap().values().cloned().collect()
        };
        let changes = |pair: &[(f64, Values)]| {
            let (before, after) = (fields(&pair[0].1), fields(&pair[1].1));
            before.iter().zip(&after).filter(|(a, b)| a != b).count()
        };
        states.windows(2).map(changes).sum()
    }

    #[test]
    fn a_state_has_every_field() {
        let mut reporter = StateReporter::default();
        let start = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_510_800_123);
        assert_eq!(reporter.add(&person(0.416), 5.0, start, Some(wall)), None);
        let state = reporter
            .add(&person(0.416), 5.0, start + MIN_INTERVAL, Some(wall))
            .unwrap();
        let State { values, .. } = &state;
        let values = Values {
            latency_ms: values.latency_ms.map(|_| 41),
            ..values.clone()
        };
        insta::assert_snapshot!(serde_json::to_string(&State { values, ..state }).unwrap(), @r#"{"schema":1,"time":"2026-11-24T09:00:00.123Z","valence":0.42,"arousal":0.18,"confidence":0.81,"expression":"happiness","face":true,"voice":true,"paused":false,"latency_ms":41,"rate_hz":5.0}"#);
    }

    #[test]
    fn an_empty_room_is_reported_every_five_seconds() {
        let states = states((0..=100).map(nothing));
        let times: Vec<f64> = states.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [1.0, 6.0, 11.0, 16.0]);
        let values = Values {
            rate_hz: 5.0,
            ..Values::default()
        };
        assert!(states.iter().all(|(_, v)| *v == values), "{states:?}");
    }

    #[test]
    fn a_pause_hides_what_was_seen_before_within_a_second() {
        let paused = |k: u64| Estimate::paused(k, PERIOD * k as u32);
        let states = states((0..20).map(|_| person(0.4)).chain((20..40).map(paused)));
        let (at, values) = states.iter().find(|(_, values)| values.paused).unwrap();
        assert!((4.0..=5.0).contains(at), "{at}");
        let nothing = Values {
            paused: true,
            rate_hz: 5.0,
            ..Values::default()
        };
        assert_eq!(*values, nothing);
        assert!(
            states.iter().all(|(at, values)| values.paused == (*at >= 4.0)),
            "{states:?}"
        );
    }

    #[test]
    fn small_movements_do_not_change_the_values() {
        let states = states((0..150).map(|k| person(0.40 + 0.02 * (k % 3) as f32)));
        let changes: Vec<_> = states
            .windows(2)
            .filter(|pair| pair[0].1.valence != pair[1].1.valence)
            .collect();
        assert!(changes.is_empty(), "{changes:?}");
    }

    #[test]
    fn a_large_movement_is_reported_within_two_seconds() {
        let states = states((0..100).map(|k| person(if k < 52 { 0.1 } else { -0.7 })));
        let (at, _) = states.iter().find(|(_, values)| values.valence == Some(-0.7)).unwrap();
        assert!((10.4..=12.4).contains(at), "{at}");
    }

    #[test]
    fn gaps_in_speech_and_lost_faces_are_bridged() {
        // A second without a voice and a face in every two.
        let states = states((0..100).map(|k| {
            if k % 10 < 5 {
                person(0.4)
            } else {
                Estimate {
                    voice: person(0.4)
                        .voice
                        .map(|v| crate::voice::VoiceObservation { active: false, ..v }),
                    ..nothing(1)
                }
            }
        }));
        assert!(
            states
                .iter()
                .all(|(_, v)| v.face && v.voice == Some(true) && v.valence == Some(0.4)),
            "{states:?}"
        );
    }

    #[test]
    fn a_person_who_leaves_is_unknown_after_a_few_seconds() {
        let states = states((0..60).map(|k| if k < 20 { person(0.4) } else { nothing(k) }));
        let (at, values) = states.iter().find(|(_, values)| values.valence.is_none()).unwrap();
        assert!((5.8..=8.0).contains(at), "{at}");
        assert_eq!((values.confidence, values.face, values.voice), (None, false, None));
        let last = &states.last().unwrap().1;
        assert_eq!((last.expression, last.arousal), (None, None));
    }

    #[test]
    fn an_expression_stays_while_another_is_hardly_more_probable() {
        let mut p = [0.0; 8];
        (p[0], p[1]) = (0.45, 0.5);
        assert_eq!(next_expression(Some("neutral"), &p), Some("neutral"));
        assert_eq!(next_expression(Some("anger"), &p), Some("happiness"));
        (p[0], p[1]) = (0.3, 0.6);
        assert_eq!(next_expression(Some("neutral"), &p), Some("happiness"));
        assert_eq!(next_expression(None, &[f32::NAN; 8]), None);
    }

    proptest! {
        #[test]
        fn no_person_causes_more_than_200_rows_a_minute(
            seconds in prop::collection::vec((any::<bool>(), any::<bool>(), -1.0f32..1.0, -1.0f32..1.0, 0.0f32..1.0, 0usize..8), 301)
        ) {
            let estimates = seconds.into_iter().map(|(face, voice, valence, arousal, confidence, expression)| {
                let mut estimate = person(valence);
                let mut probabilities = [0.0; 8];
                probabilities[expression] = 1.0;
                let affect = estimate.affect.as_mut().unwrap();
                (affect.arousal, affect.confidence) = (arousal, confidence);
                match estimate.face.as_mut() {
                    Some(observation) if face => observation.appearance.shown = Expressions(probabilities),
                    _ => estimate.face = None,
                }
                estimate.voice.as_mut().unwrap().active = voice;
                if !face && !voice {
                    estimate.affect = None;
                }
                estimate
            });
            let states = states(estimates);
            prop_assert!(rows(&states) <= 200, "{}", rows(&states));
            prop_assert!(states.windows(2).all(|pair| pair[1].0 - pair[0].0 > 0.999));
        }
    }
}
