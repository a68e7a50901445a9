//! Server-sent events: `hello` with all that a page needs at first, then `estimate` and `health`.

use std::time::{Instant, SystemTime};

use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::{OutputState, StatusContext};
use super::history::History;
use super::settings::Preview;
use crate::fusion::Estimate;
use crate::health::HealthReport;
use crate::output::estimate::{rounded, write_json};

/// As `affectd --version` says it.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_IDENTITY"), ")");

/// All that a page needs at first.
#[derive(Serialize)]
pub struct Hello<'a> {
    version: &'static str,
    model: String,
    device: &'a str,
    preview: Preview,
    rate_hz: f64,
    /// The time of the last estimate, on the source's clock.
    t: f64,
    history: &'a History,
}

impl<'a> Hello<'a> {
    pub fn new(context: &'a StatusContext, preview: Preview, last: Option<&Estimate>, history: &'a History) -> Self {
        Hello {
            version: VERSION,
            model: context.model.get(),
            device: &context.host.host_name,
            preview,
            rate_hz: 1.0 / context.period.as_secs_f64(),
            t: last.map_or(0.0, |last| last.at.as_secs_f64()),
            history,
        }
    }
}

/// The health report, with what only the page shows.
#[derive(Serialize)]
pub struct HealthEvent {
    #[serde(flatten)]
    pub report: HealthReport,
    /// When the report was made, in seconds since the page began.
    pub at_s: f64,
    pub not_ready: Option<String>,
    pub paused: bool,
    /// Mean time of the face stage for a frame, and of the voice and fusion stages for an estimate.
    pub stages_ms: StageTimes,
    pub outputs: Vec<OutputState>,
}

#[derive(Serialize)]
pub struct StageTimes {
    pub face: Option<f64>,
    pub voice: Option<f64>,
    pub fusion: Option<f64>,
}

/// The estimate as on every output, and the outline of the face.
pub fn estimate(estimate: &Estimate, preview: Preview, now: Instant, wall: Option<SystemTime>) -> Bytes {
    let mut line = Vec::new();
    write_json(estimate, &mut line, now, wall);
    let mut json: Value = serde_json::from_slice(&line).unwrap_or_default();
    match preview {
        Preview::Off => {
            if let Some(face) = json["face"].as_object_mut() {
                face.remove("box");
            }
        }
        Preview::Outline | Preview::Image => json["outline"] = outline(estimate),
    }
    event("estimate", &json)
}

fn outline(estimate: &Estimate) -> Value {
    let shown = |face: &crate::face::FaceObservation| {
        let points = face.outline.landmarks.to_points();
        let fraction = |value| rounded(value, -1.0..=2.0, 3);
        json!({
            "landmarks": points.map(|point| [fraction(point.x), fraction(point.y)]),
            "aspect": rounded(face.outline.image_aspect, 0.1..=10.0, 3),
        })
    };
    estimate.face.as_ref().map_or(Value::Null, shown)
}

/// One event, as it is sent.
pub fn event(name: &str, data: &impl Serialize) -> Bytes {
    let mut text = format!("event: {name}\ndata: ").into_bytes();
    // JSON has no line breaks outside of its texts, which escape them.
    serde_json::to_writer(&mut text, data).expect("plain numbers and strings serialize into memory");
    text.extend_from_slice(b"\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::estimate::samples::{everything, nothing};

    fn json(estimate_to_send: &Estimate, preview: Preview) -> Value {
        let bytes = estimate(estimate_to_send, preview, Instant::now(), None);
        let text = str::from_utf8(&bytes).unwrap();
        let data = text.strip_prefix("event: estimate\ndata: ").unwrap();
        serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap()
    }

    #[test]
    fn the_place_of_the_face_is_sent_only_with_a_preview() {
        let seen = everything(Instant::now(), 0.4);
        let with = json(&seen, Preview::Outline);
        assert_eq!(with["outline"]["landmarks"].as_array().unwrap().len(), 6);
        assert!(with["face"]["box"].is_array());
        let without = json(&seen, Preview::Off);
        assert_eq!(without.get("outline"), None);
        assert_eq!(without["face"], json!({"id": 3, "score": 0.97}));
        assert_eq!(json(&nothing(1), Preview::Off)["face"], Value::Null);
        assert_eq!(json(&nothing(1), Preview::Outline)["outline"], Value::Null);
    }
}
