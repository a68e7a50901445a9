//! The configuration: a TOML file, `AFFECTD_*` environment variables above it, flags above both.
//!
//! ```text
//! defaults, file, environment, flags ─▶ Settings (value and origin of each key) ─▶ RawConfig (types) ─▶ Config (ranges)
//! ```

mod raw;
mod secrets;
mod settings;
mod validate;

use std::path::PathBuf;

use crate::capture::camera::CameraSettings;
use crate::capture::microphone::MicrophoneSettings;
use crate::face::stage::FaceSettings;
use crate::fusion::FusionSettings;
use crate::output::OutputSpec;

pub use secrets::masked;
pub use settings::{DEFAULT_FILE, Flags, Layers, Origin, Setting, Settings, VARIABLE_PREFIX};

/// A configuration that affectd can run with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The folder of the models; `None` for the embedded ones.
    pub models: Option<PathBuf>,
    pub source: Source,
    pub face: FaceSettings,
    pub fusion: FusionSettings,
    /// Never empty.
    pub outputs: Vec<OutputSpec>,
}

/// Where frames and audio come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Clip { path: PathBuf, pace: Pace },
    Devices(DeviceSettings),
}

/// A camera, a microphone, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSettings {
    pub camera: Option<CameraSettings>,
    pub microphone: Option<MicrophoneSettings>,
}

/// How fast a clip is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as possible. Nothing is skipped, so the same clip gives the same estimates.
    Replay,
    /// At the clip's own speed, like devices: frames that come too fast are skipped and counted.
    Realtime,
}

/// Why a configuration is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read ({reason}): check the path given with --config or AFFECTD_CONFIG", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{origin}: {reason}: correct or remove it")]
    Malformed { origin: String, reason: String },
    #[error("{key} = {value} ({origin}): must be from {min} to {max}")]
    OutOfRange {
        key: &'static str,
        value: f64,
        origin: Origin,
        min: f64,
        max: f64,
    },
    #[error("{key} = {value} ({origin}): {reason}")]
    Invalid {
        key: &'static str,
        value: String,
        origin: Origin,
        reason: String,
    },
    /// An output spec. It is shown without passwords.
    #[error("output = \"{spec}\": {reason}")]
    Output { spec: String, reason: String },
}

impl Config {
    /// Reads and checks the configuration.
    pub fn load(layers: &Layers) -> Result<Config, ConfigError> {
        Settings::read(layers)?.to_config()
    }
}

#[cfg(test)]
mod tests;
