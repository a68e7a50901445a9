//! The configured sources of video and audio.

use std::sync::atomic::{AtomicBool, Ordering};

use log::info;

use crate::capture::camera::CameraSettings;
use crate::capture::clip::{Clip, Extent};
use crate::capture::microphone::MicrophoneSettings;
use crate::capture::{AudioSource, CaptureError, VideoSource};
use crate::config::{DeviceSettings, Pace, Source};

/// The sources; `None` for a clip without such a track and for a device that is off.
pub struct Sources {
    pub video: Option<VideoInput>,
    pub audio: Option<AudioInput>,
    /// `None` for devices.
    pub extent: Option<Extent>,
}

pub enum VideoInput {
    Clip(Box<dyn VideoSource>),
    Camera(CameraSettings),
}

pub enum AudioInput {
    Clip(Box<dyn AudioSource>),
    Microphone(MicrophoneSettings),
}

/// Which kinds of input there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputKinds {
    pub video: bool,
    pub audio: bool,
}

impl Sources {
    /// Opens a clip. Devices are opened later, by the threads that own them and wait for them.
    /// `None` if `stop` says so meanwhile.
    pub fn open(source: &Source, stop: &AtomicBool) -> Result<Option<(Sources, Pace)>, CaptureError> {
        match source {
            Source::Clip { path, pace } => {
                let stop = || stop.load(Ordering::Relaxed);
                let Some(clip) = Clip::open_unless_stopped(path, &stop)? else {
                    return Ok(None);
                };
                info!("{}", clip.description);
                let sources = Sources {
                    video: clip.video.map(VideoInput::Clip),
                    audio: clip.audio.map(AudioInput::Clip),
                    extent: Some(clip.extent),
                };
                Ok(Some((sources, *pace)))
            }
            Source::Devices(devices) => {
                let sources = Sources {
                    video: devices.camera.clone().map(VideoInput::Camera),
                    audio: devices.microphone.clone().map(AudioInput::Microphone),
                    extent: None,
                };
                Ok(Some((sources, Pace::Realtime)))
            }
        }
    }

    pub fn kinds(&self) -> InputKinds {
        InputKinds {
            video: self.video.is_some(),
            audio: self.audio.is_some(),
        }
    }
}

impl InputKinds {
    pub fn of(devices: &DeviceSettings) -> InputKinds {
        InputKinds {
            video: devices.camera.is_some(),
            audio: devices.microphone.is_some(),
        }
    }
}
