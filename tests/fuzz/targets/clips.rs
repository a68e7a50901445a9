//! Clips. However the bytes of a file arrive, its tracks deliver the same, in order, within −1..1, and no more than the file holds.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::time::Duration;

use affectd::capture::clip::fuzzing::{self, Track};
use affectd::capture::{AudioSource, FramePayload, VideoSource};

use super::chunks::Trickle;

/// The most tracks that are played. Each takes the time of the whole file.
const MAX_TRACKS: usize = 4;

/// Everything that a track delivered.
#[derive(Debug, Default, PartialEq)]
struct Played {
    items: usize,
    /// Bytes of images, or samples.
    size: usize,
    hash: u64,
    end: Option<String>,
}

impl Played {
    fn of(track: Track) -> Played {
        match track {
            Track::Video(video) => Played::video(video),
            Track::Audio(audio) => Played::audio(audio),
        }
    }

    fn video(mut video: Box<dyn VideoSource + '_>) -> Played {
        let mut played = Played::default();
        let (mut hash, mut last) = (DefaultHasher::new(), Duration::ZERO);
        loop {
            match video.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.at >= last, "{:?} after {last:?}", frame.at);
                    last = frame.at;
                    let bytes = match &frame.payload {
                        FramePayload::Jpeg(bytes) => bytes,
                        FramePayload::Luma(luma) => luma.as_slice(),
                    };
                    played.add(bytes.len());
                    (frame.at, bytes).hash(&mut hash);
                }
                Ok(None) => break,
                Err(error) => {
                    played.end = Some(error.to_string());
                    break;
                }
            }
        }
        assert!(matches!(video.next_frame(), Ok(None)), "a frame after the end");
        played.hash = hash.finish();
        played
    }

    fn audio(mut audio: Box<dyn AudioSource + '_>) -> Played {
        let mut played = Played::default();
        let (mut hash, mut last) = (DefaultHasher::new(), Duration::ZERO);
        loop {
            match audio.next_block() {
                Ok(Some(block)) => {
                    assert!(block.at >= last, "{:?} after {last:?}", block.at);
                    last = block.at;
                    assert!(!block.samples.is_empty(), "an empty block");
                    assert!(block.samples.iter().all(|sample| (-1.0..=1.0).contains(sample)));
                    played.add(block.samples.len());
                    block.at.hash(&mut hash);
                    block.samples.iter().for_each(|sample| sample.to_bits().hash(&mut hash));
                }
                Ok(None) => break,
                Err(error) => {
                    played.end = Some(error.to_string());
                    break;
                }
            }
        }
        assert!(matches!(audio.next_block(), Ok(None)), "a block after the end");
        played.hash = hash.finish();
        played
    }

    fn add(&mut self, size: usize) {
        self.items += 1;
        self.size += size;
    }
}

/// Plays all tracks, and checks that they hold no more than `bytes` of input can.
fn play(tracks: Result<Vec<Track>, String>, bytes: usize) -> Result<Vec<Played>, String> {
    let played: Vec<Played> = tracks?.into_iter().take(MAX_TRACKS).map(Played::of).collect();
    for track in &played {
        // Two samples of 16 kHz for each byte at 8 kHz, and one more wherever a gap is rounded up.
        assert!(track.size <= 4 * bytes, "{track:?} from {bytes} bytes");
        // A block of a few bytes may hold 256 frames without content.
        assert!(track.items <= 256 * bytes, "{track:?} from {bytes} bytes");
    }
    Ok(played)
}

pub fn check_matroska(data: &[u8]) {
    let whole = play(fuzzing::matroska(|| data), data.len());
    assert_eq!(play(fuzzing::matroska(|| Trickle::new(data)), data.len()), whole);
}

pub fn check_wav(data: &[u8]) {
    let one = |track: Result<Track<'_>, String>| track.map(Played::of);
    let whole = one(fuzzing::wav(data));
    assert_eq!(one(fuzzing::wav(Trickle::new(data))), whole);
    if let Ok(track) = whole {
        assert!(track.size <= 4 * data.len(), "{track:?} from {} bytes", data.len());
    }
}

pub fn check_mjpeg(data: &[u8]) {
    let whole = Played::of(fuzzing::mjpeg(data));
    assert_eq!(Played::of(fuzzing::mjpeg(Trickle::new(data))), whole);
    assert!(whole.size <= data.len() && whole.items <= data.len() / 2);
    for image in images(data) {
        assert!(image.starts_with(&[0xFF, 0xD8]));
    }
}

fn images(data: impl Read + Send) -> Vec<Vec<u8>> {
    let Track::Video(mut video) = fuzzing::mjpeg(data) else {
        unreachable!("a stream of images is video")
    };
    let frames = std::iter::from_fn(|| video.next_frame().ok().flatten());
    let bytes = frames.map(|frame| match frame.payload {
        FramePayload::Jpeg(bytes) => bytes,
        FramePayload::Luma(luma) => panic!("{luma:?} in a stream of JPEG images"),
    });
    bytes.collect()
}
