//! The estimate, as users and scripts read it. Schema 1: a change that could break a reader bumps the number.

use std::time::{Duration, Instant, SystemTime};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::face::EXPRESSIONS;
use crate::fusion::{Affect, Estimate};

pub const SCHEMA: u32 = 1;
/// Expressions less likely than this are left out of the line.
const MIN_SHOWN: f32 = 0.05;

/// Appends `estimate` as a JSON object: `now` gives the latency, `wall` the time of day if it is known.
pub fn write_json(estimate: &Estimate, line: &mut Vec<u8>, now: Instant, wall: Option<SystemTime>) {
    let affect = |value: fn(&Affect) -> f32| estimate.affect.as_ref().map(|a| rounded(value(a), 3));
    let json = Json {
        schema: SCHEMA,
        seq: estimate.seq,
        t: seconds(estimate.at),
        time: wall.map(|w| time_of_day(w).to_string()),
        valence: affect(|a| a.valence),
        arousal: affect(|a| a.arousal),
        confidence: affect(|a| a.confidence),
        modalities: [(estimate.from_face, "face"), (estimate.from_voice, "voice")]
            .into_iter()
            .filter_map(|(present, name)| present.then_some(name))
            .collect(),
        face: estimate.face.as_ref().map(|f| FaceJson {
            id: f.id,
            bounds: [f.bounds.x, f.bounds.y, f.bounds.w, f.bounds.h].map(|v| rounded(v, 3)),
            score: rounded(f.score, 2),
        }),
        voice: estimate.voice.as_ref().map(|v| VoiceJson {
            active: v.active,
            level_db: v.level_db.map(|db| rounded(db, 1)),
        }),
        expression: estimate.face.as_ref().map(|f| ExpressionJson::of(&f.expressions.0)),
        latency_ms: latency_ms(estimate, now),
    };
    serde_json::to_writer(line, &json).expect("plain numbers and strings serialize into memory");
}

/// From the capture of the newest thing `estimate` rests on until `now`; `None` if it rests on nothing.
pub fn latency_ms(estimate: &Estimate, now: Instant) -> Option<u64> {
    let face = estimate.face.map(|f| f.captured);
    let voice = estimate.voice.as_ref().map(|v| v.captured);
    let newest = face.max(voice)?;
    Some(now.saturating_duration_since(newest).as_millis() as u64)
}

/// To the millisecond.
pub fn seconds(at: Duration) -> f64 {
    (at.as_secs_f64() * 1000.0).round() / 1000.0
}

pub fn time_of_day(wall: SystemTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_millis(wall)
}

/// To `digits` decimals, so that a line carries what is known and no more; never −0, and null if not a number.
pub fn rounded(value: f32, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (f64::from(value) * scale).round() / scale + 0.0
}

#[derive(serde::Serialize)]
struct Json {
    schema: u32,
    seq: u64,
    t: f64,
    time: Option<String>,
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
    #[serde(rename = "box")]
    bounds: [f64; 4],
    score: f64,
}

#[derive(serde::Serialize)]
struct VoiceJson {
    active: bool,
    level_db: Option<f64>,
}

/// The likely expressions, most likely first.
struct ExpressionJson(Vec<(&'static str, f64)>);

impl ExpressionJson {
    fn of(probabilities: &[f32; 8]) -> ExpressionJson {
        let mut likely: Vec<(&'static str, f32)> = EXPRESSIONS
            .into_iter()
            .zip(*probabilities)
            .filter(|(_, p)| *p >= MIN_SHOWN)
            .collect();
        likely.sort_by(|a, b| b.1.total_cmp(&a.1));
        ExpressionJson(likely.into_iter().map(|(name, p)| (name, rounded(p, 2))).collect())
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

/// Estimates for the tests of every output.
#[cfg(test)]
pub mod samples {
    use super::*;
    use crate::face::geometry::Rect;
    use crate::face::{Expressions, FaceObservation};
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
        }
    }

    pub fn everything(captured: Instant, valence: f32) -> Estimate {
        let mut expressions = [0.0; 8];
        expressions[0] = 0.11;
        expressions[1] = 0.83;
        expressions[2] = 0.04;
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
                expressions: Expressions(expressions),
            }),
            voice: Some(VoiceObservation {
                captured,
                active: true,
                level_db: Some(-23.14),
                embedding: None,
            }),
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
    fn a_full_line_reads_as_the_contract_says() {
        let captured = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_510_800_123);
        let now = captured + Duration::from_millis(41);
        insta::assert_snapshot!(line(&everything(captured, 0.42), now, Some(wall)), @r#"{"schema":1,"seq":1042,"t":208.4,"time":"2026-11-24T09:00:00.123Z","valence":0.42,"arousal":0.18,"confidence":0.81,"modalities":["face","voice"],"face":{"id":3,"box":[0.31,0.22,0.18,0.24],"score":0.97},"voice":{"active":true,"level_db":-23.1},"expression":{"happiness":0.83,"neutral":0.11},"latency_ms":41}"#);
    }

    #[test]
    fn a_line_about_nothing_is_still_whole() {
        insta::assert_snapshot!(line(&nothing(1), Instant::now(), None), @r#"{"schema":1,"seq":1,"t":0.2,"time":null,"valence":null,"arousal":null,"confidence":null,"modalities":[],"face":null,"voice":null,"expression":null,"latency_ms":null}"#);
    }

    proptest! {
        #[test]
        fn whatever_the_numbers_a_line_is_json_without_nan_or_minus_zero(valence in proptest::num::f32::ANY) {
            let captured = Instant::now();
            let text = line(&everything(captured, valence), captured, None);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(json["valence"].is_null(), !valence.is_finite());
            prop_assert!(!text.contains("NaN") && !text.contains("-0.0,"));
        }
    }
}
