//! Home Assistant's device discovery: one retained message that describes a device with seven entities.
//!
//! The format is documented under "Device discovery payload" in Home Assistant's MQTT integration.

use serde_json::{Value, json};

use super::address::Topic;
use super::topics::Topics;

/// After how long without an estimate its values are shown as unavailable. Estimates arrive several times a second.
const ESTIMATE_EXPIRES_S: u32 = 15;
/// The same for the health report, which arrives every 30 s.
const HEALTH_EXPIRES_S: u32 = 100;

/// The discovery topic of the device. `id` has letters and digits only.
pub fn topic(prefix: &Topic, id: &str) -> String {
    format!("{}/device/{id}/config", prefix.as_str())
}

/// The topic on which Home Assistant publishes `online` when it has started.
pub fn birth_topic(prefix: &Topic) -> String {
    format!("{}/status", prefix.as_str())
}

/// The device and its entities. `id` is unique among all devices, `name` is shown to people.
pub fn payload(id: &str, name: &str, topics: &Topics) -> Vec<u8> {
    let entity = |key: &str, common: Value, own: Value| {
        let mut entity = json!({ "unique_id": format!("{id}_{key}") });
        for part in [common, own] {
            let Value::Object(part) = part else {
                unreachable!("both parts are objects below")
            };
            entity.as_object_mut().expect("an object").extend(part);
        }
        (key.to_string(), entity)
    };
    let of_estimate = || json!({ "state_topic": topics.estimate, "expire_after": ESTIMATE_EXPIRES_S });
    let of_health = || json!({ "state_topic": topics.health, "expire_after": HEALTH_EXPIRES_S });
    let components: serde_json::Map<String, Value> = [
        // Valence and arousal have no unit. Their state class makes Home Assistant treat them as numbers.
        entity(
            "valence",
            of_estimate(),
            json!({
                "platform": "sensor",
                "name": "Valence",
                "icon": "mdi:emoticon-outline",
                "state_class": "measurement",
                "suggested_display_precision": 2,
                "value_template": "{{ value_json.valence }}",
            }),
        ),
        entity(
            "arousal",
            of_estimate(),
            json!({
                "platform": "sensor",
                "name": "Arousal",
                "icon": "mdi:pulse",
                "state_class": "measurement",
                "suggested_display_precision": 2,
                "value_template": "{{ value_json.arousal }}",
            }),
        ),
        entity(
            "confidence",
            of_estimate(),
            json!({
                "platform": "sensor",
                "name": "Confidence",
                "icon": "mdi:check-decagram-outline",
                "state_class": "measurement",
                "unit_of_measurement": "%",
                "suggested_display_precision": 0,
                "value_template": "{{ (value_json.confidence * 100) if value_json.confidence is number else None }}",
            }),
        ),
        entity(
            "face",
            of_estimate(),
            json!({
                "platform": "binary_sensor",
                "name": "Face present",
                "device_class": "occupancy",
                "icon": "mdi:face-recognition",
                "value_template": "{{ 'ON' if value_json.face else 'OFF' }}",
            }),
        ),
        entity(
            "voice",
            of_estimate(),
            json!({
                "platform": "binary_sensor",
                "name": "Voice active",
                "device_class": "sound",
                "icon": "mdi:account-voice",
                "value_template": "{{ 'ON' if value_json.voice and value_json.voice.active else 'OFF' }}",
            }),
        ),
        entity(
            "temperature",
            of_health(),
            json!({
                "platform": "sensor",
                "name": "Processor temperature",
                "device_class": "temperature",
                "icon": "mdi:thermometer",
                "state_class": "measurement",
                "unit_of_measurement": "°C",
                "entity_category": "diagnostic",
                "suggested_display_precision": 0,
                "value_template": "{{ value_json.temperature_c }}",
            }),
        ),
        entity(
            "problem",
            of_health(),
            json!({
                "platform": "binary_sensor",
                "name": "Problem",
                "device_class": "problem",
                "icon": "mdi:alert-circle-outline",
                "entity_category": "diagnostic",
                "value_template": "{{ 'ON' if value_json.problem else 'OFF' }}",
                "json_attributes_topic": topics.health,
            }),
        ),
    ]
    .into_iter()
    .collect();
    let config = json!({
        "device": {
            "identifiers": [id],
            "name": name,
            "manufacturer": "affectd",
            "model": "affectd",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "origin": {
            "name": "affectd",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "availability_topic": topics.status,
        "payload_available": "online",
        "payload_not_available": "offline",
        "qos": 0,
        "components": components,
    });
    config.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    const ORIGIN: &[&str] = &["name", "support_url", "sw_version"];
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
    /// The classes that affectd uses, from `SensorDeviceClass` and `BinarySensorDeviceClass`.
    const SENSOR_CLASSES: &[&str] = &["temperature"];
    const BINARY_SENSOR_CLASSES: &[&str] = &["occupancy", "problem", "sound"];

    fn sample() -> Value {
        let payload = payload(
            "affectd0123456789abcdef",
            "affectd kitchen",
            &Topics::under(&"affectd/kitchen".parse().unwrap()),
        );
        serde_json::from_slice(&payload).unwrap()
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
        let payload = sample();
        assert_only(&payload, &[DEVICE_DISCOVERY]);
        assert_only(&payload["device"], &[DEVICE]);
        assert_only(&payload["origin"], &[ORIGIN]);
        assert!(!payload["device"]["identifiers"].as_array().unwrap().is_empty());
        assert!(payload["origin"]["name"].is_string());
        assert!(!payload.to_string().contains("\"\""), "empty text: {payload}");
        let entities = payload["components"].as_object().unwrap();
        let mut ids = Vec::new();
        for (key, entity) in entities {
            let (own, classes) = match entity["platform"].as_str().unwrap() {
                "sensor" => (SENSOR, SENSOR_CLASSES),
                "binary_sensor" => (BINARY_SENSOR, BINARY_SENSOR_CLASSES),
                other => panic!("{other}"),
            };
            assert_only(entity, &[ENTITY, own]);
            for required in ["unique_id", "state_topic", "name", "value_template"] {
                assert!(entity[required].is_string(), "{required} of {key}");
            }
            if let Some(class) = entity["device_class"].as_str() {
                assert!(classes.contains(&class), "{class}");
            }
            let icon = entity["icon"].as_str().unwrap();
            assert!(icon.starts_with("mdi:") && icon.is_ascii(), "{icon}");
            assert!(entity["expire_after"].as_u64().unwrap() > 0);
            ids.push(entity["unique_id"].as_str().unwrap());
        }
        let keys: Vec<&String> = entities.keys().collect();
        assert_eq!(
            keys,
            [
                "arousal",
                "confidence",
                "face",
                "problem",
                "temperature",
                "valence",
                "voice"
            ]
        );
        ids.dedup();
        assert_eq!(ids.len(), 7);
    }

    #[test]
    fn templates_use_fields_that_are_in_the_messages() {
        let payload = sample();
        let health = ["temperature_c", "problem"];
        let estimate = ["valence", "arousal", "confidence", "face", "voice"];
        for (key, entity) in payload["components"].as_object().unwrap() {
            let template = entity["value_template"].as_str().unwrap();
            let field = template.split("value_json.").nth(1).unwrap();
            let field: String = field.chars().take_while(|c| c.is_alphabetic() || *c == '_').collect();
            let known: &[&str] = match entity["state_topic"].as_str().unwrap() {
                "affectd/kitchen/estimate" => &estimate,
                "affectd/kitchen/health" => &health,
                other => panic!("{other}"),
            };
            assert!(known.contains(&field.as_str()), "{field} of {key}");
        }
    }

    #[test]
    fn topics_are_those_of_device_discovery() {
        insta::assert_snapshot!(topic(&"homeassistant".parse().unwrap(), "affectd0123456789abcdef"), @"homeassistant/device/affectd0123456789abcdef/config");
        insta::assert_snapshot!(birth_topic(&"homeassistant".parse().unwrap()), @"homeassistant/status");
    }
}
