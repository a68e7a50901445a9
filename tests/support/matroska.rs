//! Matroska clips for tests.
//!
//! Most tests only need [`make_clip`]. The other functions make single elements, for clips that no working muxer writes.
#![allow(dead_code, reason = "each test uses a part")]

pub use super::ebml::encode::{UNKNOWN_SIZE, element, header, matroska_header, uint};
use super::ebml::ids;

/// A video track: `count` frames at `fps`. `frame` returns the JPEG of each.
pub struct TestVideo<'a> {
    pub width: u16,
    pub height: u16,
    pub fps: f64,
    pub count: usize,
    pub frame: &'a dyn Fn(usize) -> Vec<u8>,
}

/// An audio track of interleaved samples.
pub struct TestAudio {
    pub rate_hz: u32,
    pub channels: u16,
    pub samples: Vec<i16>,
}

/// A complete clip of MJPEG and 16-bit PCM, in clusters of up to a second. Either track may be missing.
pub fn make_clip(video: Option<&TestVideo>, audio: Option<&TestAudio>) -> Vec<u8> {
    let mut tracks = Vec::new();
    let mut blocks: Vec<(f64, u8, Vec<u8>)> = Vec::new();
    if let Some(v) = video {
        tracks.extend(video_track(1, "V_MJPEG", v.width.into(), v.height.into()));
        blocks.extend((0..v.count).map(|i| (i as f64 / v.fps * 1000.0, 1, (v.frame)(i))));
    }
    if let Some(a) = audio {
        tracks.extend(audio_track(2, "A_PCM/INT/LIT", a.rate_hz.into(), a.channels.into(), 16));
        // 25 blocks per second.
        let block = (a.rate_hz / 25).max(1) as usize * usize::from(a.channels.max(1));
        blocks.extend(a.samples.chunks(block).enumerate().map(|(i, part)| {
            (
                i as f64 * 40.0,
                2,
                part.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            )
        }));
    }
    blocks.sort_by(|a, b| a.0.total_cmp(&b.0));

    let mut clusters: Vec<(u64, Vec<u8>)> = Vec::new();
    for (at, track, data) in blocks {
        let at = at.round() as u64;
        if clusters.last().is_none_or(|(start, _)| at - start >= 1000) {
            clusters.push((at, uint(ids::TIMESTAMP, at)));
        }
        if let Some((start, content)) = clusters.last_mut() {
            content.extend(simple_block(track, (at - *start) as i16, &data));
        }
    }
    let mut segment = [info(), element(ids::TRACKS, &tracks)].concat();
    for (_, content) in clusters {
        segment.extend(element(ids::CLUSTER, &content));
    }
    [matroska_header(), element(ids::SEGMENT, &segment)].concat()
}

/// Segment information: timestamps in milliseconds.
pub fn info() -> Vec<u8> {
    let app = b"affectd tests";
    let apps = [element(ids::MUXING_APP, app), element(ids::WRITING_APP, app)].concat();
    element(ids::INFO, &[uint(ids::TIMESTAMP_SCALE, 1_000_000), apps].concat())
}

pub fn video_track(number: u8, codec: &str, width: u64, height: u64) -> Vec<u8> {
    let settings = [uint(ids::PIXEL_WIDTH, width), uint(ids::PIXEL_HEIGHT, height)].concat();
    track_entry(number, ids::TYPE_VIDEO, codec, element(ids::VIDEO, &settings))
}

pub fn audio_track(number: u8, codec: &str, rate_hz: f64, channels: u64, bits: u64) -> Vec<u8> {
    let rate = element(ids::SAMPLING_FREQUENCY, &rate_hz.to_be_bytes());
    let settings = [rate, uint(ids::CHANNELS, channels), uint(ids::BIT_DEPTH, bits)].concat();
    track_entry(number, ids::TYPE_AUDIO, codec, element(ids::AUDIO, &settings))
}

/// A track entry. `track_type` is 1 for video, 2 for audio, 17 for subtitles.
pub fn track_entry(number: u8, track_type: u64, codec: &str, settings: Vec<u8>) -> Vec<u8> {
    let number = u64::from(number);
    let content = [
        uint(ids::TRACK_NUMBER, number),
        uint(ids::TRACK_UID, number),
        uint(ids::TRACK_TYPE, track_type),
        element(ids::CODEC_ID, codec.as_bytes()),
        settings,
    ];
    element(ids::TRACK_ENTRY, &content.concat())
}

/// A block with one frame, `at` milliseconds after the start of its cluster.
pub fn simple_block(track: u8, at: i16, data: &[u8]) -> Vec<u8> {
    element(ids::SIMPLE_BLOCK, &block_content(track, at, 0, data))
}

/// The content of a block: its header, then `data`. `lacing` is 0 for none, 2 for Xiph, 4 for fixed, 6 for EBML.
pub fn block_content(track: u8, at: i16, lacing: u8, data: &[u8]) -> Vec<u8> {
    let [high, low] = at.to_be_bytes();
    [&[0x80 | track, high, low, 0x80 | lacing], data].concat()
}

/// An element whose size field says `size`, whatever its content.
pub fn sized(id: u32, size: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(id, size);
    bytes.extend_from_slice(content);
    bytes
}

/// An element of unknown size, as in live streams.
pub fn unknown_size(id: u32, content: &[u8]) -> Vec<u8> {
    sized(id, UNKNOWN_SIZE, content)
}
