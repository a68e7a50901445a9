//! What a board has announced, kept on the broker: one retained message for each device name of the board. It lets the board find
//! and delete what it left under a former name, and `affectd forget` what a board left that is gone.
//!
//! Home Assistant's own announcements cannot serve as the index. With the board in their topic, version 2024.12 does not delete
//! them; without it, a board would have to read those of all devices.

use serde::{Deserialize, Serialize};

use super::address::{DeviceName, Topic};
use super::topics::BoardId;

/// The topics that a device has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub status: String,
    /// The announcement to Home Assistant, if there is one.
    pub discovery: Option<String>,
}

/// The topic of an entry.
pub fn topic(board: &BoardId, device: &DeviceName) -> String {
    format!("affectd/boards/{}/{}", board.as_str(), device.as_str())
}

/// The topics of all entries of a board.
pub fn topics_of_board(board: &BoardId) -> String {
    format!("affectd/boards/{}/+", board.as_str())
}

/// The topics of the entries of all boards with this device name.
pub fn topics_of_name(device: &DeviceName) -> String {
    format!("affectd/boards/+/{}", device.as_str())
}

impl Entry {
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings serialize into memory")
    }

    /// `None` if `json` is not an entry with usable topics.
    pub fn from_json(json: &[u8]) -> Option<Entry> {
        let entry: Entry = serde_json::from_slice(json).ok()?;
        let valid = |topic: &str, end: &str| topic.ends_with(end) && topic.parse::<Topic>().is_ok();
        let discovery_is_valid = entry.discovery.as_ref().is_none_or(|topic| valid(topic, "/config"));
        (valid(&entry.status, "/status") && discovery_is_valid).then_some(entry)
    }

    /// The first part of the device's topics.
    pub fn base(&self) -> &str {
        self.status.trim_end_matches("/status")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = Entry {
            status: "affectd/hall/status".into(),
            discovery: Some("homeassistant/device/x/config".into()),
        };
        assert_eq!(Entry::from_json(&entry.to_json()), Some(entry.clone()));
        assert_eq!(entry.base(), "affectd/hall");
    }

    #[test]
    fn other_texts_and_topics_that_no_device_has_are_rejected() {
        for text in [
            "",
            "{}",
            r#"{"status":"a/b","discovery":null}"#,
            r##"{"status":"a/#/status","discovery":null}"##,
            r#"{"status":"a/status","discovery":"b"}"#,
        ] {
            assert_eq!(Entry::from_json(text.as_bytes()), None, "{text}");
        }
    }
}
