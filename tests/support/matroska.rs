//! Clips made in memory for tests: a small Matroska writer.
//!
//! [`make_clip`] is all that most tests need. The functions under it make single elements, for clips that no healthy
//! muxer would write.
#![allow(dead_code, reason = "each test uses a part")]

/// Pictures, `count` of them at `fps`, each made by `picture` as a JPEG.
pub struct Pictures<'a> {
    pub width: u16,
    pub height: u16,
    pub fps: f64,
    pub count: usize,
    pub picture: &'a dyn Fn(usize) -> Vec<u8>,
}

/// Sound: interleaved samples.
pub struct Samples {
    pub rate_hz: u32,
    pub channels: u16,
    pub samples: Vec<i16>,
}

/// A whole clip: MJPEG and 16-bit PCM, either of which may be missing, in clusters of up to a second.
pub fn make_clip(pictures: Option<&Pictures>, samples: Option<&Samples>) -> Vec<u8> {
    let mut tracks = Vec::new();
    let mut blocks: Vec<(f64, u8, Vec<u8>)> = Vec::new();
    if let Some(p) = pictures {
        tracks.extend(video_track(1, "V_MJPEG", p.width.into(), p.height.into()));
        blocks.extend((0..p.count).map(|i| (i as f64 / p.fps * 1000.0, 1, (p.picture)(i))));
    }
    if let Some(s) = samples {
        tracks.extend(audio_track(2, "A_PCM/INT/LIT", s.rate_hz.into(), s.channels.into(), 16));
        // 25 blocks a second.
        let block = (s.rate_hz / 25).max(1) as usize * usize::from(s.channels.max(1));
        blocks.extend(s.samples.chunks(block).enumerate().map(|(i, part)| {
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
            clusters.push((at, uint(0xE7, at)));
        }
        if let Some((start, content)) = clusters.last_mut() {
            content.extend(simple_block(track, (at - *start) as i16, &data));
        }
    }
    let mut segment = [info(), element(0x1654_AE6B, &tracks)].concat();
    for (_, content) in clusters {
        segment.extend(element(0x1F43_B675, &content));
    }
    [ebml_header(), element(0x1853_8067, &segment)].concat()
}

pub fn ebml_header() -> Vec<u8> {
    let versions = [
        (0x4286, 1),
        (0x42F7, 1),
        (0x42F2, 4),
        (0x42F3, 8),
        (0x4287, 4),
        (0x4285, 2),
    ];
    let mut content: Vec<u8> = versions.iter().flat_map(|&(id, value)| uint(id, value)).collect();
    content.extend(element(0x4282, b"matroska"));
    element(0x1A45_DFA3, &content)
}

/// Segment information: timestamps in milliseconds.
pub fn info() -> Vec<u8> {
    let apps = [element(0x4D80, b"affectd tests"), element(0x5741, b"affectd tests")].concat();
    element(0x1549_A966, &[uint(0x2A_D7B1, 1_000_000), apps].concat())
}

pub fn video_track(number: u8, codec: &str, width: u64, height: u64) -> Vec<u8> {
    let settings = [uint(0xB0, width), uint(0xBA, height)].concat();
    track_entry(number, 1, codec, element(0xE0, &settings))
}

pub fn audio_track(number: u8, codec: &str, rate_hz: f64, channels: u64, bits: u64) -> Vec<u8> {
    let rate = element(0xB5, &rate_hz.to_be_bytes());
    let settings = [rate, uint(0x9F, channels), uint(0x6264, bits)].concat();
    track_entry(number, 2, codec, element(0xE1, &settings))
}

/// A track entry: `kind` 1 is video, 2 audio, 17 subtitles.
pub fn track_entry(number: u8, kind: u64, codec: &str, settings: Vec<u8>) -> Vec<u8> {
    let ids = [uint(0xD7, number.into()), uint(0x73C5, number.into()), uint(0x83, kind)];
    element(
        0xAE,
        &[ids.concat(), element(0x86, codec.as_bytes()), settings].concat(),
    )
}

/// A block of one frame, `at` milliseconds after its cluster.
pub fn simple_block(track: u8, at: i16, data: &[u8]) -> Vec<u8> {
    element(0xA3, &block_content(track, at, 0, data))
}

/// The content of a block: header, then `data` as it is. `lacing` is 0 none, 2 Xiph, 4 fixed, 6 EBML.
pub fn block_content(track: u8, at: i16, lacing: u8, data: &[u8]) -> Vec<u8> {
    let [high, low] = at.to_be_bytes();
    [&[0x80 | track, high, low, 0x80 | lacing], data].concat()
}

pub fn element(id: u32, content: &[u8]) -> Vec<u8> {
    sized(id, content.len() as u64, content)
}

/// An element whose size field says `size`, whatever the content.
pub fn sized(id: u32, size: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
    bytes.extend((size | 1 << 56).to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// An element of unknown size, as live streams have it.
pub fn endless(id: u32, content: &[u8]) -> Vec<u8> {
    sized(id, (1 << 56) - 1, content)
}

pub fn uint(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}
