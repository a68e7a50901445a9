//! The health record as it is sent and read.

use serde::{Deserialize, Serialize};

use super::source::SourceState;
use crate::privacy::PauseReason;

/// The health record: one JSON object. Outputs that carry it get it at the start, every 30 s, and when the state of a device
/// or the face rate changes. Counters are totals since the start.
///
/// When it is read, fields may be missing, except `schema` and `uptime_s`, and unknown fields are ignored.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    pub schema: u8,
    pub uptime_s: u64,
    #[serde(default)]
    pub camera: SourceState,
    #[serde(default)]
    pub microphone: SourceState,
    /// Why the devices are closed; empty if affectd is not paused.
    #[serde(default)]
    pub paused_by: Vec<PauseReason>,
    /// Frames analyzed per second, at most. Lower than configured while the board is too busy or too hot.
    #[serde(default)]
    pub face_rate_hz: f32,
    /// Frames that the source delivered.
    #[serde(default)]
    pub frames: u64,
    /// Frames dropped because a newer one was there.
    #[serde(default)]
    pub frames_skipped: u64,
    #[serde(default)]
    pub frames_undecodable: u64,
    /// Frames whose content differs from what the camera's driver announced.
    #[serde(default)]
    pub frames_malformed: u64,
    /// Frames that the camera's driver dropped because it had no free buffer.
    #[serde(default)]
    pub frames_missed: u64,
    #[serde(default)]
    pub frames_with_face: u64,
    /// Overruns of the microphone's buffer.
    #[serde(default)]
    pub xruns: u64,
    #[serde(default)]
    pub audio_blocks_lost: u64,
    #[serde(default)]
    pub estimates: u64,
    /// Estimates that an output dropped because it was too slow or absent.
    #[serde(default)]
    pub estimates_dropped: u64,
    /// Estimates that were left out because the process was suspended.
    #[serde(default)]
    pub estimates_skipped: u64,
    /// From capture to output, since the start; null before the first estimate.
    #[serde(default)]
    pub latency_p50_ms: Option<u32>,
    #[serde(default)]
    pub latency_p99_ms: Option<u32>,
    /// The processor's temperature, if the kernel reports it.
    #[serde(default)]
    pub temperature_c: Option<f32>,
    /// The board's voltage is too low; null if the board does not say.
    #[serde(default)]
    pub low_voltage: Option<bool>,
    /// The processor is slowed down, because it is hot or the voltage is low; null if the board does not say.
    #[serde(default)]
    pub throttled: Option<bool>,
    /// What is wrong, as text; null if nothing is.
    #[serde(default)]
    pub problem: Option<String>,
    /// The state of the MQTT output, in the record that it publishes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttHealth>,
}

/// The state of an MQTT output.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct MqttHealth {
    /// Estimates that the broker has not acknowledged yet.
    pub estimates_waiting: u64,
    /// Estimates dropped because the broker was away for too long.
    pub estimates_dropped: u64,
    /// Messages that the broker discarded, for example because its access list does not allow the topic.
    #[serde(default)]
    pub messages_denied: u64,
    /// Connections to the broker since the start.
    pub connections: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let report = HealthReport {
            schema: 1,
            camera: SourceState::Stalled,
            face_rate_hz: 2.5,
            latency_p50_ms: Some(17),
            problem: Some("camera stalled".into()),
            mqtt: Some(MqttHealth {
                connections: 3,
                ..MqttHealth::default()
            }),
            ..HealthReport::default()
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<HealthReport>(&text).unwrap(), report);
    }

    #[test]
    fn a_record_with_few_or_unknown_fields_can_be_read() {
        let report: HealthReport = serde_json::from_str(r#"{"schema":1,"uptime_s":60,"fan_rpm":900}"#).unwrap();
        assert_eq!((report.uptime_s, report.problem), (60, None));
        assert!(serde_json::from_str::<HealthReport>(r#"{"ok":"pong"}"#).is_err());
    }
}
