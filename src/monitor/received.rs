//! What the monitor receives: estimates, health reports, and what it does not recognize.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::unrecognized::Unrecognized;
use crate::face::EXPRESSIONS;
use crate::health::HealthReport;
use crate::output::estimate::SCHEMA;

/// The fields of an estimate that the monitor shows. Other fields are ignored, so estimates of newer devices can be read.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Reading {
    pub seq: u64,
    /// Seconds on the source's clock.
    pub t: f64,
    pub valence: Option<f32>,
    pub arousal: Option<f32>,
    pub confidence: Option<f32>,
    #[serde(default)]
    pub modalities: Vec<String>,
    pub face: Option<Face>,
    pub voice: Option<Voice>,
    pub expression: Option<Expressions>,
    /// The devices are closed on request.
    #[serde(default)]
    pub paused: bool,
    pub latency_ms: Option<u64>,
}

impl Reading {
    /// The longest time, 31 years.
    const MAX_T: f64 = 1e9;

    /// Whether all numbers are in the ranges that affectd sends. Others would spoil the plot.
    fn is_in_range(&self) -> bool {
        let within = |value: Option<f32>, low: f32| value.is_none_or(|value| (low..=1.0).contains(&value));
        (0.0..=Reading::MAX_T).contains(&self.t)
            && within(self.valence, -1.0)
            && within(self.arousal, -1.0)
            && within(self.confidence, 0.0)
            && within(self.face.as_ref().map(|face| face.score), 0.0)
            && self.expression.iter().flat_map(|e| e.0).all(|p| within(Some(p), 0.0))
            && self
                .voice
                .as_ref()
                .and_then(|voice| voice.level_db)
                .is_none_or(f32::is_finite)
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Face {
    pub id: u32,
    pub score: f32,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Voice {
    pub active: bool,
    pub level_db: Option<f32>,
}

/// The probability of each of [`EXPRESSIONS`]; 0 for those that the message leaves out because they are unlikely.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(from = "HashMap<String, f32>")]
pub struct Expressions(pub [f32; EXPRESSIONS.len()]);

impl From<HashMap<String, f32>> for Expressions {
    fn from(named: HashMap<String, f32>) -> Expressions {
        Expressions(EXPRESSIONS.map(|name| named.get(name).copied().unwrap_or_default()))
    }
}

/// One event of a source.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    Estimate(Reading),
    Health(HealthReport),
    /// An invalid line or frame.
    Unrecognized(Unrecognized),
    /// Bytes that are no line, before it is known whether the device sends lines or frames. They may be a part of a frame.
    Noise,
    /// The state of the source: connected, lost.
    Status(String),
    /// All of a file has been read. More may be appended.
    CaughtUp,
    /// A device uses the broker, with this base topic.
    Device(String),
    /// Another device than the shown one sends estimates, which are left out. Both by their base topics.
    LeftOut {
        shown: String,
        device: String,
    },
    /// The end of the source.
    End,
}

impl Received {
    pub fn of_reading(reading: Reading) -> Received {
        match reading.is_in_range() {
            true => Received::Estimate(reading),
            false => Received::Unrecognized(Unrecognized::Damaged),
        }
    }

    /// Whether this comes from affectd without doubt.
    pub fn is_ours(&self) -> bool {
        matches!(self, Received::Estimate(_) | Received::Health(_))
    }

    /// Parses a JSON line. `None` for lines that the monitor ignores: empty lines and answers to commands.
    pub fn from_json(line: &[u8]) -> Option<Received> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        let Ok(Value::Object(object)) = serde_json::from_slice(line) else {
            return Some(Received::Unrecognized(Unrecognized::of_line(line)));
        };
        let has = |key| object.contains_key(key);
        let schema = object.get("schema").and_then(Value::as_u64);
        if has("seq") && has("t") || has("uptime_s") {
            return Some(match schema {
                Some(other) if other != u64::from(SCHEMA) => Received::Unrecognized(Unrecognized::Schema(other)),
                _ if has("uptime_s") => parsed(object, Received::Health),
                _ => parsed(object, Received::of_reading),
            });
        }
        // The journal as JSON has the lines of a service in this field.
        if let Some(Value::String(message)) = object.get("MESSAGE") {
            return match Received::from_json(message.as_bytes()) {
                Some(Received::Unrecognized(_)) => Some(Received::Unrecognized(Unrecognized::Log)),
                received => received,
            };
        }
        let is_answer = has("ok") || has("error");
        (!is_answer).then(|| Received::Unrecognized(Unrecognized::of_json(&object)))
    }
}

fn parsed<T: serde::de::DeserializeOwned>(
    object: serde_json::Map<String, Value>,
    received: fn(T) -> Received,
) -> Received {
    serde_json::from_value(Value::Object(object)).map_or(Received::Unrecognized(Unrecognized::Damaged), received)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const LINE: &str = r#"{"schema":1,"seq":1042,"t":208.4,"time":null,"valence":0.42,"arousal":0.18,"confidence":0.81,"modalities":["face","voice"],"face":{"id":3,"box":[0.31,0.22,0.18,0.24],"score":0.97},"voice":{"active":true,"level_db":-23.1},"expression":{"happiness":0.83},"latency_ms":41}"#;

    #[test]
    fn estimates_health_reports_and_answers_are_distinguished() {
        let Some(Received::Estimate(reading)) = Received::from_json(LINE.as_bytes()) else {
            panic!()
        };
        assert_eq!(
            (reading.seq, reading.valence, reading.latency_ms),
            (1042, Some(0.42), Some(41))
        );
        let health = br#"{"schema":1,"uptime_s":60,"camera":"running","temperature_c":48.0,"problem":null}"#;
        assert!(matches!(
            Received::from_json(health),
            Some(Received::Health(HealthReport { uptime_s: 60, .. }))
        ));
        assert_eq!(Received::from_json(br#"{"ok":"pong"}"#), None);
        assert_eq!(Received::from_json(b"\r\n"), None);
        assert!(matches!(
            Received::from_json(&LINE.as_bytes()[40..]),
            Some(Received::Unrecognized(Unrecognized::Text(_)))
        ));
        let newer = LINE.replace("\"schema\":1", "\"schema\":2");
        assert_eq!(
            Received::from_json(newer.as_bytes()),
            Some(Received::Unrecognized(Unrecognized::Schema(2)))
        );
    }

    #[test]
    fn numbers_that_no_device_sends_are_invalid() {
        for (field, value) in [
            ("t", "-0.1"),
            ("t", "1e308"),
            ("valence", "1.01"),
            ("arousal", "-1e39"),
            ("confidence", "-0.01"),
        ] {
            let line = format!(r#"{{"seq":1,"t":0.2,"{field}":{value}}}"#).replace(r#""t":0.2,"t""#, r#""t""#);
            assert_eq!(
                Received::from_json(line.as_bytes()),
                Some(Received::Unrecognized(Unrecognized::Damaged)),
                "{line}"
            );
        }
    }

    #[test]
    fn expressions_that_the_line_leaves_out_are_zero() {
        let Some(Received::Estimate(reading)) = Received::from_json(LINE.as_bytes()) else {
            panic!()
        };
        assert_eq!(reading.expression.unwrap().0, [0.0, 0.83, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_journal_as_json_is_read() {
        let entry = serde_json::json!({ "_PID": "812", "MESSAGE": LINE }).to_string();
        assert_eq!(
            Received::from_json(entry.as_bytes()),
            Received::from_json(LINE.as_bytes())
        );
        let log = serde_json::json!({ "MESSAGE": "camera: running" }).to_string();
        assert_eq!(
            Received::from_json(log.as_bytes()),
            Some(Received::Unrecognized(Unrecognized::Log))
        );
    }
}
