//! A Matroska writer for `affectd record`: MJPEG or luma frames, and 16-bit mono audio.
//!
//! The file is valid after each cluster: the segment does not state its length, and a full cluster is written in one piece.
//! So an interruption, even a power cut, loses less than the last second.

use std::io::{self, Write};
use std::time::Duration;

use super::ebml::encode::{UNKNOWN_SIZE, element, header, matroska_header, uint};
use super::ebml::ids;
use crate::capture::{AUDIO_RATE_HZ, AudioBlock, FramePayload, Luma};

/// The longest cluster. Block times in a cluster are 16-bit ticks, so the limit would be 3 s.
const MAX_CLUSTER: Duration = Duration::from_millis(500);
/// Nanoseconds per tick.
const TICK_NS: u64 = 100_000;

const VIDEO_TRACK: u8 = 1;
const AUDIO_TRACK: u8 = 2;

/// The tracks of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipTracks {
    pub video: Option<VideoFormat>,
    /// 16-bit mono at [`AUDIO_RATE_HZ`].
    pub audio: bool,
}

/// The format of all frames of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoFormat {
    pub encoding: FrameEncoding,
    /// In pixels.
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameEncoding {
    Jpeg,
    Luma,
}

impl VideoFormat {
    /// The format of `payload`. `None` for a JPEG that cannot be decoded.
    pub fn of(payload: &FramePayload) -> Option<VideoFormat> {
        match payload {
            FramePayload::Luma(luma) => Some(VideoFormat::with_size_of(luma, FrameEncoding::Luma)),
            FramePayload::Jpeg(bytes) => {
                let luma = FramePayload::Jpeg(bytes.clone()).into_luma().ok()?;
                Some(VideoFormat::with_size_of(&luma, FrameEncoding::Jpeg))
            }
        }
    }

    fn with_size_of(luma: &Luma, encoding: FrameEncoding) -> VideoFormat {
        VideoFormat {
            encoding,
            width: luma.width(),
            height: luma.height(),
        }
    }
}

/// Whether a frame was added to the clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum FrameResult {
    Added,
    /// The frame does not have the format of the clip.
    WrongFormat,
}

/// Writes one clip.
pub struct Writer<W> {
    output: W,
    video: Option<VideoFormat>,
    cluster: Option<Cluster>,
    written: u64,
}

/// The cluster that is being filled.
struct Cluster {
    /// In ticks.
    start: u64,
    content: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header of a clip.
    pub fn new(mut output: W, tracks: ClipTracks) -> io::Result<Writer<W>> {
        let head = head(tracks);
        output.write_all(&head)?;
        output.flush()?;
        Ok(Writer {
            output,
            video: tracks.video,
            cluster: None,
            written: head.len() as u64,
        })
    }

    /// Bytes written so far, including the cluster that is being filled.
    pub fn size(&self) -> u64 {
        self.written + self.cluster.as_ref().map_or(0, |cluster| cluster.content.len() as u64)
    }

    /// Adds a frame, unless it has another format than the clip.
    pub fn add_frame(&mut self, at: Duration, payload: &FramePayload) -> io::Result<FrameResult> {
        let bytes = match (payload, self.video) {
            (FramePayload::Jpeg(bytes), Some(format)) if format.encoding == FrameEncoding::Jpeg => bytes.as_slice(),
            (FramePayload::Luma(luma), Some(format))
                if format == VideoFormat::with_size_of(luma, FrameEncoding::Luma) =>
            {
                luma.as_slice()
            }
            _ => return Ok(FrameResult::WrongFormat),
        };
        self.add_block(VIDEO_TRACK, at, bytes)?;
        Ok(FrameResult::Added)
    }

    pub fn add_audio(&mut self, block: &AudioBlock) -> io::Result<()> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "samples lie in −1..1, and float casts saturate"
        )]
        let samples = block.samples.iter().map(|s| (s * 32_767.0).round() as i16);
        let bytes: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
        self.add_block(AUDIO_TRACK, block.at, &bytes)
    }

    fn add_block(&mut self, track: u8, at: Duration, data: &[u8]) -> io::Result<()> {
        let at = ticks(at);
        if self
            .cluster
            .as_ref()
            .is_some_and(|cluster| at.abs_diff(cluster.start) > ticks(MAX_CLUSTER))
        {
            self.flush()?;
        }
        let cluster = self.cluster.get_or_insert_with(|| Cluster {
            start: at,
            content: uint(ids::TIMESTAMP, at),
        });
        // Frames and audio interleave, so a block may be earlier than the start of its cluster.
        let offset = i16::try_from(at.wrapping_sub(cluster.start).cast_signed());
        let [high, low] = offset.expect("a cluster spans at most 5000 ticks").to_be_bytes();
        let block_header = [0x80 | track, high, low, 0x80];
        let size = block_header.len() + data.len();
        cluster.content.extend(header(ids::SIMPLE_BLOCK, size as u64));
        cluster.content.extend(block_header);
        cluster.content.extend_from_slice(data);
        Ok(())
    }

    /// Writes the cluster that is being filled.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(cluster) = self.cluster.take() {
            let bytes = element(ids::CLUSTER, &cluster.content);
            self.output.write_all(&bytes)?;
            self.output.flush()?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }
}

/// To the nearest tick.
fn ticks(time: Duration) -> u64 {
    let tick = u128::from(TICK_NS);
    u64::try_from((time.as_nanos() + tick / 2) / tick).unwrap_or(u64::MAX)
}

fn head(tracks: ClipTracks) -> Vec<u8> {
    let app = concat!("affectd ", env!("CARGO_PKG_VERSION")).as_bytes();
    let info = [
        uint(ids::TIMESTAMP_SCALE, TICK_NS),
        element(ids::MUXING_APP, app),
        element(ids::WRITING_APP, app),
    ];
    let mut entries = Vec::new();
    if let Some(format) = tracks.video {
        let mut settings = [
            uint(ids::PIXEL_WIDTH, format.width.into()),
            uint(ids::PIXEL_HEIGHT, format.height.into()),
        ]
        .concat();
        let codec = match format.encoding {
            FrameEncoding::Jpeg => "V_MJPEG",
            FrameEncoding::Luma => {
                settings.extend(element(ids::UNCOMPRESSED_FOURCC, b"Y800"));
                "V_UNCOMPRESSED"
            }
        };
        let settings = element(ids::VIDEO, &settings);
        entries.extend(track(VIDEO_TRACK, ids::TYPE_VIDEO, codec, settings));
    }
    if tracks.audio {
        let settings = [
            element(ids::SAMPLING_FREQUENCY, &f64::from(AUDIO_RATE_HZ).to_be_bytes()),
            uint(ids::CHANNELS, 1),
            uint(ids::BIT_DEPTH, 16),
        ];
        let settings = element(ids::AUDIO, &settings.concat());
        entries.extend(track(AUDIO_TRACK, ids::TYPE_AUDIO, "A_PCM/INT/LIT", settings));
    }
    [
        matroska_header(),
        header(ids::SEGMENT, UNKNOWN_SIZE),
        element(ids::INFO, &info.concat()),
        element(ids::TRACKS, &entries),
    ]
    .concat()
}

fn track(number: u8, track_type: u64, codec: &str, settings: Vec<u8>) -> Vec<u8> {
    let content = [
        uint(ids::TRACK_NUMBER, number.into()),
        uint(ids::TRACK_UID, number.into()),
        uint(ids::TRACK_TYPE, track_type),
        element(ids::CODEC_ID, codec.as_bytes()),
        settings,
    ];
    element(ids::TRACK_ENTRY, &content.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::clip::Clip;
    use crate::capture::support::jpeg::grey_jpeg;
    use std::time::Instant;

    const JPEG_16: VideoFormat = VideoFormat {
        encoding: FrameEncoding::Jpeg,
        width: 16,
        height: 16,
    };

    const TRACKS: ClipTracks = ClipTracks {
        video: Some(JPEG_16),
        audio: true,
    };

    fn block(at: Duration) -> AudioBlock {
        AudioBlock {
            at,
            captured: Instant::now(),
            samples: vec![0.25; 320],
        }
    }

    /// Three seconds of video and audio, at uneven times.
    fn clip() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, TRACKS).unwrap();
        let jpeg = grey_jpeg(16, 16, |x, y| (x * y) as u8);
        for i in 0..150u32 {
            writer
                .add_audio(&block(Duration::from_micros(7300 + 20_000 * u64::from(i))))
                .unwrap();
            if i % 2 == 0 {
                let at = Duration::from_micros(11_100 + 20_000 * u64::from(i));
                let frame = FramePayload::Jpeg(jpeg.clone());
                assert_eq!(writer.add_frame(at, &frame).unwrap(), FrameResult::Added);
            }
        }
        writer.flush().unwrap();
        bytes
    }

    /// Times of the frames, and the end of the audio in seconds.
    fn replay(bytes: &[u8]) -> (Vec<Duration>, f64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mkv");
        std::fs::write(&path, bytes).unwrap();
        let mut clip = Clip::open(&path).unwrap();
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = clip.video.as_mut().unwrap().next_frame() {
            frame.payload.into_luma().unwrap();
            frames.push(frame.at);
        }
        let mut end = Duration::ZERO;
        while let Ok(Some(block)) = clip.audio.as_mut().unwrap().next_block() {
            end = block.end();
        }
        (frames, end.as_secs_f64())
    }

    #[test]
    fn a_recording_replays_at_the_recorded_times() {
        let (frames, end) = replay(&clip());
        assert_eq!(frames.len(), 75);
        // The clip starts with its first audio block, recorded at 7.3 ms.
        for (i, at) in frames.iter().enumerate() {
            let expected = Duration::from_micros(3800 + 40_000 * i as u64);
            assert!(
                at.abs_diff(expected) <= Duration::from_micros(200),
                "{at:?}, not {expected:?}"
            );
        }
        assert!((end - 3.0).abs() < 0.01, "{end}");
    }

    #[test]
    fn a_truncated_recording_replays_up_to_the_cut() {
        let bytes = clip();
        for part in [2, 3, 5] {
            let (frames, end) = replay(&bytes[..bytes.len() * (part - 1) / part]);
            let share = (part - 1) as f64 / part as f64;
            assert!(frames.len() as f64 > 75.0 * share - 15.0, "{} frames", frames.len());
            assert!(end > 3.0 * share - 0.6, "{end} s");
        }
    }

    #[test]
    fn frames_of_another_format_are_rejected() {
        let mut writer = Writer::new(Vec::new(), TRACKS).unwrap();
        let luma = Luma::new(16, 16, vec![0; 256]).unwrap();
        let result = writer.add_frame(Duration::ZERO, &FramePayload::Luma(luma));
        assert_eq!(result.unwrap(), FrameResult::WrongFormat);
    }
}
