//! The tracks in the header of a Matroska file, and which of them affectd can decode.

use std::time::Duration;

use super::ebml::{children, float, ids, string, unsigned};
use crate::capture::pcm::{PcmLayout, PcmLayoutError, SampleFormat};
use crate::capture::{FramePayload, Luma};

/// A display size within this part of the frame's shape counts as equal: containers round it.
const MAX_STRETCH: u128 = 50;

/// The content of a track.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Video(VideoCodec),
    Audio(PcmLayout),
    /// A track that needs ffmpeg, and its codec.
    Unsupported {
        media: Media,
        codec: String,
    },
    /// A track with an invalid header.
    Invalid(InvalidTrack),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Video,
    Audio,
}

impl Content {
    /// `None` for a track with an invalid header.
    pub fn media(&self) -> Option<Media> {
        match self {
            Content::Video(_) => Some(Media::Video),
            Content::Audio(_) => Some(Media::Audio),
            Content::Unsupported { media, .. } => Some(*media),
            Content::Invalid(_) => None,
        }
    }
}

/// What is invalid in the header of a track.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidTrack {
    #[error("its frames have {width}x{height} pixels")]
    FrameSize { width: u64, height: u64 },
    #[error("it has {0}")]
    Pcm(#[from] PcmLayoutError),
}

/// Video that affectd decodes without ffmpeg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    Mjpeg {
        width: u32,
        height: u32,
    },
    /// Uncompressed. The luma samples are every `step`th byte from the start of the frame.
    Raw {
        width: u32,
        height: u32,
        step: usize,
    },
}

impl VideoCodec {
    /// Wraps the bytes of one frame. A raw frame that is too short becomes an empty JPEG, so that the face stage counts it as
    /// undecodable.
    pub fn payload(self, bytes: Vec<u8>) -> FramePayload {
        match self {
            VideoCodec::Mjpeg { .. } => FramePayload::Jpeg(bytes),
            VideoCodec::Raw { width, height, step } => {
                let pixels = width as usize * height as usize;
                let data = if step == 1 {
                    let mut bytes = bytes;
                    bytes.truncate(pixels);
                    bytes
                } else {
                    bytes.into_iter().step_by(step).take(pixels).collect()
                };
                Luma::new(width, height, data).map_or(FramePayload::Jpeg(Vec::new()), FramePayload::Luma)
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
    /// The recorder's choice, if there are several tracks of a kind.
    pub is_default: bool,
    /// Time between two frames of one block.
    pub frame_duration: Duration,
}

/// Reads the content of a Tracks element.
pub fn read(content: &[u8]) -> Vec<Track> {
    children(content)
        .filter(|(id, _)| *id == ids::TRACK_ENTRY)
        .filter_map(|(_, entry)| track(entry))
        .collect()
}

/// Reads a track entry. `None` for subtitles, buttons and disabled tracks.
fn track(entry: &[u8]) -> Option<Track> {
    let (mut number, mut track_type, mut enabled, mut encoded) = (0, 0, true, false);
    let (mut codec, mut private) = (String::new(), &[][..]);
    let (mut video, mut audio) = (&[][..], &[][..]);
    let mut frame_duration = Duration::ZERO;
    let mut is_default = true;
    for (id, value) in children(entry) {
        match id {
            ids::TRACK_NUMBER => number = unsigned(value),
            ids::TRACK_TYPE => track_type = unsigned(value),
            ids::FLAG_ENABLED => enabled = unsigned(value) != 0,
            ids::FLAG_DEFAULT => is_default = unsigned(value) != 0,
            ids::CODEC_ID => codec = string(value),
            ids::CODEC_PRIVATE => private = value,
            ids::DEFAULT_DURATION => frame_duration = Duration::from_nanos(unsigned(value).min(1_000_000_000)),
            ids::VIDEO => video = value,
            ids::AUDIO => audio = value,
            ids::CONTENT_ENCODINGS => encoded = true,
            _ => {}
        }
    }
    // Compressed or encrypted blocks need ffmpeg, whatever the codec.
    let content = match track_type {
        ids::TYPE_VIDEO if enabled => video_content(&codec, private, video),
        ids::TYPE_AUDIO if enabled => audio_content(&codec, audio),
        _ => return None,
    };
    let content = match content.media() {
        Some(media) if encoded => Content::Unsupported { media, codec },
        _ => content,
    };
    Some(Track {
        number,
        content,
        is_default,
        frame_duration,
    })
}

fn video_content(codec: &str, private: &[u8], settings: &[u8]) -> Content {
    let (mut width, mut height, mut fourcc) = (0, 0, [0; 4]);
    let (mut display_width, mut display_height, mut projected) = (0, 0, false);
    for (id, value) in children(settings) {
        match id {
            ids::PIXEL_WIDTH => width = unsigned(value),
            ids::PIXEL_HEIGHT => height = unsigned(value),
            ids::DISPLAY_WIDTH => display_width = unsigned(value),
            ids::DISPLAY_HEIGHT => display_height = unsigned(value),
            ids::PROJECTION => projected = true,
            ids::UNCOMPRESSED_FOURCC => fourcc = value.try_into().unwrap_or_default(),
            _ => {}
        }
    }
    let side = |length: u64| u16::try_from(length).ok().filter(|&length| length > 0).map(u32::from);
    let (Some(width), Some(height)) = (side(width), side(height)) else {
        return Content::Invalid(InvalidTrack::FrameSize { width, height });
    };
    // Frames whose pixels are not square, or that are turned for display, need ffmpeg. Without a display size, pixels are square.
    let displayed = |length, pixels: u32| if length == 0 { pixels.into() } else { u128::from(length) };
    let (shown_width, shown_height) = (displayed(display_width, width), displayed(display_height, height));
    let stretched = (shown_width * u128::from(height)).abs_diff(shown_height * u128::from(width));
    if projected || stretched * MAX_STRETCH > shown_height * u128::from(width) {
        return unsupported(
            Media::Video,
            codec.to_owned() + ", whose pixels are not square or are turned",
        );
    }
    // In a Windows bitmap header, the four-character code follows size, planes and depth.
    let windows = private
        .get(16..20)
        .filter(|_| codec == "V_MS/VFW/FOURCC")
        .unwrap_or_default();
    let known = if codec == "V_MJPEG" || windows.eq_ignore_ascii_case(b"MJPG") {
        Some(VideoCodec::Mjpeg { width, height })
    } else if codec == "V_UNCOMPRESSED" {
        let step = match &fourcc {
            // Planar or semi-planar: luma comes first.
            b"Y800" | b"Y8  " | b"GREY" | b"I420" | b"IYUV" | b"YV12" | b"NV12" | b"NV21" => Some(1),
            b"YUY2" | b"YUYV" => Some(2),
            _ => None,
        };
        step.map(|step| VideoCodec::Raw { width, height, step })
    } else {
        None
    };
    known.map_or_else(|| unsupported(Media::Video, codec), Content::Video)
}

fn audio_content(codec: &str, settings: &[u8]) -> Content {
    let (mut rate_hz, mut channels, mut bits) = (8000.0, 1, 0);
    for (id, value) in children(settings) {
        match id {
            ids::SAMPLING_FREQUENCY => rate_hz = float(value),
            ids::CHANNELS => channels = unsigned(value),
            ids::BIT_DEPTH => bits = unsigned(value),
            _ => {}
        }
    }
    let format = match codec {
        "A_PCM/INT/LIT" => SampleFormat::integer(bits),
        "A_PCM/FLOAT/IEEE" => SampleFormat::float(bits),
        _ => None,
    };
    let Some(format) = format else {
        return unsupported(Media::Audio, codec);
    };
    match PcmLayout::new(format, channels, rate_hz) {
        Ok(layout) => Content::Audio(layout),
        Err(error) => Content::Invalid(error.into()),
    }
}

fn unsupported(media: Media, codec: impl Into<String>) -> Content {
    Content::Unsupported {
        media,
        codec: codec.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::support::matroska::*;

    #[test]
    fn track_entries_are_read() {
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
        let size = [uint(ids::PIXEL_WIDTH, 640), uint(ids::PIXEL_HEIGHT, 480)].concat();
        let size = element(ids::VIDEO, &size);
        let windows = [element(ids::CODEC_PRIVATE, &bitmap), size.clone()].concat();
        let windows = track_entry(1, ids::TYPE_VIDEO, "V_MS/VFW/FOURCC", windows);
        assert_eq!(content(windows), Some(mjpeg));
        let h264 = content(video_track(1, "V_MPEG4/ISO/AVC", 640, 480));
        assert_eq!(h264, Some(unsupported(Media::Video, "V_MPEG4/ISO/AVC")));
        let shaped = |width: u64, height: u64, display_height: u64| {
            let video = [
                uint(ids::PIXEL_WIDTH, width),
                uint(ids::PIXEL_HEIGHT, height),
                uint(ids::DISPLAY_HEIGHT, display_height),
            ];
            let video = element(ids::VIDEO, &video.concat());
            content(track_entry(1, ids::TYPE_VIDEO, "V_MJPEG", video)).unwrap()
        };
        assert!(matches!(shaped(320, 240, 240), Content::Video(_)));
        assert!(matches!(shaped(320, 240, 241), Content::Video(_)));
        assert!(matches!(shaped(320, 240, 135), Content::Unsupported { .. }));
        let compressed = [element(ids::CONTENT_ENCODINGS, b""), size].concat();
        let compressed = content(track_entry(1, ids::TYPE_VIDEO, "V_MJPEG", compressed));
        assert_eq!(compressed, Some(unsupported(Media::Video, "V_MJPEG")));
        assert_eq!(
            content(video_track(1, "V_MJPEG", 0, 480)),
            Some(Content::Invalid(InvalidTrack::FrameSize { width: 0, height: 480 }))
        );
        assert_eq!(
            content(audio_track(1, "A_PCM/INT/LIT", 0.0, 1, 16)),
            Some(Content::Invalid(PcmLayoutError::SampleRate(0.0).into()))
        );
        assert_eq!(
            content(audio_track(1, "A_PCM/INT/LIT", 16_000.0, 0, 16)),
            Some(Content::Invalid(PcmLayoutError::Channels(0).into()))
        );
        assert!(matches!(
            content(audio_track(1, "A_PCM/FLOAT/IEEE", 48_000.0, 2, 32)),
            Some(Content::Audio(_))
        ));
        assert_eq!(
            content(track_entry(3, ids::TYPE_SUBTITLE, "S_TEXT/UTF8", Vec::new())),
            None
        );
    }
}
