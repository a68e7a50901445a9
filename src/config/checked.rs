//! The configuration that affectd runs with.

use std::path::PathBuf;

use crate::capture::camera::CameraSettings;
use crate::capture::microphone::MicrophoneSettings;
use crate::face::stage::FaceSettings;
use crate::fusion::FusionSettings;
use crate::model::KernelChoice;
use crate::output::OutputSpec;
use crate::privacy::{ButtonLine, OffHours};
use crate::status::StatusSettings;

/// A configuration that affectd can run with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The folder of the models; `None` for the embedded ones.
    pub models: Option<PathBuf>,
    /// The kernels for int8 graphs. Not a key: `main` sets it from `AFFECTD_KERNEL`.
    pub kernel: KernelChoice,
    pub source: Source,
    pub face: FaceSettings,
    pub fusion: FusionSettings,
    /// Never empty.
    pub outputs: Vec<OutputSpec>,
    pub privacy: PrivacySettings,
    /// `None` if there is no status page.
    pub status: Option<StatusSettings>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivacySettings {
    /// In these hours, the devices are closed.
    pub off_hours: OffHours,
    /// The LED that is on while a device is open.
    pub light: Option<PathBuf>,
    /// The button that pauses and resumes.
    pub button: Option<ButtonLine>,
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
