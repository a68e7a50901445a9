//! The interface that cameras, microphones and clips share.

use super::audio::AudioBlock;
use super::error::CaptureError;
use super::frame::VideoFrame;

/// A source of frames. The `camera` thread pulls it.
pub trait VideoSource: Send {
    /// Waits for the next frame. `None` means that the source has ended. Times never decrease.
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError>;
}

/// A source of audio blocks. The `microphone` thread pulls it.
pub trait AudioSource: Send {
    /// Waits for the next block. `None` means that the source has ended. Times never decrease.
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError>;
}
