//! The tracks of a Matroska stream as sources.

use std::collections::VecDeque;
use std::io::Read;
use std::time::{Duration, Instant};

use super::audio::ClipAudio;
use super::matroska::Matroska;
use super::tracks::VideoCodec;
use crate::capture::error::{CutCause, Reason};
use crate::capture::pcm::PcmLayout;
use crate::capture::{AudioBlock, AudioSource, CaptureError, VideoFrame, VideoSource};

/// The error of a clip that ended early, at this time on its own clock.
pub fn cut_short(name: &str, cause: impl Into<CutCause>, after: Duration) -> CaptureError {
    let cause = cause.into();
    CaptureError::clip(name, Reason::CutShort { after, cause })
}

/// The video track of a Matroska stream.
pub struct MatroskaVideo<R> {
    name: String,
    matroska: Matroska<R>,
    track: u64,
    codec: VideoCodec,
    queue: VecDeque<VideoFrame>,
    last: Duration,
    ended: bool,
}

impl<R: Read> MatroskaVideo<R> {
    pub fn new(name: &str, matroska: Matroska<R>, track: u64, codec: VideoCodec) -> MatroskaVideo<R> {
        MatroskaVideo {
            name: name.to_owned(),
            matroska,
            track,
            codec,
            queue: VecDeque::new(),
            last: Duration::ZERO,
            ended: false,
        }
    }
}

impl<R: Read + Send> VideoSource for MatroskaVideo<R> {
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        while self.queue.is_empty() && !self.ended {
            match self.matroska.next_block(self.track) {
                Ok(Some(block)) => {
                    let captured = Instant::now();
                    for (at, bytes) in block.frames() {
                        self.last = self.last.max(at);
                        let payload = self.codec.payload(bytes.to_vec());
                        self.queue.push_back(VideoFrame {
                            at: self.last,
                            captured,
                            payload,
                        });
                    }
                }
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Err(cut_short(&self.name, error, self.matroska.last()));
                }
            }
        }
        Ok(self.queue.pop_front())
    }
}

/// The audio track of a Matroska stream.
pub struct MatroskaAudio<R> {
    name: String,
    matroska: Matroska<R>,
    track: u64,
    audio: ClipAudio,
}

impl<R: Read> MatroskaAudio<R> {
    pub fn new(name: &str, matroska: Matroska<R>, track: u64, layout: PcmLayout) -> MatroskaAudio<R> {
        MatroskaAudio {
            name: name.to_owned(),
            matroska,
            track,
            audio: ClipAudio::new(name, layout),
        }
    }
}

impl<R: Read + Send> AudioSource for MatroskaAudio<R> {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        while self.audio.needs_input() {
            match self.matroska.next_block(self.track) {
                Ok(Some(block)) => self.audio.push(block.at, block.joined()),
                Ok(None) => self.audio.end(None),
                Err(error) => {
                    let error = cut_short(&self.name, error, self.matroska.last());
                    self.audio.end(Some(error));
                }
            }
        }
        self.audio.next_block()
    }
}
