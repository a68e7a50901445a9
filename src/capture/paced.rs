//! A clip played by the clock: what a device would have delivered, when it would have.

use std::time::{Duration, Instant};

use super::{AudioBlock, AudioSource, CaptureError, VideoFrame, VideoSource};

/// A source whose zero is at `epoch` on this machine's clock.
pub struct Paced<S> {
    source: S,
    epoch: Instant,
}

impl<S> Paced<S> {
    pub fn new(source: S, epoch: Instant) -> Paced<S> {
        Paced { source, epoch }
    }

    /// Waits for the moment `at` of the source and returns it.
    fn reach(&self, at: Duration) -> Instant {
        let moment = self.epoch + at;
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        moment
    }
}

impl VideoSource for Paced<Box<dyn VideoSource>> {
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        let frame = self.source.next_frame()?;
        Ok(frame.map(|frame| VideoFrame {
            captured: self.reach(frame.at),
            ..frame
        }))
    }
}

impl AudioSource for Paced<Box<dyn AudioSource>> {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        let chunk = self.source.next_block()?;
        Ok(chunk.map(|chunk| AudioBlock {
            captured: self.reach(chunk.end()),
            ..chunk
        }))
    }
}
