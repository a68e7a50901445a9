//! The entities of a device: its sensors, buttons and settings in Home Assistant.

use serde_json::{Map, Value, json};

use super::Announcement;
use crate::face::EXPRESSIONS;
use crate::health::SourceState;
use crate::output::estimate_rate::EstimateRate;
use crate::output::mqtt::state;

/// After how long without a state its values are shown as unavailable.
const STATE_EXPIRES_S: u64 = 3 * state::MAX_INTERVAL.as_secs();
/// The same for the health report, which arrives every 30 s.
const HEALTH_EXPIRES_S: u64 = 100;
/// Home Assistant switches face and voice off if no state confirms them for this time. A state comes every five seconds.
const OFF_DELAY_S: u64 = 2 * state::MAX_INTERVAL.as_secs();

impl Announcement<'_> {
    /// All entities by their keys. `id` is the identifier of the device.
    pub(super) fn components(&self, id: &str) -> Map<String, Value> {
        let of_person = [self.affect(), self.presence()].concat();
        let of_device = [self.sources(), self.diagnostics(), self.controls()].concat();
        let mut components = Map::new();
        for (key, mut entity) in of_person.into_iter().chain(of_device) {
            entity["unique_id"] = format!("{id}_{key}").into();
            components.insert(key.into(), entity);
        }
        components
    }

    /// An entity that the state message feeds.
    fn of_state(&self, own: Value) -> Value {
        merged(
            own,
            json!({ "state_topic": self.topics.state, "expire_after": STATE_EXPIRES_S }),
        )
    }

    /// An entity about the device itself, fed by the health report.
    fn of_health(&self, own: Value) -> Value {
        merged(
            own,
            json!({ "state_topic": self.topics.health, "expire_after": HEALTH_EXPIRES_S, "entity_category": "diagnostic" }),
        )
    }

    fn affect(&self) -> Vec<(&'static str, Value)> {
        // Valence and arousal have no unit. Their state class makes Home Assistant treat them as numbers.
        let number = |name: &str, icon: &str, field: &str| {
            self.of_state(json!({
                "platform": "sensor",
                "name": name,
                "icon": icon,
                "state_class": "measurement",
                "suggested_display_precision": 2,
                "value_template": format!("{{{{ value_json.{field} }}}}"),
            }))
        };
        vec![
            ("valence", number("Valence", "mdi:emoticon-outline", "valence")),
            ("arousal", number("Arousal", "mdi:pulse", "arousal")),
            (
                "confidence",
                self.of_state(json!({
                    "platform": "sensor",
                    "name": "Confidence",
                    "icon": "mdi:check-decagram-outline",
                    "state_class": "measurement",
                    "unit_of_measurement": "%",
                    "suggested_display_precision": 0,
                    "value_template":
                        "{{ (value_json.confidence * 100) | round | int if value_json.confidence is number else None }}",
                })),
            ),
            (
                "expression",
                self.of_state(json!({
                    "platform": "sensor",
                    "name": "Expression",
                    "device_class": "enum",
                    "icon": "mdi:drama-masks",
                    "options": EXPRESSIONS,
                    "value_template": "{{ value_json.expression }}",
                })),
            ),
        ]
    }

    fn presence(&self) -> Vec<(&'static str, Value)> {
        let presence = |name: &str, class: &str, icon: &str, template: &str| {
            self.of_state(json!({
                "platform": "binary_sensor",
                "name": name,
                "device_class": class,
                "icon": icon,
                "off_delay": OFF_DELAY_S,
                "value_template": template,
            }))
        };
        vec![
            (
                "face",
                presence(
                    "Face present",
                    "occupancy",
                    "mdi:face-recognition",
                    "{{ 'ON' if value_json.face else 'OFF' }}",
                ),
            ),
            (
                "voice",
                presence(
                    "Voice active",
                    "sound",
                    "mdi:account-voice",
                    "{{ 'ON' if value_json.voice else 'OFF' }}",
                ),
            ),
        ]
    }

    fn sources(&self) -> Vec<(&'static str, Value)> {
        let source = |name: &str, icon: &str, field: &str| {
            self.of_health(json!({
                "platform": "sensor",
                "name": name,
                "device_class": "enum",
                "icon": icon,
                "options": SourceState::ALL,
                "value_template": format!("{{{{ value_json.{field} }}}}"),
            }))
        };
        vec![
            ("camera", source("Camera", "mdi:camera", "camera")),
            ("microphone", source("Microphone", "mdi:microphone", "microphone")),
            (
                "problem",
                self.of_health(json!({
                    "platform": "binary_sensor",
                    "name": "Problem",
                    "device_class": "problem",
                    "icon": "mdi:alert-circle-outline",
                    "value_template": "{{ 'ON' if value_json.problem else 'OFF' }}",
                    "json_attributes_topic": self.topics.health,
                    // The whole report would make the recorder store it every 30 s.
                    "json_attributes_template": "{{ {'problem': value_json.problem} | tojson }}",
                })),
            ),
        ]
    }

    fn diagnostics(&self) -> Vec<(&'static str, Value)> {
        let mut diagnostics = vec![
            (
                "latency",
                merged(
                    json!({ "entity_category": "diagnostic" }),
                    self.of_state(json!({
                        "platform": "sensor",
                        "name": "Latency",
                        "device_class": "duration",
                        "icon": "mdi:timer-outline",
                        "state_class": "measurement",
                        "unit_of_measurement": "ms",
                        "suggested_display_precision": 0,
                        "value_template": "{{ value_json.latency_ms }}",
                    })),
                ),
            ),
            (
                "dropped",
                self.of_health(json!({
                    "platform": "sensor",
                    "name": "Dropped estimates",
                    "icon": "mdi:tray-remove",
                    "state_class": "total_increasing",
                    "value_template": "{{ value_json.estimates_dropped }}",
                })),
            ),
            (
                "face_rate",
                self.of_health(json!({
                    "platform": "sensor",
                    "name": "Face rate",
                    "device_class": "frequency",
                    "icon": "mdi:speedometer",
                    "state_class": "measurement",
                    "unit_of_measurement": "Hz",
                    "suggested_display_precision": 1,
                    "value_template": "{{ value_json.face_rate_hz | round(1) }}",
                })),
            ),
        ];
        if self.has_temperature {
            let temperature = self.of_health(json!({
                "platform": "sensor",
                "name": "Processor temperature",
                "device_class": "temperature",
                "icon": "mdi:thermometer",
                "state_class": "measurement",
                "unit_of_measurement": "°C",
                "suggested_display_precision": 0,
                "value_template":
                    "{{ value_json.temperature_c | round | int if value_json.temperature_c is number else None }}",
            }));
            diagnostics.push(("temperature", temperature));
        }
        diagnostics
    }

    fn controls(&self) -> Vec<(&'static str, Value)> {
        let command_topic = &self.topics.command;
        vec![
            (
                "devices",
                json!({
                    "platform": "switch",
                    "name": "Camera and microphone",
                    "icon": "mdi:webcam",
                    "command_topic": command_topic,
                    "payload_on": "resume",
                    "payload_off": "pause",
                    "state_topic": self.topics.state,
                    "value_template": "{{ 'OFF' if value_json.paused else 'ON' }}",
                    "state_on": "ON",
                    "state_off": "OFF",
                }),
            ),
            (
                "baseline",
                json!({
                    "platform": "button",
                    "name": "Calibrate neutral expression",
                    "icon": "mdi:emoticon-neutral-outline",
                    "command_topic": command_topic,
                    "payload_press": "baseline",
                }),
            ),
            (
                "restart",
                json!({
                    "platform": "button",
                    "name": "Restart",
                    "device_class": "restart",
                    "icon": "mdi:restart",
                    "entity_category": "config",
                    "command_topic": command_topic,
                    "payload_press": "restart",
                }),
            ),
            (
                "rate",
                json!({
                    "platform": "number",
                    "name": "Estimate rate",
                    "device_class": "frequency",
                    "icon": "mdi:speedometer",
                    "entity_category": "config",
                    "command_topic": command_topic,
                    "command_template": "rate {{ value }}",
                    "state_topic": self.topics.state,
                    "value_template": "{{ value_json.rate_hz }}",
                    "unit_of_measurement": "Hz",
                    "min": EstimateRate::RANGE_HZ.start(),
                    "max": self.rate_hz,
                    "step": 0.1,
                    "mode": "box",
                }),
            ),
        ]
    }
}

/// An object with the keys of both objects.
fn merged(mut first: Value, second: Value) -> Value {
    if let (Value::Object(first), Value::Object(second)) = (&mut first, second) {
        first.extend(second);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::mqtt::topics::{BoardId, Topics};

    /// The keys that Home Assistant's schemas allow: `DEVICE_DISCOVERY_SCHEMA`, `MQTT_ENTITY_DEVICE_INFO_SCHEMA` and
    /// `MQTT_ORIGIN_INFO_SCHEMA` in homeassistant/components/mqtt/schemas.py.
    const DEVICE_DISCOVERY: &[&str] = &[
        "availability",
        "availability_mode",
        "availability_template",
        "availability_topic",
        "command_topic",
        "components",
        "device",
        "encoding",
        "origin",
        "payload_available",
        "payload_not_available",
        "qos",
        "state_topic",
    ];
    const DEVICE: &[&str] = &[
        "configuration_url",
        "connections",
        "hw_version",
        "identifiers",
        "manufacturer",
        "model",
        "model_id",
        "name",
        "serial_number",
        "suggested_area",
        "sw_version",
        "via_device",
    ];
    const ORIGIN_KEYS: &[&str] = &["name", "support_url", "sw_version"];
    /// The keys of every read-only entity: `MQTT_ENTITY_COMMON_SCHEMA` there and `MQTT_RO_SCHEMA` in config.py.
    const ENTITY: &[&str] = &[
        "availability",
        "availability_mode",
        "availability_template",
        "availability_topic",
        "enabled_by_default",
        "encoding",
        "entity_category",
        "entity_picture",
        "icon",
        "json_attributes_template",
        "json_attributes_topic",
        "payload_available",
        "payload_not_available",
        "platform",
        "qos",
        "state_topic",
        "unique_id",
        "value_template",
    ];
    /// `_PLATFORM_SCHEMA_BASE` in sensor.py.
    const SENSOR: &[&str] = &[
        "device_class",
        "expire_after",
        "force_update",
        "last_reset_value_template",
        "name",
        "options",
        "state_class",
        "suggested_display_precision",
        "unit_of_measurement",
    ];
    /// `PLATFORM_SCHEMA_MODERN` in binary_sensor.py.
    const BINARY_SENSOR: &[&str] = &[
        "device_class",
        "expire_after",
        "force_update",
        "name",
        "off_delay",
        "payload_off",
        "payload_on",
    ];
    /// `PLATFORM_SCHEMA_MODERN` in button.py and `_PLATFORM_SCHEMA_BASE` in number.py.
    const BUTTON: &[&str] = &[
        "command_template",
        "command_topic",
        "device_class",
        "name",
        "payload_press",
        "retain",
    ];
    /// `PLATFORM_SCHEMA_MODERN` in switch.py.
    const SWITCH: &[&str] = &[
        "command_template",
        "command_topic",
        "device_class",
        "name",
        "optimistic",
        "payload_off",
        "payload_on",
        "retain",
        "state_off",
        "state_on",
    ];
    const NUMBER: &[&str] = &[
        "command_template",
        "command_topic",
        "device_class",
        "max",
        "min",
        "mode",
        "name",
        "optimistic",
        "payload_reset",
        "retain",
        "step",
        "unit_of_measurement",
    ];
    /// The classes that affectd uses, from `SensorDeviceClass`, `BinarySensorDeviceClass`, `ButtonDeviceClass` and
    /// `NumberDeviceClass`.
    const SENSOR_CLASSES: &[&str] = &["duration", "enum", "frequency", "temperature"];
    const BINARY_SENSOR_CLASSES: &[&str] = &["occupancy", "problem", "sound"];
    const BUTTON_CLASSES: &[&str] = &["restart"];
    const NUMBER_CLASSES: &[&str] = &["frequency"];

    fn sample(has_temperature: bool) -> Value {
        let announcement = Announcement {
            board: &BoardId::sample(),
            device: &"kitchen".parse().unwrap(),
            topics: &Topics::under(&"affectd/kitchen".parse().unwrap()),
            has_temperature,
            rate_hz: 5.0,
        };
        serde_json::from_slice(&announcement.payload()).unwrap()
    }

    fn assert_only(object: &Value, allowed: &[&[&str]]) {
        for key in object.as_object().unwrap().keys() {
            assert!(
                allowed.iter().any(|keys| keys.contains(&key.as_str())),
                "{key} in {object}"
            );
        }
    }

    #[test]
    fn the_payload_has_only_keys_of_the_published_schemas() {
        let payload = sample(true);
        assert_only(&payload, &[DEVICE_DISCOVERY]);
        assert_only(&payload["device"], &[DEVICE]);
        assert_only(&payload["origin"], &[ORIGIN_KEYS]);
        assert!(!payload["device"]["identifiers"].as_array().unwrap().is_empty());
        assert!(payload["origin"]["name"].is_string());
        assert!(!payload.to_string().contains("\"\""), "empty text: {payload}");
        let mut ids = Vec::new();
        for (key, entity) in payload["components"].as_object().unwrap() {
            let (own, classes, required): (_, _, &[&str]) = match entity["platform"].as_str().unwrap() {
                "sensor" => (SENSOR, SENSOR_CLASSES, &["state_topic", "value_template"]),
                "binary_sensor" => (BINARY_SENSOR, BINARY_SENSOR_CLASSES, &["state_topic", "value_template"]),
                "switch" => (
                    SWITCH,
                    &[],
                    &[
                        "command_topic",
                        "state_topic",
                        "value_template",
                        "state_on",
                        "state_off",
                    ],
                ),
                "button" => (BUTTON, BUTTON_CLASSES, &["command_topic"]),
                "number" => (
                    NUMBER,
                    NUMBER_CLASSES,
                    &["command_topic", "state_topic", "value_template"],
                ),
                other => panic!("{other}"),
            };
            assert_only(entity, &[ENTITY, own]);
            for required in ["unique_id", "name"].iter().chain(required) {
                assert!(entity[required].is_string(), "{required} of {key}");
            }
            if let Some(class) = entity["device_class"].as_str() {
                assert!(classes.contains(&class), "{class}");
            }
            let icon = entity["icon"].as_str().unwrap();
            assert!(icon.starts_with("mdi:") && icon.is_ascii(), "{icon}");
            assert!(!own.contains(&"expire_after") || entity["expire_after"].as_u64().unwrap() > 0);
            ids.push(entity["unique_id"].as_str().unwrap());
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 17);
    }

    #[test]
    fn a_board_without_a_thermal_zone_has_no_temperature_entity() {
        let has = |payload: Value| payload["components"].as_object().unwrap().contains_key("temperature");
        assert!(has(sample(true)));
        assert!(!has(sample(false)));
    }

    #[test]
    fn templates_use_fields_that_are_in_the_messages() {
        let health = serde_json::to_value(crate::health::HealthReport::default()).unwrap();
        let state = [
            "valence",
            "arousal",
            "confidence",
            "expression",
            "face",
            "voice",
            "paused",
            "latency_ms",
            "rate_hz",
        ];
        for (key, entity) in sample(true)["components"].as_object().unwrap() {
            let Some(template) = entity["value_template"].as_str() else {
                continue;
            };
            let field = template.split("value_json.").nth(1).unwrap();
            let field: String = field.chars().take_while(|c| c.is_alphabetic() || *c == '_').collect();
            let known = match entity["state_topic"].as_str().unwrap() {
                "affectd/kitchen/state" => state.contains(&field.as_str()),
                "affectd/kitchen/health" => health.get(&field).is_some(),
                other => panic!("{other}"),
            };
            assert!(known, "{field} of {key}");
        }
    }

    #[test]
    fn controls_send_valid_commands() {
        use crate::output::commands::{Command, parse};
        let payload = sample(true);
        let command = |text: &str| parse(text.as_bytes()).unwrap().unwrap();
        let press = |key: &str| command(payload["components"][key]["payload_press"].as_str().unwrap());
        assert_eq!(press("baseline"), Command::Baseline);
        assert_eq!(press("restart"), Command::Restart);
        let switch = |key: &str| command(payload["components"]["devices"][key].as_str().unwrap());
        assert_eq!(switch("payload_off"), Command::Pause);
        assert_eq!(switch("payload_on"), Command::Resume);
        let template = payload["components"]["rate"]["command_template"].as_str().unwrap();
        assert_eq!(command(&template.replace("{{ value }}", "2.5")), Command::Rate(2.5));
    }
}
