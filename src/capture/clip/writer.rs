//! A Matroska writer for what `affectd record` captures: MJPEG or luma pictures and 16-bit mono sound.
//!
//! The file is whole at every cluster: the segment does not say how long it is, and a cluster is written in one go when it
//! is full. Whatever ends the recording costs what came since, less than a second, and nothing else.

use std::io::{self, Write};
use std::time::Duration;

use crate::capture::{AUDIO_RATE_HZ, AudioBlock, Luma, Picture};

/// A cluster spans this much time at most. Times in it are 16-bit ticks, so 3 s would be the limit.
const CLUSTER: Duration = Duration::from_millis(500);
/// Nanoseconds a tick.
const TICK_NS: u64 = 100_000;

const VIDEO: u8 = 1;
const AUDIO: u8 = 2;

/// What the pictures of a clip are; all are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureKind {
    pub jpeg: bool,
    pub width: u32,
    pub height: u32,
}

/// Writes one clip.
pub struct Writer<W> {
    output: W,
    pictures: Option<PictureKind>,
    /// The cluster that is being filled: when it starts, and its blocks.
    cluster: Option<(u64, Vec<u8>)>,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the head of a clip with pictures, sound or both.
    pub fn new(mut output: W, pictures: Option<PictureKind>, sound: bool) -> io::Result<Writer<W>> {
        let head = head(pictures, sound);
        output.write_all(&head)?;
        output.flush()?;
        Ok(Writer {
            output,
            pictures,
            cluster: None,
            written: head.len() as u64,
        })
    }

    /// Bytes written so far, and those that the next cluster will take.
    pub fn size(&self) -> u64 {
        self.written + self.cluster.as_ref().map_or(0, |(_, blocks)| blocks.len() as u64)
    }

    /// Adds a picture; false if it is not of the clip's kind.
    pub fn picture(&mut self, at: Duration, picture: &Picture) -> io::Result<bool> {
        let bytes = match (picture, self.pictures) {
            (Picture::Jpeg(bytes), Some(kind)) if kind.jpeg => bytes.as_slice(),
            (Picture::Luma(luma), Some(kind)) if kind == kind_of(luma) => luma.as_slice(),
            _ => return Ok(false),
        };
        self.block(VIDEO, at, bytes)?;
        Ok(true)
    }

    pub fn sound(&mut self, chunk: &AudioBlock) -> io::Result<()> {
        let samples = chunk.samples.iter().map(|s| (s * 32_767.0).round() as i16);
        let bytes: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
        self.block(AUDIO, chunk.at, &bytes)
    }

    fn block(&mut self, track: u8, at: Duration, data: &[u8]) -> io::Result<()> {
        let at = (at.as_nanos() as u64 + TICK_NS / 2) / TICK_NS;
        let most = CLUSTER.as_nanos() as u64 / TICK_NS;
        if self
            .cluster
            .as_ref()
            .is_some_and(|(start, _)| at.abs_diff(*start) > most)
        {
            self.flush()?;
        }
        let (start, blocks) = self.cluster.get_or_insert_with(|| (at, uint(0xE7, at)));
        let [high, low] = ((at as i64 - *start as i64) as i16).to_be_bytes();
        let header = [0x80 | track, high, low, 0x80];
        blocks.extend(id_and_size(0xA3, (header.len() + data.len()) as u64));
        blocks.extend(header);
        blocks.extend_from_slice(data);
        Ok(())
    }

    /// Writes the cluster that is being filled.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some((_, blocks)) = self.cluster.take() {
            let mut cluster = id_and_size(0x1F43_B675, blocks.len() as u64);
            cluster.extend(blocks);
            self.output.write_all(&cluster)?;
            self.output.flush()?;
            self.written += cluster.len() as u64;
        }
        Ok(())
    }
}

pub fn kind_of(luma: &Luma) -> PictureKind {
    PictureKind {
        jpeg: false,
        width: luma.width(),
        height: luma.height(),
    }
}

fn head(pictures: Option<PictureKind>, sound: bool) -> Vec<u8> {
    let versions = [
        (0x4286, 1),
        (0x42F7, 1),
        (0x42F2, 4),
        (0x42F3, 8),
        (0x4287, 4),
        (0x4285, 2),
    ];
    let mut ebml: Vec<u8> = versions.into_iter().flat_map(|(id, value)| uint(id, value)).collect();
    ebml.extend(element(0x4282, b"matroska"));
    let app = concat!("affectd ", env!("CARGO_PKG_VERSION")).as_bytes();
    let info = [uint(0x2A_D7B1, TICK_NS), element(0x4D80, app), element(0x5741, app)].concat();
    let mut tracks = Vec::new();
    if let Some(kind) = pictures {
        let mut settings = [uint(0xB0, kind.width.into()), uint(0xBA, kind.height.into())].concat();
        if !kind.jpeg {
            settings.extend(element(0x2E_B524, b"Y800"));
        }
        let codec: &[u8] = if kind.jpeg { b"V_MJPEG" } else { b"V_UNCOMPRESSED" };
        tracks.extend(track(VIDEO, 1, codec, element(0xE0, &settings)));
    }
    if sound {
        let rate = element(0xB5, &f64::from(AUDIO_RATE_HZ).to_be_bytes());
        let settings = [rate, uint(0x9F, 1), uint(0x6264, 16)].concat();
        tracks.extend(track(AUDIO, 2, b"A_PCM/INT/LIT", element(0xE1, &settings)));
    }
    let mut head = element(0x1A45_DFA3, &ebml);
    // A segment of unknown size: all ones.
    head.extend([0x18, 0x53, 0x80, 0x67, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    head.extend(element(0x1549_A966, &info));
    head.extend(element(0x1654_AE6B, &tracks));
    head
}

/// `kind` is 1 for video, 2 for audio.
fn track(number: u8, kind: u64, codec: &[u8], settings: Vec<u8>) -> Vec<u8> {
    let ids = [uint(0xD7, number.into()), uint(0x73C5, number.into()), uint(0x83, kind)].concat();
    element(0xAE, &[ids, element(0x86, codec), settings].concat())
}

fn element(id: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = id_and_size(id, content.len() as u64);
    bytes.extend_from_slice(content);
    bytes
}

fn uint(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

/// The size in eight bytes, which every reader takes and which spares us sorting sizes by length.
fn id_and_size(id: u32, size: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
    bytes.extend((size | 1 << 56).to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::clip::Clip;
    use crate::capture::support::jpeg::grey_jpeg;
    use std::time::Instant;

    const KIND: PictureKind = PictureKind {
        jpeg: true,
        width: 16,
        height: 16,
    };

    fn chunk(at: Duration) -> AudioBlock {
        AudioBlock {
            at,
            captured: Instant::now(),
            samples: vec![0.25; 320],
        }
    }

    /// Three seconds of pictures and sound, at odd times.
    fn clip() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Some(KIND), true).unwrap();
        let jpeg = grey_jpeg(16, 16, |x, y| (x * y) as u8);
        for i in 0..150u32 {
            writer
                .sound(&chunk(Duration::from_micros(7300 + 20_000 * u64::from(i))))
                .unwrap();
            if i % 2 == 0 {
                let at = Duration::from_micros(11_100 + 20_000 * u64::from(i));
                assert!(writer.picture(at, &Picture::Jpeg(jpeg.clone())).unwrap());
            }
        }
        writer.flush().unwrap();
        bytes
    }

    fn replay(bytes: &[u8]) -> (Vec<Duration>, f64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mkv");
        std::fs::write(&path, bytes).unwrap();
        let mut clip = Clip::open(&path).unwrap();
        let mut pictures = Vec::new();
        while let Ok(Some(frame)) = clip.video.as_mut().unwrap().next_frame() {
            frame.picture.into_luma().unwrap();
            pictures.push(frame.at);
        }
        let mut end = Duration::ZERO;
        while let Ok(Some(chunk)) = clip.audio.as_mut().unwrap().next_block() {
            end = chunk.end();
        }
        (pictures, end.as_secs_f64())
    }

    #[test]
    fn what_was_recorded_is_replayed_at_the_same_times() {
        let (pictures, end) = replay(&clip());
        assert_eq!(pictures.len(), 75);
        // The clip starts with its first sound, 7.3 ms before which nothing was.
        for (i, at) in pictures.iter().enumerate() {
            let wanted = Duration::from_micros(3800 + 40_000 * i as u64);
            assert!(
                at.abs_diff(wanted) <= Duration::from_micros(200),
                "{at:?}, not {wanted:?}"
            );
        }
        assert!((end - 3.0).abs() < 0.01, "{end}");
    }

    #[test]
    fn a_recording_cut_off_anywhere_replays_up_to_there() {
        let bytes = clip();
        for part in [2, 3, 5] {
            let (pictures, end) = replay(&bytes[..bytes.len() * (part - 1) / part]);
            let share = (part - 1) as f64 / part as f64;
            assert!(
                pictures.len() as f64 > 75.0 * share - 15.0,
                "{} pictures",
                pictures.len()
            );
            assert!(end > 3.0 * share - 0.6, "{end} s");
        }
    }

    #[test]
    fn pictures_of_another_kind_are_refused() {
        let mut writer = Writer::new(Vec::new(), Some(KIND), false).unwrap();
        let luma = Luma::new(16, 16, vec![0; 256]).unwrap();
        assert!(!writer.picture(Duration::ZERO, &Picture::Luma(luma)).unwrap());
    }
}
