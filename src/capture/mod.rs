//! Where pictures and sound come from.
//!
//! A [`VideoSource`] and an [`AudioSource`] are pulled by a thread each and hand over data stamped with the time it was
//! captured, on the source's own clock. Nothing behind them can tell a file from a device.

pub mod camera;
pub mod clip;
pub mod luma;
pub mod microphone;
pub mod monotonic;
pub mod paced;
pub mod pcm;
pub mod resample;

/// Pictures and clips for tests, shared with the integration tests.
#[cfg(test)]
#[path = "../../tests/support"]
mod support {
    pub mod jpeg;
    pub mod matroska;
}

use std::time::{Duration, Instant};

pub use luma::Luma;

/// Sample rate of every [`AudioBlock`]. The voice models are trained at this rate.
pub const AUDIO_RATE_HZ: u32 = 16_000;

/// One picture as it left the source, not yet decoded: most pictures never need to be.
#[derive(Debug)]
pub struct VideoFrame {
    /// Capture time on the source's clock, from the source's start.
    pub at: Duration,
    /// The same moment on this machine's monotonic clock, for latency. A file read faster than real time says when it
    /// was read.
    pub captured: Instant,
    pub picture: Picture,
}

/// The payload of a [`VideoFrame`].
#[derive(Debug)]
pub enum Picture {
    /// One JPEG image. May be truncated or corrupt: [`Picture::into_luma`] tells.
    Jpeg(Vec<u8>),
    /// Already luma.
    Luma(Luma),
}

/// A run of mono samples at [`AUDIO_RATE_HZ`], each in −1..1.
#[derive(Debug)]
pub struct AudioBlock {
    /// Capture time of the first sample on the source's clock.
    pub at: Duration,
    /// The moment the last sample was captured, as in [`VideoFrame::captured`].
    pub captured: Instant,
    pub samples: Vec<f32>,
}

impl AudioBlock {
    /// Capture time of the sample after the last.
    pub fn end(&self) -> Duration {
        self.at + Duration::from_secs_f64(self.samples.len() as f64 / f64::from(AUDIO_RATE_HZ))
    }
}

/// A source of pictures, pulled by the `camera` thread.
pub trait VideoSource: Send {
    /// Waits for the next picture; `None` once the source has ended. Times never go back.
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError>;
}

/// A source of sound, pulled by the `microphone` thread.
pub trait AudioSource: Send {
    /// Waits for the next run of samples; `None` once the source has ended. Times never go back.
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError>;
}

/// What went wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The source cannot be used at all; trying again will not help. The text names the thing, the reason and the mend.
    #[error("{0}")]
    Unusable(String),
    /// A device that is not there, or not to be opened for now: trying again may help.
    #[error("{0}")]
    Lost(String),
    /// A device that is open, but nothing comes from it: opening it afresh may help.
    #[error("{0}")]
    Stalled(String),
    /// The source stopped early, but what came before is good: a clip that is cut off, say.
    #[error("{0}")]
    CutShort(String),
}
