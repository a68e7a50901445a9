//! Plays a clip in real time: each frame and each audio block comes when a device would deliver it.

use std::time::{Duration, Instant};

use super::{AudioBlock, AudioSource, CaptureError, VideoFrame, VideoSource};

/// A source whose time zero is `epoch` on this machine's monotonic clock.
pub struct Paced<S> {
    source: S,
    epoch: Instant,
}

impl<S> Paced<S> {
    pub fn new(source: S, epoch: Instant) -> Paced<S> {
        Paced { source, epoch }
    }

    /// Waits until the source's time `at`. Returns that moment.
    fn wait_until(&self, at: Duration) -> Instant {
        let moment = self.epoch + at;
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        moment
    }
}

impl VideoSource for Paced<Box<dyn VideoSource>> {
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        let frame = self.source.next_frame()?;
        Ok(frame.map(|frame| VideoFrame {
            captured: self.wait_until(frame.at),
            ..frame
        }))
    }
}

impl AudioSource for Paced<Box<dyn AudioSource>> {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        let block = self.source.next_block()?;
        Ok(block.map(|block| AudioBlock {
            captured: self.wait_until(block.end()),
            ..block
        }))
    }
}
