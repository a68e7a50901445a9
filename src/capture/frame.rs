//! Video frames, not yet decoded.

use std::time::{Duration, Instant};

use super::jpeg::{self, DecodeError};
use super::luma::Luma;

/// One frame as it left the source. Most frames are never decoded, since the face stage skips them.
#[derive(Debug)]
pub struct VideoFrame {
    /// Capture time on the source's clock, from the source's start.
    pub at: Duration,
    /// The same moment on this machine's monotonic clock, for latency. Frames of a clip that is read faster than real time
    /// carry the time of reading.
    pub captured: Instant,
    pub payload: FramePayload,
}

/// The image in a [`VideoFrame`].
#[derive(Debug, Clone)]
pub enum FramePayload {
    /// One JPEG image. It may be truncated or corrupt: [`FramePayload::into_luma`] checks it.
    Jpeg(Vec<u8>),
    /// An uncompressed image.
    Luma(Luma),
}

impl FramePayload {
    /// Decodes to luma. A truncated JPEG counts as complete if at least three quarters of its rows are there; the missing
    /// rows are mid-grey.
    pub fn into_luma(self) -> Result<Luma, DecodeError> {
        match self {
            FramePayload::Luma(luma) => Ok(luma),
            FramePayload::Jpeg(bytes) => jpeg::decode(&bytes),
        }
    }
}
