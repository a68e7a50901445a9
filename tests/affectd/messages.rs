//! Compares the messages of affectd with their JSON Schemas and with `cross/messages.md`.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use affectd::face::geometry::Rect;
use affectd::face::{Appearance, Expressions, FaceObservation};
use affectd::fusion::{Affect, Estimate};
use affectd::health::{Health, HealthReport, MqttHealth, SourceState};
use affectd::output::csv;
use affectd::output::estimate::write_json;
use affectd::voice::VoiceObservation;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::json_schema::Schema;
use crate::{Replay, demo};

fn documentation() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/messages.md");
    std::fs::read_to_string(path).unwrap()
}

/// A valid estimate.
fn sample() -> Value {
    json!({
        "schema": 1, "seq": 1042, "t": 208.4, "time": "2026-11-24T09:00:00.123Z", "paused": false,
        "valence": 0.42, "arousal": 0.18, "confidence": 0.81, "modalities": ["face", "voice"],
        "face": {"id": 3, "box": [0.31, 0.22, 0.18, 0.24], "score": 0.97},
        "voice": {"active": true, "level_db": -23.1},
        "expression": {"happiness": 0.83, "neutral": 0.11}, "latency_ms": 41,
    })
}

#[test]
fn every_line_of_a_replay_matches_the_schema() {
    let schema = Schema::read("estimate");
    let replay = Replay::of(&demo());
    assert!(replay.lines.len() >= 45, "{}", replay.log);
    for line in &replay.lines {
        schema.validate(line).unwrap_or_else(|why| panic!("{line}: {why}"));
    }
    let with_face = replay.lines.iter().filter(|line| line["face"].is_object()).count();
    let with_voice = replay.lines.iter().filter(|line| line["voice"].is_object()).count();
    assert!(with_face > 0 && with_voice > 0, "both parts of the schema are used");
}

#[test]
fn invalid_estimates_violate_the_schema() {
    let schema = Schema::read("estimate");
    schema.validate(&sample()).unwrap();
    for (field, value) in [
        ("/schema", json!(2)),
        ("/seq", json!(1.5)),
        ("/t", json!(null)),
        ("/time", json!("yesterday")),
        ("/paused", json!(1)),
        ("/valence", json!(1.2)),
        ("/confidence", json!(-0.1)),
        ("/modalities", json!(["face", "face"])),
        ("/modalities", json!(["smell"])),
        ("/face/box", json!([0.1, 0.2, 0.3])),
        ("/face/box/2", json!(1.5)),
        ("/face/id", json!("3")),
        ("/voice/active", json!(1)),
        ("/expression", json!({"boredom": 0.5})),
        ("/latency_ms", json!(-1)),
    ] {
        let mut line = sample();
        *line.pointer_mut(field).unwrap() = value;
        assert!(schema.validate(&line).is_err(), "{line}");
    }
    for field in sample().as_object().unwrap().keys() {
        let mut line = sample();
        line.as_object_mut().unwrap().remove(field);
        assert!(schema.validate(&line).is_err(), "without {field}");
    }
    assert!(schema.validate(&json!([])).is_err());
}

#[test]
fn schemas_list_exactly_the_fields_of_the_messages() {
    fn names(value: &Value, prefix: &str) -> Vec<String> {
        let fields = value.as_object().into_iter().flatten();
        fields
            .flat_map(|(name, value)| {
                let name = format!("{prefix}{name}");
                // The fields of an expression are the names of expressions.
                let inner = match name.as_str() {
                    "expression" => Vec::new(),
                    _ => names(value, &format!("{name}.")),
                };
                std::iter::once(name).chain(inner)
            })
            .collect()
    }
    let mut estimate = Vec::new();
    write_json(&full_estimate(), &mut estimate, Instant::now(), Some(SystemTime::now()));
    let health = HealthReport {
        mqtt: Some(MqttHealth::default()),
        ..HealthReport::default()
    };
    for (name, message) in [
        ("estimate", serde_json::from_slice(&estimate).unwrap()),
        ("health", serde_json::to_value(health).unwrap()),
    ] {
        let mut in_schema = Schema::read(name).property_names();
        let mut in_message = names(&message, "");
        in_schema.sort();
        in_message.sort();
        assert_eq!(in_schema, in_message);
    }
}

#[test]
fn every_field_and_csv_column_is_documented() {
    let text = documentation();
    let fields = ["estimate", "health", "state"].map(|name| Schema::read(name).property_names());
    let columns = csv::HEADER.split(',').map(str::to_string);
    for name in fields.into_iter().flatten().chain(columns) {
        assert!(
            text.contains(&format!("`{name}`")),
            "{name} is not in cross/messages.md"
        );
    }
}

#[test]
fn the_documented_examples_match_the_schemas() {
    let text = documentation();
    let schemas = ["estimate", "health", "state"].map(Schema::read);
    let mut valid = [0; 3];
    for example in text.split("```json\n").skip(1) {
        let example = example.split("```").next().unwrap();
        let message: Value = serde_json::from_str(example).unwrap_or_else(|e| panic!("{example}: {e}"));
        let which = match message {
            _ if message.get("seq").is_some() => 0,
            _ if message.get("uptime_s").is_some() => 1,
            _ => 2,
        };
        schemas[which]
            .validate(&message)
            .unwrap_or_else(|why| panic!("{example}: {why}"));
        valid[which] += 1;
    }
    assert!(
        valid[0] >= 2 && valid[1] >= 1 && valid[2] >= 1,
        "{valid:?} examples of estimates, health reports and states"
    );
}

fn full_estimate() -> Estimate {
    let captured = Instant::now();
    Estimate {
        seq: 1,
        at: Duration::from_millis(200),
        affect: Some(Affect {
            valence: 0.5,
            arousal: 0.5,
            confidence: 0.5,
        }),
        from_face: true,
        from_voice: true,
        face: Some(FaceObservation {
            at: Duration::ZERO,
            captured,
            id: 1,
            bounds: Rect::default(),
            frame_interval: Duration::ZERO,
            score: 0.9,
            appearance: appearance(Expressions([0.125; 8])),
            outline: Default::default(),
        }),
        voice: Some(VoiceObservation {
            captured,
            active: true,
            level_db: Some(-20.0),
            embedding: None,
        }),
        paused: false,
    }
}

fn appearance(expressions: Expressions) -> Appearance {
    Appearance {
        votes: expressions,
        shown: expressions,
        valence: 0.0,
        arousal: 0.0,
    }
}

/// Any number that the type can hold, often a usual one.
fn any_f32() -> impl Strategy<Value = f32> {
    prop_oneof![3 => -1.5f32..1.5, 1 => prop::num::f32::ANY]
}

fn any_estimate() -> impl Strategy<Value = Estimate> {
    let affect = [(); 3]
        .map(|()| any_f32())
        .prop_map(|[valence, arousal, confidence]| Affect {
            valence,
            arousal,
            confidence,
        });
    let bounds = [(); 4].map(|()| any_f32()).prop_map(|[x, y, w, h]| Rect { x, y, w, h });
    let expressions = [(); 8].map(|()| any_f32()).prop_map(Expressions);
    let face = (any::<u32>(), bounds, any_f32(), expressions);
    let voice = (any::<bool>(), prop::option::of(any_f32()));
    (
        any::<u64>(),
        any::<u64>(),
        prop::option::of(affect),
        any::<(bool, bool, bool)>(),
        prop::option::of(face),
        prop::option::of(voice),
    )
        .prop_map(|(seq, ms, affect, (from_face, from_voice, paused), face, voice)| {
            let captured = Instant::now();
            Estimate {
                seq,
                at: Duration::from_millis(ms),
                affect,
                from_face,
                from_voice,
                face: face.map(|(id, bounds, score, expressions)| FaceObservation {
                    at: Duration::ZERO,
                    captured,
                    id,
                    bounds,
                    frame_interval: Duration::ZERO,
                    score,
                    appearance: appearance(expressions),
                    outline: Default::default(),
                }),
                voice: voice.map(|(active, level_db)| VoiceObservation {
                    captured,
                    active,
                    level_db,
                    embedding: None,
                }),
                paused,
            }
        })
}

fn any_state() -> impl Strategy<Value = SourceState> {
    use SourceState::{Absent, Off, Paused, Running, Stalled, Starting};
    prop::sample::select(vec![Starting, Running, Stalled, Absent, Paused, Off])
}

proptest! {
    #[test]
    fn any_estimate_matches_the_schema(estimate in any_estimate(), latency_ms in any::<u32>(), wall_s in prop::option::of(0..4_000_000_000u64)) {
        let mut line = Vec::new();
        let now = Instant::now() + Duration::from_millis(latency_ms.into());
        let wall = wall_s.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        write_json(&estimate, &mut line, now, wall);
        let json: Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(Schema::read("estimate").validate(&json), Ok(()));
    }

    #[test]
    fn any_health_report_matches_the_schema_and_can_be_read_back(
        counters in any::<[u64; 8]>(),
        states in (any_state(), any_state()),
        problem in prop::option::of(".{0,40}"),
        latencies in prop::collection::vec(any::<u32>(), 0..20),
        mqtt in prop::option::of(any::<[u64; 4]>()),
    ) {
        let health = Health::default();
        let counted = [
            &health.frames_with_face,
            &health.frames,
            &*health.frames_skipped,
            &health.frames_undecodable,
            &*health.camera_counters.missed,
            &*health.microphone_counters.xruns,
            &health.estimates,
            &*health.estimates_dropped,
        ];
        for (counter, value) in counted.iter().zip(counters) {
            counter.store(value, Ordering::Relaxed);
        }
        health.face_rate_hz.set((counters[7] % 1000) as f32 / 7.0);
        health.camera.set(states.0, problem);
        health.microphone.set(states.1, None);
        latencies.iter().for_each(|ms| health.latency.record(Duration::from_millis((*ms).into())));
        let report = HealthReport {
            mqtt: mqtt.map(|[estimates_waiting, estimates_dropped, messages_denied, connections]| MqttHealth {
                estimates_waiting,
                estimates_dropped,
                messages_denied,
                connections,
            }),
            ..health.report(Duration::from_secs(counters[0]))
        };
        let json = serde_json::to_value(&report).unwrap();
        prop_assert_eq!(Schema::read("health").validate(&json), Ok(()));
        let text = serde_json::to_string(&report).unwrap();
        prop_assert_eq!(serde_json::from_str::<HealthReport>(&text).unwrap(), report);
    }
}
