//! Where pictures and sound come from.

use log::info;

use crate::capture::camera::CameraSettings;
use crate::capture::clip::Clip;
use crate::capture::microphone::MicrophoneSettings;
use crate::capture::{AudioSource, CaptureError, VideoSource};
use crate::config::{Pace, Source};

/// Where pictures and sound come from; `None` for what there is none of.
pub struct Sources {
    pub pictures: Option<Pictures>,
    pub sound: Option<Sound>,
}

pub enum Pictures {
    Clip(Box<dyn VideoSource>),
    Camera(CameraSettings),
}

pub enum Sound {
    Clip(Box<dyn AudioSource>),
    Microphone(MicrophoneSettings),
}

impl Sources {
    /// Opens a clip. Devices are opened by the threads that own them, which also wait for them.
    pub fn of(source: &Source) -> Result<(Sources, Pace), CaptureError> {
        match source {
            Source::Clip { path, pace } => {
                let clip = Clip::open(path)?;
                info!("{}", clip.description);
                let sources = Sources {
                    pictures: clip.video.map(Pictures::Clip),
                    sound: clip.audio.map(Sound::Clip),
                };
                Ok((sources, *pace))
            }
            Source::Devices(devices) => {
                let sources = Sources {
                    pictures: devices.camera.clone().map(Pictures::Camera),
                    sound: devices.microphone.clone().map(Sound::Microphone),
                };
                Ok((sources, Pace::Realtime))
            }
        }
    }
}
