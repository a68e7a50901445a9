//! The tracks of a Matroska stream as sources.

use std::collections::VecDeque;
use std::io::Read;
use std::time::{Duration, Instant};

use super::ebml::EbmlError;
use super::matroska::Matroska;
use super::sound::Sound;
use super::tracks::VideoCodec;
use crate::capture::pcm::PcmLayout;
use crate::capture::{AudioBlock, AudioSource, CaptureError, VideoFrame, VideoSource};

/// What a source says, once, when its clip stops too early.
pub fn cut_short(name: &str, trouble: &EbmlError, at: Duration) -> CaptureError {
    let mend = "what came before was used: copy or record the clip again for the rest";
    let at = at.as_secs_f64();
    CaptureError::CutShort(match trouble {
        EbmlError::CutOff => format!("{name}: cut off after {at:.1} s, {mend}"),
        EbmlError::Damaged { .. } => format!("{name}: {trouble}, after {at:.1} s, {mend}"),
        EbmlError::Io(err) => format!("{name}: cannot be read on after {at:.1} s, {mend} ({err})"),
    })
}

/// The pictures of a Matroska stream, at their own times.
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
                        let picture = self.codec.picture(bytes.to_vec());
                        self.queue.push_back(VideoFrame {
                            at: self.last,
                            captured,
                            picture,
                        });
                    }
                }
                Ok(None) => self.ended = true,
                Err(trouble) => {
                    self.ended = true;
                    return Err(cut_short(&self.name, &trouble, self.matroska.last()));
                }
            }
        }
        Ok(self.queue.pop_front())
    }
}

/// The sound of a Matroska stream.
pub struct MatroskaAudio<R> {
    name: String,
    matroska: Matroska<R>,
    track: u64,
    sound: Sound,
    /// Set at the end of the track: what is left to say of it.
    end: Option<Option<CaptureError>>,
}

impl<R: Read> MatroskaAudio<R> {
    pub fn new(name: &str, matroska: Matroska<R>, track: u64, layout: PcmLayout) -> MatroskaAudio<R> {
        MatroskaAudio {
            name: name.to_owned(),
            matroska,
            track,
            sound: Sound::new(layout),
            end: None,
        }
    }
}

impl<R: Read + Send> AudioSource for MatroskaAudio<R> {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        loop {
            if let Some(chunk) = self.sound.pop() {
                return Ok(Some(chunk));
            }
            if let Some(error) = &mut self.end {
                return error.take().map_or(Ok(None), Err);
            }
            match self.matroska.next_block(self.track) {
                Ok(Some(block)) => self.sound.push(block.at, block.joined()),
                Ok(None) => {
                    self.sound.flush();
                    self.end = Some(None);
                }
                Err(trouble) => {
                    self.sound.flush();
                    self.end = Some(Some(cut_short(&self.name, &trouble, self.matroska.last())));
                }
            }
        }
    }
}
