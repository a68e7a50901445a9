//! Entries for `tests/fuzz`: the readers of clips, fed from memory instead of from files.

use std::io::Read;

use super::matroska::{Matroska, Start};
use super::mjpeg::Mjpeg;
use super::playback::{MatroskaAudio, MatroskaVideo};
use super::tracks::Content;
use super::wav::Wav;
use crate::capture::{AudioSource, VideoSource};

/// One track of a clip.
pub enum Track<'a> {
    Video(Box<dyn VideoSource + 'a>),
    Audio(Box<dyn AudioSource + 'a>),
}

/// The tracks of a Matroska file that are read without ffmpeg. `open` is called once for each of them, as a file is.
pub fn matroska<'a, R: Read + Send + 'a>(open: impl Fn() -> R) -> Result<Vec<Track<'a>>, String> {
    let matroska = || Matroska::open(open(), Start::FirstCluster).map_err(|error| error.to_string());
    let mut sources = Vec::new();
    for track in matroska()?.tracks() {
        match track.content {
            Content::Video(codec) => {
                let video = MatroskaVideo::new("clip", matroska()?, track.number, codec);
                sources.push(Track::Video(Box::new(video)));
            }
            Content::Audio(layout) => {
                let audio = MatroskaAudio::new("clip", matroska()?, track.number, layout);
                sources.push(Track::Audio(Box::new(audio)));
            }
            Content::Unsupported { .. } | Content::Invalid(_) => {}
        }
    }
    Ok(sources)
}

pub fn wav<'a, R: Read + Send + 'a>(input: R) -> Result<Track<'a>, String> {
    match Wav::open("clip", input) {
        Ok(wav) => Ok(Track::Audio(Box::new(wav))),
        Err(error) => Err(error.to_string()),
    }
}

pub fn mjpeg<'a, R: Read + Send + 'a>(input: R) -> Track<'a> {
    Track::Video(Box::new(Mjpeg::new("clip", input)))
}
