//! What the header of a Matroska file says of its tracks, and which of them we can decode.

use std::time::Duration;

use super::ebml::{children, float, string, unsigned};
use crate::capture::Picture;
use crate::capture::luma::Luma;
use crate::capture::pcm::{PcmLayout, SampleFormat};

const TRACK_ENTRY: u32 = 0xAE;

/// What a track holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Video(VideoCodec),
    Audio(PcmLayout),
    /// A track that this reader cannot decode: whether it is video or audio, and its codec.
    Foreign {
        video: bool,
        codec: String,
    },
    /// A track whose header makes no sense.
    Absurd {
        reason: String,
    },
}

/// Pictures we decode without help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    Mjpeg {
        width: u32,
        height: u32,
    },
    /// Uncompressed, luma at every `step`th byte of the picture's front.
    Raw {
        width: u32,
        height: u32,
        step: usize,
    },
}

impl VideoCodec {
    /// Wraps the bytes of one frame. A raw frame that is too short comes as a JPEG that will not decode: the consumer
    /// counts broken pictures anyway.
    pub fn picture(self, bytes: Vec<u8>) -> Picture {
        match self {
            VideoCodec::Mjpeg { .. } => Picture::Jpeg(bytes),
            VideoCodec::Raw { width, height, step } => {
                let pixels = width as usize * height as usize;
                let data = if step == 1 {
                    let mut bytes = bytes;
                    bytes.truncate(pixels);
                    bytes
                } else {
                    bytes.into_iter().step_by(step).take(pixels).collect()
                };
                Luma::new(width, height, data).map_or(Picture::Jpeg(Vec::new()), Picture::Luma)
            }
        }
    }
}

impl std::fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VideoCodec::Mjpeg { width, height } => write!(f, "MJPEG {width}x{height}"),
            VideoCodec::Raw { width, height, .. } => write!(f, "uncompressed {width}x{height}"),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Track {
    pub number: u64,
    pub content: Content,
    /// Time from one frame of a block to the next.
    pub frame_duration: Duration,
}

impl Track {
    /// Why the track's header makes no sense, if it does not.
    pub fn absurdity(&self) -> Option<&str> {
        match &self.content {
            Content::Absurd { reason } => Some(reason),
            _ => None,
        }
    }
}

/// Reads the content of a Tracks element.
pub fn read(content: &[u8]) -> Vec<Track> {
    children(content)
        .filter(|(id, _)| *id == TRACK_ENTRY)
        .filter_map(|(_, entry)| track(entry))
        .collect()
}

/// Reads a track entry. `None` for subtitles, buttons and switched-off tracks.
fn track(entry: &[u8]) -> Option<Track> {
    let (mut number, mut kind, mut enabled, mut encoded) = (0, 0, true, false);
    let (mut codec, mut private) = (String::new(), &[][..]);
    let (mut video, mut audio) = (&[][..], &[][..]);
    let mut frame_duration = Duration::ZERO;
    for (id, value) in children(entry) {
        match id {
            0xD7 => number = unsigned(value),
            0x83 => kind = unsigned(value),
            0xB9 => enabled = unsigned(value) != 0,
            0x86 => codec = string(value),
            0x63A2 => private = value,
            0x23_E383 => frame_duration = Duration::from_nanos(unsigned(value).min(1_000_000_000)),
            0xE0 => video = value,
            0xE1 => audio = value,
            0x6D80 => encoded = true,
            _ => {}
        }
    }
    let content = match kind {
        1 if enabled => video_content(&codec, private, video, encoded),
        2 if enabled => audio_content(&codec, audio, encoded),
        _ => return None,
    };
    Some(Track {
        number,
        content,
        frame_duration,
    })
}

fn video_content(codec: &str, private: &[u8], settings: &[u8], encoded: bool) -> Content {
    let (mut width, mut height, mut fourcc) = (0, 0, [0; 4]);
    for (id, value) in children(settings) {
        match id {
            0xB0 => width = unsigned(value),
            0xBA => height = unsigned(value),
            0x2E_B524 => fourcc = value.try_into().unwrap_or_default(),
            _ => {}
        }
    }
    let sides = 1..=u64::from(u16::MAX);
    if !sides.contains(&width) || !sides.contains(&height) {
        return Content::Absurd {
            reason: format!("its picture is {width}x{height} pixels large"),
        };
    }
    let (width, height) = (width as u32, height as u32);
    // The codec's four letters follow size, planes and depth in a Windows bitmap header.
    let windows = private
        .get(16..20)
        .filter(|_| codec == "V_MS/VFW/FOURCC")
        .unwrap_or_default();
    let known = if codec == "V_MJPEG" || windows.eq_ignore_ascii_case(b"MJPG") {
        Some(VideoCodec::Mjpeg { width, height })
    } else if codec == "V_UNCOMPRESSED" {
        let step = match &fourcc {
            // Planes, of which luma comes first.
            b"Y800" | b"Y8  " | b"GREY" | b"I420" | b"IYUV" | b"YV12" | b"NV12" | b"NV21" => Some(1),
            b"YUY2" | b"YUYV" => Some(2),
            _ => None,
        };
        step.map(|step| VideoCodec::Raw { width, height, step })
    } else {
        None
    };
    match known {
        Some(codec) if !encoded => Content::Video(codec),
        _ => Content::Foreign {
            video: true,
            codec: codec.to_owned(),
        },
    }
}

fn audio_content(codec: &str, settings: &[u8], encoded: bool) -> Content {
    let (mut rate_hz, mut channels, mut bits) = (8000.0, 1, 0);
    for (id, value) in children(settings) {
        match id {
            0xB5 => rate_hz = float(value),
            0x9F => channels = unsigned(value),
            0x6264 => bits = unsigned(value),
            _ => {}
        }
    }
    let format = match codec {
        "A_PCM/INT/LIT" => SampleFormat::integer(bits),
        "A_PCM/FLOAT/IEEE" => SampleFormat::float(bits),
        _ => None,
    };
    let Some(format) = format.filter(|_| !encoded) else {
        return Content::Foreign {
            video: false,
            codec: codec.to_owned(),
        };
    };
    match PcmLayout::new(format, channels, rate_hz) {
        Ok(layout) => Content::Audio(layout),
        Err(reason) => Content::Absurd {
            reason: format!("it has {reason}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::support::matroska::*;

    #[test]
    fn tracks_say_what_is_in_them() {
        let content = |entry: Vec<u8>| read(&entry).pop().map(|track| track.content);
        let mjpeg = Content::Video(VideoCodec::Mjpeg {
            width: 640,
            height: 480,
        });
        assert_eq!(content(video_track(1, "V_MJPEG", 640, 480)), Some(mjpeg.clone()));
        let bitmap = [
            &[40, 0, 0, 0, 128, 2, 0, 0, 224, 1, 0, 0, 1, 0, 24, 0],
            &b"MJPG"[..],
            &[0; 20],
        ]
        .concat();
        let size = element(0xE0, &[uint(0xB0, 640), uint(0xBA, 480)].concat());
        let windows = with_private("V_MS/VFW/FOURCC", &bitmap, size);
        assert_eq!(content(windows), Some(mjpeg));
        let foreign = content(video_track(1, "V_MPEG4/ISO/AVC", 640, 480));
        assert_eq!(
            foreign,
            Some(Content::Foreign {
                video: true,
                codec: "V_MPEG4/ISO/AVC".into()
            })
        );
        assert!(matches!(
            content(video_track(1, "V_MJPEG", 0, 480)),
            Some(Content::Absurd { .. })
        ));
        assert!(matches!(
            content(audio_track(1, "A_PCM/INT/LIT", 0.0, 1, 16)),
            Some(Content::Absurd { .. })
        ));
        assert!(matches!(
            content(audio_track(1, "A_PCM/INT/LIT", 16_000.0, 0, 16)),
            Some(Content::Absurd { .. })
        ));
        assert!(matches!(
            content(audio_track(1, "A_PCM/FLOAT/IEEE", 48_000.0, 2, 32)),
            Some(Content::Audio(_))
        ));
        assert_eq!(content(track_entry(3, 17, "S_TEXT/UTF8", Vec::new())), None);
    }

    fn with_private(codec: &str, private: &[u8], settings: Vec<u8>) -> Vec<u8> {
        track_entry(1, 1, codec, [element(0x63A2, private), settings].concat())
    }
}
