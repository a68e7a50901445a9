//! The raw form of the configuration: every key with its default, before the values are checked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::capture::camera::negotiate::RequestedMode;
use crate::capture::orientation::Flip;
use crate::status::Preview;

/// How the value of a key is written in an environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, without quotes.
    Text,
    /// Texts, separated by commas.
    List,
    /// A number or a switch, as in TOML.
    Plain,
}

/// Every key, in the order in which the file is written.
pub const KEYS: &[(&str, Kind)] = &[
    ("models", Kind::Text),
    ("output", Kind::List),
    ("camera.device", Kind::Text),
    ("camera.width", Kind::Plain),
    ("camera.height", Kind::Plain),
    ("camera.rate_hz", Kind::Plain),
    ("camera.format", Kind::Text),
    ("camera.delay_s", Kind::Plain),
    ("camera.rotate", Kind::Plain),
    ("camera.flip", Kind::Text),
    ("microphone.device", Kind::Text),
    ("microphone.delay_s", Kind::Plain),
    ("microphone.channel", Kind::Text),
    ("input.clip", Kind::Text),
    ("input.realtime", Kind::Plain),
    ("face.rate_hz", Kind::Plain),
    ("face.detect_every_s", Kind::Plain),
    ("face.min_score", Kind::Plain),
    ("estimate.rate_hz", Kind::Plain),
    ("estimate.smoothing_s", Kind::Plain),
    ("estimate.baseline", Kind::Text),
    ("privacy.off", Kind::Text),
    ("privacy.light", Kind::Text),
    ("privacy.button", Kind::Text),
    ("status.listen", Kind::Text),
    ("status.token", Kind::Text),
    ("status.preview", Kind::Text),
    ("status.unencrypted_image", Kind::Plain),
    ("status.hosts", Kind::List),
];

/// All keys. An unknown key is an error, so a misspelt one is not silently ignored.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `None` for the embedded models.
    pub models: Option<PathBuf>,
    pub output: Vec<String>,
    pub camera: RawCamera,
    pub microphone: RawMicrophone,
    pub input: RawInput,
    pub face: RawFace,
    pub estimate: RawEstimate,
    pub privacy: RawPrivacy,
    pub status: RawStatus,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCamera {
    pub device: String,
    pub width: u32,
    pub height: u32,
    pub rate_hz: f64,
    pub format: String,
    pub delay_s: f64,
    pub rotate: u32,
    pub flip: Flip,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMicrophone {
    pub device: String,
    pub delay_s: f64,
    pub channel: RawChannel,
}

/// `channel = 2` or `channel = "mix"`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected \"mix\" or the number of a channel")]
pub enum RawChannel {
    Number(u16),
    Name(String),
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawInput {
    /// `None` for camera and microphone.
    pub clip: Option<PathBuf>,
    pub realtime: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawFace {
    pub rate_hz: f64,
    pub detect_every_s: f64,
    pub min_score: f64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawEstimate {
    pub rate_hz: f64,
    pub smoothing_s: f64,
    pub baseline: RawBaseline,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPrivacy {
    pub off: String,
    /// `None` for no light.
    pub light: Option<PathBuf>,
    /// `None` for no button.
    pub button: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawBaseline {
    OnDemand,
    EachPerson,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStatus {
    pub listen: String,
    /// `None` for the systemd credential, if there is one.
    pub token: Option<PathBuf>,
    pub preview: Preview,
    pub unencrypted_image: bool,
    pub hosts: Vec<String>,
}

impl Default for RawConfig {
    fn default() -> RawConfig {
        RawConfig {
            models: None,
            output: vec!["stdout".into()],
            camera: RawCamera::default(),
            microphone: RawMicrophone::default(),
            input: RawInput::default(),
            face: RawFace::default(),
            estimate: RawEstimate::default(),
            privacy: RawPrivacy::default(),
            status: RawStatus::default(),
        }
    }
}

impl Default for RawCamera {
    fn default() -> RawCamera {
        let mode = RequestedMode::default();
        RawCamera {
            device: "auto".into(),
            width: mode.width,
            height: mode.height,
            rate_hz: mode.rate_hz.into(),
            format: "auto".into(),
            delay_s: 0.0,
            rotate: 0,
            flip: Flip::None,
        }
    }
}

impl Default for RawMicrophone {
    fn default() -> RawMicrophone {
        RawMicrophone {
            device: "auto".into(),
            delay_s: 0.0,
            channel: RawChannel::Name("mix".into()),
        }
    }
}

impl Default for RawFace {
    fn default() -> RawFace {
        RawFace {
            rate_hz: 10.0,
            detect_every_s: 0.4,
            min_score: 0.5,
        }
    }
}

impl Default for RawEstimate {
    fn default() -> RawEstimate {
        RawEstimate {
            rate_hz: 5.0,
            smoothing_s: 0.5,
            baseline: RawBaseline::OnDemand,
        }
    }
}

impl Default for RawStatus {
    fn default() -> RawStatus {
        RawStatus {
            listen: "off".into(),
            token: None,
            preview: Preview::default(),
            unencrypted_image: false,
            hosts: Vec::new(),
        }
    }
}

/// The kind of a key. An unknown key is rejected later, with a list of the known keys.
pub fn kind_of(key: &str) -> Kind {
    let known = KEYS.iter().find(|(name, _)| *name == key);
    known.map_or(Kind::Plain, |(_, kind)| *kind)
}

/// `{face: {rate_hz: 5}}` as `face.rate_hz` and 5.
pub fn flatten(table: Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(section) => {
                flat.extend(
                    section
                        .into_iter()
                        .map(|(name, value)| (format!("{key}.{name}"), value)),
                );
            }
            value => flat.push((key, value)),
        }
    }
    flat
}

/// The reverse of [`flatten`].
pub fn nest(flat: impl IntoIterator<Item = (String, Value)>) -> Table {
    let mut table = Table::new();
    for (key, value) in flat {
        match key.split_once('.') {
            None => {
                table.insert(key, value);
            }
            Some((section, name)) => {
                let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(section) = section {
                    section.insert(name.to_owned(), value);
                }
            }
        }
    }
    table
}
