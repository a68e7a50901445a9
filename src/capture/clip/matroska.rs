//! Matroska and WebM, read front to back: the tracks we can use, then their blocks.
//!
//! Our own, because matroska-demuxer 0.8 follows the file's index while opening it, so that a recording whose end is
//! missing does not open at all, and because it cannot read from a pipe.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use super::ebml::{EbmlError, Elements, Header, children, unsigned, variable};
use super::tracks::{self, Track};

/// The four bytes every Matroska file starts with.
pub const MAGIC: [u8; 4] = [0x1A, 0x45, 0xDF, 0xA3];

const EBML: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_A966;
const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
const TRACKS: u32 = 0x1654_AE6B;
const CLUSTER: u32 = 0x1F43_B675;
const TIMESTAMP: u32 = 0xE7;
const SIMPLE_BLOCK: u32 = 0xA3;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;

/// Raw 8K pictures of two bytes a pixel fit; anything larger is a damaged size.
const LARGEST_BLOCK: u64 = 96 << 20;
const LARGEST_HEADER: u64 = 8 << 20;

/// A block stamped later than this after the one before it is damaged: no clip has such a hole, and whatever follows
/// the clip's clock would have to live through it.
const LONGEST_HOLE: Duration = Duration::from_secs(3600);

/// One block: a frame, or several laced together.
#[derive(Debug)]
pub struct Block {
    /// From the start of the clip.
    pub at: Duration,
    data: Vec<u8>,
    frames: Vec<Range<usize>>,
    frame_duration: Duration,
}

impl Block {
    /// The content of all frames in a row: what laced PCM is.
    pub fn joined(&self) -> &[u8] {
        match (self.frames.first(), self.frames.last()) {
            (Some(first), Some(last)) => &self.data[first.start..last.end],
            _ => &[],
        }
    }

    /// The frames with their times.
    pub fn frames(&self) -> impl Iterator<Item = (Duration, &[u8])> {
        self.frames
            .iter()
            .zip(0u32..)
            .map(|(range, i)| (self.at + self.frame_duration * i, &self.data[range.clone()]))
    }
}

/// A Matroska stream, opened as far as its first block.
pub struct Matroska<R> {
    elements: Elements<R>,
    tracks: Vec<Track>,
    timestamp_scale: u64,
    cluster: u64,
    /// The timestamp that counts as the start of the clip.
    origin: Option<u64>,
    last: Duration,
    /// Where the segment says it ends.
    end: Option<u64>,
}

/// Where a clip's time starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first cluster: recorders may stamp blocks with the time since they were switched on.
    FirstCluster,
    /// At timestamp 0.
    Zero,
}

impl<R: Read> Matroska<R> {
    pub fn open(input: R, start: Start) -> Result<Matroska<R>, EbmlError> {
        let mut matroska = Matroska {
            elements: Elements::new(input),
            tracks: Vec::new(),
            timestamp_scale: 1_000_000,
            cluster: 0,
            origin: (start == Start::Zero).then_some(0),
            last: Duration::ZERO,
            end: None,
        };
        let (mut described, mut content) = (false, Vec::new());
        while let Some(header) = matroska.elements.next()? {
            match header.id {
                SEGMENT => {
                    let from = matroska.elements.position();
                    matroska.end = header.size.and_then(|size| from.checked_add(size));
                }
                INFO => {
                    matroska.elements.read(header, LARGEST_HEADER, &mut content)?;
                    let scale = children(&content).find(|(id, _)| *id == TIMESTAMP_SCALE);
                    matroska.timestamp_scale = scale.map_or(1_000_000, |(_, value)| unsigned(value));
                }
                TRACKS => {
                    matroska.elements.read(header, LARGEST_HEADER, &mut content)?;
                    matroska.tracks = tracks::read(&content);
                    described = true;
                }
                CLUSTER => return Ok(matroska),
                _ => matroska.elements.skip(header)?,
            }
        }
        // Tracks and nothing after them: a clip of no length is a clip.
        if described {
            Ok(matroska)
        } else {
            Err(EbmlError::CutOff)
        }
    }

    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The time of the last block that was read, of any track.
    pub fn last(&self) -> Duration {
        self.last
    }

    /// The next block of track `number`, or `None` at the end.
    pub fn next_block(&mut self, number: u64) -> Result<Option<Block>, EbmlError> {
        let mut data = Vec::new();
        loop {
            // Bytes after the segment are none of our business, and often no elements.
            if self.end.is_some_and(|end| self.elements.position() >= end) {
                return Ok(None);
            }
            let Some(header) = self.elements.next()? else {
                break;
            };
            match header.id {
                // Entered rather than read: their ends show by what comes next, even if their sizes are unknown.
                CLUSTER | BLOCK_GROUP | SEGMENT => {}
                TIMESTAMP => {
                    self.elements.read(header, 8, &mut data)?;
                    self.cluster = unsigned(&data);
                    self.origin.get_or_insert(self.cluster);
                }
                SIMPLE_BLOCK | BLOCK => {
                    if let Some(block) = self.block(header, number, &mut data)? {
                        return Ok(Some(block));
                    }
                }
                // A second clip glued to this one starts its clock again. Ours has ended.
                EBML => return Ok(None),
                _ => self.elements.skip(header)?,
            }
        }
        if self.end.is_some() {
            Err(EbmlError::CutOff)
        } else {
            Ok(None)
        }
    }

    /// Reads a block. `None` if it is another track's.
    fn block(&mut self, header: Header, number: u64, data: &mut Vec<u8>) -> Result<Option<Block>, EbmlError> {
        self.elements.read(header, LARGEST_BLOCK, data)?;
        let (track, length) = variable(data).ok_or_else(|| self.elements.damaged("a block names no track"))?;
        let Some(&[high, low, flags]) = data.get(length..length + 3) else {
            return Err(self.elements.damaged("a block is too short"));
        };
        let at = self.time(i16::from_be_bytes([high, low]));
        if at > self.last + LONGEST_HOLE {
            return Err(self.elements.damaged("a block is stamped hours too late"));
        }
        self.last = self.last.max(at);
        if track != number {
            return Ok(None);
        }
        let frames = laced(data, length + 3, flags).ok_or_else(|| self.elements.damaged("a block is torn"))?;
        let frame_duration = self
            .tracks
            .iter()
            .find(|t| t.number == number)
            .map_or(Duration::ZERO, |t| t.frame_duration);
        Ok(Some(Block {
            at,
            data: std::mem::take(data),
            frames,
            frame_duration,
        }))
    }

    fn time(&self, relative: i16) -> Duration {
        let ticks = i128::from(self.cluster) + i128::from(relative) - i128::from(self.origin.unwrap_or(0));
        let nanos = ticks.max(0).saturating_mul(i128::from(self.timestamp_scale));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The frames of a block whose header ends at `from`.
fn laced(data: &[u8], mut from: usize, flags: u8) -> Option<Vec<Range<usize>>> {
    let lacing = flags & 0x06;
    if lacing == 0 {
        return Some(std::iter::once(from..data.len()).collect());
    }
    let count = usize::from(*data.get(from)?) + 1;
    from += 1;
    let mut sizes = VecDeque::new();
    match lacing {
        0x02 => {
            for _ in 1..count {
                let run = data.get(from..)?.iter().take_while(|&&byte| byte == 255).count();
                sizes.push_back(run * 255 + usize::from(*data.get(from + run)?));
                from += run + 1;
            }
        }
        0x04 => {
            let size = (data.len() - from) / count;
            sizes.extend(std::iter::repeat_n(size, count - 1));
        }
        _ => {
            let mut size = 0i64;
            for i in 1..count {
                let (value, length) = variable(data.get(from..)?)?;
                let bias = if i == 1 { 0 } else { (1i64 << (7 * length - 1)) - 1 };
                size = size.checked_add(i64::try_from(value).ok()? - bias)?;
                sizes.push_back(usize::try_from(size).ok()?);
                from += length;
            }
        }
    }
    let mut frames = Vec::with_capacity(count);
    for size in sizes {
        let to = from.checked_add(size).filter(|&to| to <= data.len())?;
        frames.push(from..to);
        from = to;
    }
    frames.push(from..data.len());
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::support::matroska::*;

    const CLUSTER: u32 = 0x1F43_B675;

    /// A clip of one PCM track, number 1, with these clusters' content.
    fn clip(clusters: &[Vec<u8>]) -> Vec<u8> {
        let tracks = element(0x1654_AE6B, &audio_track(1, "A_PCM/INT/LIT", 16_000.0, 1, 8));
        let clusters: Vec<u8> = clusters.iter().flat_map(|content| endless(CLUSTER, content)).collect();
        [
            ebml_header(),
            endless(0x1853_8067, &[info(), tracks, clusters].concat()),
        ]
        .concat()
    }

    type Laced = Vec<Vec<u8>>;

    fn blocks(clip: &[u8]) -> Result<Vec<(u128, Laced)>, String> {
        let mut matroska = Matroska::open(clip, Start::FirstCluster).map_err(|err| err.to_string())?;
        let mut found = Vec::new();
        while let Some(block) = matroska.next_block(1).map_err(|err| err.to_string())? {
            let frames = block.frames().map(|(_, frame)| frame.to_vec()).collect();
            found.push((block.at.as_millis(), frames));
        }
        Ok(found)
    }

    fn one(bytes: &[u8]) -> Laced {
        vec![bytes.to_vec()]
    }

    #[test]
    fn clusters_of_unknown_size_void_and_groups_are_read_through() {
        let group = element(
            0xA0,
            &[element(0xA1, &block_content(1, 20, 0, b"b")), uint(0x9B, 20)].concat(),
        );
        let first = [uint(0xE7, 0), simple_block(1, 0, b"a"), element(0xEC, &[0; 9]), group].concat();
        let second = [
            uint(0xE7, 1000),
            simple_block(2, 0, b"other"),
            simple_block(1, -5, b"c"),
        ]
        .concat();
        let wanted = vec![(0, one(b"a")), (20, one(b"b")), (995, one(b"c"))];
        assert_eq!(blocks(&clip(&[first, second])), Ok(wanted));
    }

    #[test]
    fn a_recorder_that_stamps_its_uptime_starts_at_zero() {
        let late = [uint(0xE7, 86_400_000), simple_block(1, 40, b"a")].concat();
        assert_eq!(blocks(&clip(&[late])), Ok(vec![(40, one(b"a"))]));
    }

    #[test]
    fn laced_frames_come_apart() {
        let frames = || vec![b"aa".to_vec(), b"bbbb".to_vec(), b"c".to_vec()];
        let xiph = block_content(1, 0, 2, b"\x02\x02\x04aabbbbc");
        let ebml = block_content(1, 1, 6, b"\x02\x82\xC1aabbbbc");
        let fixed = block_content(1, 2, 4, b"\x02aabbcc");
        let content = [
            uint(0xE7, 0),
            element(0xA3, &xiph),
            element(0xA3, &ebml),
            element(0xA3, &fixed),
        ];
        let same = vec![b"aa".to_vec(), b"bb".to_vec(), b"cc".to_vec()];
        let wanted = vec![(0, frames()), (1, frames()), (2, same)];
        assert_eq!(blocks(&clip(&[content.concat()])), Ok(wanted));
    }

    #[test]
    fn lying_sizes_and_times_are_damage() {
        let timed = |block: Vec<u8>| clip(&[[uint(0xE7, 0), block].concat()]);
        let huge = timed(sized(0xA3, 1 << 40, b"\x81\0\0\x80"));
        assert!(
            blocks(&huge)
                .unwrap_err()
                .ends_with("an element says it is absurdly large")
        );
        let torn = timed(element(0xA3, &block_content(1, 0, 2, b"\x02\xFF\xFF\x00aa")));
        assert!(blocks(&torn).unwrap_err().ends_with("a block is torn"));
        let short = timed(element(0xA3, b"\x81\0"));
        assert!(blocks(&short).unwrap_err().ends_with("a block is too short"));
        let late = clip(&[uint(0xE7, 0), [uint(0xE7, u64::MAX), simple_block(1, 9, b"a")].concat()]);
        assert!(
            blocks(&late)
                .unwrap_err()
                .ends_with("a block is stamped hours too late")
        );
    }

    #[test]
    fn what_follows_the_segment_is_ignored() {
        let tracks = element(0x1654_AE6B, &audio_track(1, "A_PCM/INT/LIT", 16_000.0, 1, 8));
        let cluster = element(CLUSTER, &[uint(0xE7, 0), simple_block(1, 0, b"a")].concat());
        let segment = element(0x1853_8067, &[info(), tracks, cluster].concat());
        let clip = [ebml_header(), segment, b"\0\0 junk".to_vec()].concat();
        assert_eq!(blocks(&clip), Ok(vec![(0, one(b"a"))]));
    }
}
