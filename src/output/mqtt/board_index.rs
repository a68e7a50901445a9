//! What a board has announced, kept on the broker: one retained message for each device name of the board. It lets the board find
//! and delete what it left under a former name, and `affectd forget` what a board left that is gone.
//!
//! Home Assistant's own announcements cannot serve as the index. With the board in their topic, version 2024.12 does not delete
//! them; without it, a board would have to read those of all devices.
//!
//! Anybody who may publish there can write an entry. So an entry counts only if its announcement is that of its own board and
//! device.

use serde::{Deserialize, Serialize};

use super::address::{DeviceName, Topic};
use super::home_assistant;
use super::topics::{BoardId, ConfigurationId};

/// The first part of the topics of all entries.
const ROOT: &str = "affectd/boards";

/// The topics that a device has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub status: String,
    /// The announcement to Home Assistant, if there is one.
    pub discovery: Option<String>,
    /// The configuration of the device. A service deletes only what its own configuration has left.
    pub configuration: Option<ConfigurationId>,
}

/// An entry, and the device that its topic names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    pub board: BoardId,
    pub device: DeviceName,
    pub entry: Entry,
}

/// The topic of an entry.
pub fn topic(board: &BoardId, device: &DeviceName) -> String {
    format!("{ROOT}/{}/{}", board.as_str(), device.as_str())
}

/// The topics of all entries of a board.
pub fn topics_of_board(board: &BoardId) -> String {
    format!("{ROOT}/{}/+", board.as_str())
}

/// The topics of all entries.
pub fn all_topics() -> String {
    format!("{ROOT}/+/+")
}

/// The topics of the entries of all boards with this device name.
pub fn topics_of_name(device: &DeviceName) -> String {
    format!("{ROOT}/+/{}", device.as_str())
}

/// Whether `topic` is one of the index.
pub fn contains(topic: &str) -> bool {
    topic
        .strip_prefix(ROOT)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Entry {
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings serialize into memory")
    }

    /// The first part of the device's topics.
    pub fn base(&self) -> &str {
        self.status.strip_suffix("/status").unwrap_or(&self.status)
    }

    fn is_of(&self, board: &BoardId, device: &DeviceName) -> bool {
        let is_base = |base: &str| base.parse::<Topic>().is_ok() && !contains(base);
        let status_is_valid = self.status.strip_suffix("/status").is_some_and(is_base);
        let end = home_assistant::end_of_topic(board, device);
        let is_own = |topic: &String| topic.ends_with(&end) && topic.parse::<Topic>().is_ok();
        status_is_valid && self.discovery.as_ref().is_none_or(is_own)
    }
}

impl ListedDevice {
    /// Reads a message of the index. `None` if it is not an entry, or names topics that its device cannot have.
    pub fn from_message(topic: &str, json: &[u8]) -> Option<ListedDevice> {
        let (board, device) = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
        let listed = ListedDevice {
            board: BoardId::parse(board.as_bytes())?,
            device: device.parse().ok()?,
            entry: serde_json::from_slice(json).ok()?,
        };
        listed.entry.is_of(&listed.board, &listed.device).then_some(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::HostIdentity;

    const TOPIC: &str = "affectd/boards/affectd0123456789abcdef/hall";

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = Entry {
            status: "affectd/hall/status".into(),
            discovery: Some("homeassistant/device/affectd0123456789abcdef_hall/config".into()),
            configuration: Some(ConfigurationId::of(&HostIdentity::default())),
        };
        let listed = ListedDevice::from_message(TOPIC, &entry.to_json()).unwrap();
        assert_eq!(listed.entry.base(), "affectd/hall");
        let device = "hall".parse().unwrap();
        assert_eq!(TOPIC, topic(&listed.board, &device));
        assert_eq!(
            listed,
            ListedDevice {
                board: BoardId::sample(),
                device,
                entry
            }
        );
    }

    #[test]
    fn a_base_topic_may_end_like_a_status() {
        let entry = Entry {
            status: "home/status/status".into(),
            discovery: None,
            configuration: None,
        };
        assert_eq!(entry.base(), "home/status");
    }

    #[test]
    fn other_texts_and_topics_of_others_are_rejected() {
        for text in [
            "",
            "{}",
            r#"{"status":"a/b","discovery":null}"#,
            r##"{"status":"a/#/status","discovery":null}"##,
            r#"{"status":"/status","discovery":null}"#,
            r#"{"status":"affectd/boards/affectd0123456789abcdef/status","discovery":null}"#,
            r#"{"status":"a/status","discovery":"b"}"#,
            r#"{"status":"a/status","discovery":"homeassistant/light/kitchen/config"}"#,
            r#"{"status":"a/status","discovery":"homeassistant/device/affectd0123456789abcdef_attic/config"}"#,
            r#"{"status":"a/status","discovery":"homeassistant/device/affectdfedcba9876543210_hall/config"}"#,
            r#"{"status":"a/status","discovery":"x/xdevice/affectd0123456789abcdef_hall/config"}"#,
        ] {
            assert_eq!(ListedDevice::from_message(TOPIC, text.as_bytes()), None, "{text}");
        }
        let valid = br#"{"status":"a/status","discovery":null}"#;
        assert!(ListedDevice::from_message(TOPIC, valid).is_some());
        for topic in [
            "affectd/boards/x/hall",
            "affectd/hall/status",
            "affectd/boards/affectd0123456789abcdef/a/b",
        ] {
            assert_eq!(ListedDevice::from_message(topic, valid), None, "{topic}");
        }
    }
}
