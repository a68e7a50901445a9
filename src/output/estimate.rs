//! The estimate as one JSON object. `cross/messages.md` documents every field and
//! `cross/schema/estimate.schema.json` is its JSON Schema.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::face::EXPRESSIONS;
use crate::face::geometry::Rect;
use crate::fusion::{Affect, Estimate};

/// The version of the estimate's fields. It changes when a change could break a reader.
pub const SCHEMA: u32 = 1;
/// Less likely expressions are left out of the line.
const MIN_SHOWN_PROBABILITY: f32 = 0.05;

/// Appends `estimate` as a JSON object without a line end. `now` gives the latency, `wall` the time of day if it is known.
pub fn write_json(estimate: &Estimate, line: &mut Vec<u8>, now: Instant, wall: Option<SystemTime>) {
    let affect = |value: fn(&Affect) -> f32, range| rounded(value(estimate.affect.as_ref()?), range, 3);
    let json = Json {
        schema: SCHEMA,
        seq: estimate.seq,
        t: seconds(estimate.at),
        time: wall.map(|w| time_of_day(w).to_string()),
        paused: estimate.paused,
        valence: affect(|a| a.valence, -1.0..=1.0),
        arousal: affect(|a| a.arousal, -1.0..=1.0),
        confidence: affect(|a| a.confidence, 0.0..=1.0),
        modalities: [(estimate.from_face, "face"), (estimate.from_voice, "voice")]
            .into_iter()
            .filter_map(|(present, name)| present.then_some(name))
            .collect(),
        face: estimate
            .face
            .as_ref()
            .and_then(|face| FaceJson::new(face.id, face.bounds, face.score)),
        voice: estimate.voice.as_ref().map(|voice| VoiceJson {
            active: voice.active,
            level_db: voice.level_db.and_then(|db| rounded(db, ANY_LEVEL_DB, 1)),
        }),
        expression: estimate
            .face
            .as_ref()
            .map(|f| ExpressionJson::new(&f.appearance.expressions().0)),
        latency_ms: latency_ms(estimate, now),
    };
    serde_json::to_writer(line, &json).expect("plain numbers and strings serialize into memory");
}

/// The finite levels.
pub const ANY_LEVEL_DB: RangeInclusive<f32> = f32::MIN..=f32::MAX;

/// Milliseconds from the capture of the newest observation in `estimate` until `now`; `None` if there is no observation.
pub fn latency_ms(estimate: &Estimate, now: Instant) -> Option<u64> {
    let latency = estimate.latency(now)?;
    Some(latency.as_millis().try_into().unwrap_or(u64::MAX))
}

/// Seconds, rounded to the millisecond.
pub fn seconds(at: Duration) -> f64 {
    (at.as_secs_f64() * 1000.0).round() / 1000.0
}

pub fn time_of_day(wall: SystemTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_millis(wall)
}

/// `value` clamped to `range` and rounded to `digits` decimals, never −0; `None` if it is not finite.
pub fn rounded(value: f32, range: RangeInclusive<f32>, digits: i32) -> Option<f64> {
    let scale = 10f64.powi(digits);
    value
        .is_finite()
        .then(|| (f64::from(value.clamp(*range.start(), *range.end())) * scale).round() / scale + 0.0)
}

#[derive(serde::Serialize)]
struct Json {
    schema: u32,
    seq: u64,
    t: f64,
    time: Option<String>,
    paused: bool,
    valence: Option<f64>,
    arousal: Option<f64>,
    confidence: Option<f64>,
    modalities: Vec<&'static str>,
    face: Option<FaceJson>,
    voice: Option<VoiceJson>,
    expression: Option<ExpressionJson>,
    latency_ms: Option<u64>,
}

#[derive(serde::Serialize)]
struct FaceJson {
    id: u32,
    /// x, y, width, height.
    #[serde(rename = "box")]
    bounds: [f64; 4],
    score: f64,
}

impl FaceJson {
    /// `None` if a number is not finite, because readers expect all fields of a face.
    fn new(id: u32, bounds: Rect, score: f32) -> Option<FaceJson> {
        let fraction = |value, digits| rounded(value, 0.0..=1.0, digits);
        Some(FaceJson {
            id,
            bounds: [
                fraction(bounds.x, 3)?,
                fraction(bounds.y, 3)?,
                fraction(bounds.w, 3)?,
                fraction(bounds.h, 3)?,
            ],
            score: fraction(score, 2)?,
        })
    }
}

#[derive(serde::Serialize)]
struct VoiceJson {
    active: bool,
    level_db: Option<f64>,
}

/// The likely expressions with their probabilities, most likely first.
struct ExpressionJson(Vec<(&'static str, f64)>);

impl ExpressionJson {
    fn new(probabilities: &[f32; 8]) -> ExpressionJson {
        let mut likely: Vec<(&'static str, f64)> = EXPRESSIONS
            .into_iter()
            .zip(*probabilities)
            .filter(|(_, p)| *p >= MIN_SHOWN_PROBABILITY)
            .filter_map(|(name, p)| Some((name, rounded(p, 0.0..=1.0, 2)?)))
            .collect();
        likely.sort_by(|a, b| b.1.total_cmp(&a.1));
        ExpressionJson(likely)
    }
}

impl Serialize for ExpressionJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, p) in &self.0 {
            map.serialize_entry(name, p)?;
        }
        map.end()
    }
}

/// Estimates for the tests of all outputs.
#[cfg(test)]
pub mod samples {
    use super::*;
    use crate::face::geometry::Rect;
    use crate::face::{Appearance, Expressions, FaceObservation};
    use crate::voice::VoiceObservation;

    pub fn nothing(seq: u64) -> Estimate {
        Estimate {
            seq,
            at: Duration::from_millis(200),
            affect: None,
            from_face: false,
            from_voice: false,
            face: None,
            voice: None,
            paused: false,
        }
    }

    pub fn everything(captured: Instant, valence: f32) -> Estimate {
        let mut expressions = [0.0; 8];
        expressions[0] = 0.11;
        expressions[1] = 0.83;
        expressions[2] = 0.04;
        expressions[3] = 0.02;
        Estimate {
            seq: 1042,
            at: Duration::from_millis(208_400),
            affect: Some(Affect {
                valence,
                arousal: 0.1804,
                confidence: 0.81,
            }),
            from_face: true,
            from_voice: true,
            face: Some(FaceObservation {
                at: Duration::from_millis(208_390),
                captured,
                id: 3,
                bounds: Rect {
                    x: 0.31,
                    y: 0.22,
                    w: 0.18,
                    h: 0.24,
                },
                score: 0.97,
                frame_interval: Duration::from_millis(100),
                appearance: Appearance {
                    votes: Expressions(expressions),
                    shown: Expressions(expressions),
                    valence: 0.0,
                    arousal: 0.0,
                },
                outline: Default::default(),
            }),
            voice: Some(VoiceObservation {
                captured,
                active: true,
                level_db: Some(-23.14),
                embedding: None,
            }),
            paused: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{everything, nothing};
    use super::*;
    use proptest::prelude::*;

    fn line(estimate: &Estimate, now: Instant, wall: Option<SystemTime>) -> String {
        let mut line = Vec::new();
        write_json(estimate, &mut line, now, wall);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_full_estimate_has_every_field() {
        let captured = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_510_800_123);
        let now = captured + Duration::from_millis(41);
        insta::assert_snapshot!(line(&everything(captured, 0.42), now, Some(wall)), @r#"{"schema":1,"seq":1042,"t":208.4,"time":"2026-11-24T09:00:00.123Z","paused":false,"valence":0.42,"arousal":0.18,"confidence":0.81,"modalities":["face","voice"],"face":{"id":3,"box":[0.31,0.22,0.18,0.24],"score":0.97},"voice":{"active":true,"level_db":-23.1},"expression":{"happiness":0.83,"neutral":0.11},"latency_ms":41}"#);
    }

    #[test]
    fn an_estimate_from_nothing_has_every_field() {
        insta::assert_snapshot!(line(&nothing(1), Instant::now(), None), @r#"{"schema":1,"seq":1,"t":0.2,"time":null,"paused":false,"valence":null,"arousal":null,"confidence":null,"modalities":[],"face":null,"voice":null,"expression":null,"latency_ms":null}"#);
    }

    #[test]
    fn an_estimate_of_a_pause_has_every_field() {
        let paused = Estimate::paused(7, Duration::from_millis(1400));
        insta::assert_snapshot!(line(&paused, Instant::now(), None), @r#"{"schema":1,"seq":7,"t":1.4,"time":null,"paused":true,"valence":null,"arousal":null,"confidence":null,"modalities":[],"face":null,"voice":null,"expression":null,"latency_ms":null}"#);
    }

    proptest! {
        #[test]
        fn lines_contain_neither_nan_nor_minus_zero(valence in proptest::num::f32::ANY) {
            let captured = Instant::now();
            let text = line(&everything(captured, valence), captured, None);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(json["valence"].is_null(), !valence.is_finite());
            prop_assert!(!text.contains("NaN") && !text.contains("-0.0,"));
        }
    }
}
