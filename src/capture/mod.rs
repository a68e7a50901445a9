//! Sources of frames and audio blocks: cameras, microphones and clips.
//!
//! One thread pulls each [`VideoSource`] and each [`AudioSource`]. Frames come undecoded, as JPEG or luma; audio comes as
//! mono at 16 kHz in −1..1. All data carries its capture time on the source's own clock. Later stages process files and
//! devices in the same way.

mod audio;
pub mod camera;
pub mod clip;
pub mod error;
mod frame;
mod jpeg;
mod luma;
pub mod microphone;
pub mod mono;
mod monotonic;
pub mod orientation;
pub mod paced;
mod pcm;
pub mod program;
mod resample;
mod source;

pub use audio::{AUDIO_RATE_HZ, AudioBlock, duration_of, samples_in};
pub use error::{CaptureError, CaptureErrorKind};
pub use frame::{FramePayload, VideoFrame};
pub use jpeg::DecodeError;
pub use luma::Luma;
pub use source::{AudioSource, VideoSource};

/// Test images and test clips, shared with the integration tests.
#[cfg(test)]
#[path = "../../tests/support"]
mod support {
    use super::clip::ebml;
    pub mod jpeg;
    pub mod matroska;
}
