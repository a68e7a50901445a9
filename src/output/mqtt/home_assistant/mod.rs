//! Home Assistant's device discovery: one retained message that describes a device and its entities.
//!
//! The format is documented under "Device discovery payload" in Home Assistant's MQTT integration. Version 2024.12 is the first
//! that reads it.

mod entities;

use serde_json::json;

use super::address::{DeviceName, Topic};
use super::topics::{BoardId, Topics};

/// A device as Home Assistant sees it.
#[derive(Debug, Clone, Copy)]
pub struct Announcement<'a> {
    pub board: &'a BoardId,
    pub device: &'a DeviceName,
    pub topics: &'a Topics,
    /// Whether the kernel reports a temperature.
    pub has_temperature: bool,
    /// The rate of the estimates that affectd makes.
    pub rate_hz: f64,
}

/// The discovery topic of a device.
pub fn topic(prefix: &Topic, board: &BoardId, device: &DeviceName) -> String {
    format!("{}{}", prefix.as_str(), end_of_topic(board, device))
}

/// What follows the prefix in the discovery topic of a device.
pub fn end_of_topic(board: &BoardId, device: &DeviceName) -> String {
    format!("/device/{}_{}/config", board.as_str(), device.as_str())
}

/// The topic on which Home Assistant publishes `online` when it has started.
pub fn birth_topic(prefix: &Topic) -> String {
    format!("{}/status", prefix.as_str())
}

impl Announcement<'_> {
    /// The discovery message.
    pub fn payload(&self) -> Vec<u8> {
        let id = format!("{}_{}", self.board.as_str(), self.device.as_str());
        let config = json!({
            "device": {
                "identifiers": [id],
                "name": format!("affectd {}", self.device.as_str()),
                "manufacturer": "affectd",
                "model": "affectd",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": {
                "name": "affectd",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "availability_topic": self.topics.status,
            "payload_available": "online",
            "payload_not_available": "offline",
            "qos": 0,
            "components": self.components(&id),
        });
        config.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_of_device_discovery() {
        let prefix = "homeassistant".parse().unwrap();
        insta::assert_snapshot!(topic(&prefix, &BoardId::sample(), &"kitchen".parse().unwrap()), @"homeassistant/device/affectd0123456789abcdef_kitchen/config");
        insta::assert_snapshot!(birth_topic(&prefix), @"homeassistant/status");
    }
}
