//! Matroska and WebM (RFC 9559), read front to back: first the tracks, then their blocks.
//!
//! The crate matroska-demuxer 0.8 does not fit: it follows the file's index while opening it, so that it cannot open a
//! recording whose end is missing, and it cannot read from a pipe.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use super::ebml::{Damage, EbmlError, Elements, children, ids, unsigned, variable_length};
use super::tracks::{self, Track};

/// The four bytes every Matroska file starts with.
pub const MAGIC: [u8; 4] = ids::EBML.to_be_bytes();

/// An uncompressed 8K frame with two bytes per pixel fits. A larger size is damaged.
const MAX_BLOCK: u64 = 96 << 20;
const MAX_HEADER: u64 = 8 << 20;
/// More blocks before the timestamp of their cluster are damage.
const MAX_EARLY_BLOCKS: usize = 4096;

/// A block that is later than the previous one by more than this is damaged: no clip has such a gap, and every estimate of
/// the gap would have to be computed.
const MAX_GAP: Duration = Duration::from_secs(3600);

/// Nanoseconds per tick, unless the file says otherwise.
const DEFAULT_TIMESTAMP_SCALE: u64 = 1_000_000;

/// One block: a frame, or several laced together.
#[derive(Debug)]
pub struct Block {
    /// Time from the start of the clip.
    pub at: Duration,
    data: Vec<u8>,
    frames: Vec<Range<usize>>,
    frame_duration: Duration,
}

impl Block {
    /// The content of all frames, concatenated. Laced PCM is read this way.
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

/// A Matroska stream, read up to its first cluster.
pub struct Matroska<R> {
    elements: Elements<R>,
    tracks: Vec<Track>,
    /// Nanoseconds per tick.
    timestamp_scale: u64,
    /// Timestamp of the current cluster, in ticks. `None` until it is read.
    cluster: Option<u64>,
    /// Blocks of the current cluster that come before its timestamp.
    early: VecDeque<Vec<u8>>,
    /// The timestamp at which the clip starts, in ticks.
    origin: Option<u64>,
    last: Duration,
    /// The byte at which the segment ends, if its header states the size.
    end: Option<u64>,
}

/// The timestamp at which a clip starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first cluster's: some recorders count timestamps from when they were switched on.
    FirstCluster,
    /// Timestamp 0.
    Zero,
}

impl<R: Read> Matroska<R> {
    pub fn open(input: R, start: Start) -> Result<Matroska<R>, EbmlError> {
        let mut matroska = Matroska {
            elements: Elements::new(input),
            tracks: Vec::new(),
            timestamp_scale: DEFAULT_TIMESTAMP_SCALE,
            cluster: None,
            early: VecDeque::new(),
            origin: (start == Start::Zero).then_some(0),
            last: Duration::ZERO,
            end: None,
        };
        let (mut has_tracks, mut content) = (false, Vec::new());
        while let Some(header) = matroska.elements.next()? {
            match header.id {
                ids::SEGMENT => {
                    let from = matroska.elements.position();
                    matroska.end = header.size.and_then(|size| from.checked_add(size));
                }
                ids::INFO => {
                    matroska.elements.read(header, MAX_HEADER, &mut content)?;
                    let scale = children(&content).find(|(id, _)| *id == ids::TIMESTAMP_SCALE);
                    matroska.timestamp_scale = scale.map_or(DEFAULT_TIMESTAMP_SCALE, |(_, value)| unsigned(value));
                }
                ids::TRACKS => {
                    matroska.elements.read(header, MAX_HEADER, &mut content)?;
                    matroska.tracks = tracks::read(&content);
                    has_tracks = true;
                }
                ids::CLUSTER => return Ok(matroska),
                _ => matroska.elements.skip(header)?,
            }
        }
        // A clip with tracks and no cluster is valid. Its length is zero.
        if has_tracks {
            Ok(matroska)
        } else {
            Err(EbmlError::Truncated)
        }
    }

    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The time of the latest block read so far, on any track.
    pub fn last(&self) -> Duration {
        self.last
    }

    /// The next block of track `number`. `None` at the end of the clip.
    pub fn next_block(&mut self, number: u64) -> Result<Option<Block>, EbmlError> {
        let mut data = Vec::new();
        loop {
            if self.cluster.is_some()
                && let Some(early) = self.early.pop_front()
            {
                match self.parse_block(early, number)? {
                    Some(block) => return Ok(Some(block)),
                    None => continue,
                }
            }
            // Bytes after the segment do not belong to the clip and are often not EBML.
            if self.end.is_some_and(|end| self.elements.position() >= end) {
                return Ok(None);
            }
            let Some(header) = self.elements.next()? else {
                break;
            };
            match header.id {
                // Only the headers are read. Reading continues with the children, so these may have an unknown size.
                ids::CLUSTER => {
                    self.require_no_early()?;
                    self.cluster = None;
                }
                ids::BLOCK_GROUP | ids::SEGMENT => {}
                ids::TIMESTAMP => {
                    self.elements.read(header, 8, &mut data)?;
                    let ticks = unsigned(&data);
                    self.cluster = Some(ticks);
                    self.origin.get_or_insert(ticks);
                }
                ids::SIMPLE_BLOCK | ids::BLOCK => {
                    self.elements.read(header, MAX_BLOCK, &mut data)?;
                    let block = std::mem::take(&mut data);
                    if self.cluster.is_none() {
                        self.keep_early(block)?;
                    } else if let Some(block) = self.parse_block(block, number)? {
                        return Ok(Some(block));
                    }
                }
                // A second clip was appended to this one. It has a clock of its own, so the first one ends here.
                ids::EBML => return Ok(None),
                _ => self.elements.skip(header)?,
            }
        }
        self.require_no_early()?;
        if self.end.is_some() {
            Err(EbmlError::Truncated)
        } else {
            Ok(None)
        }
    }

    /// Keeps a block until the timestamp of its cluster is known.
    fn keep_early(&mut self, block: Vec<u8>) -> Result<(), EbmlError> {
        self.early.push_back(block);
        let bytes: usize = self.early.iter().map(Vec::len).sum();
        if self.early.len() > MAX_EARLY_BLOCKS || bytes as u64 > MAX_BLOCK {
            return Err(self.elements.damaged(Damage::BlockTime));
        }
        Ok(())
    }

    /// A cluster has ended. Blocks of it without a time are damage.
    fn require_no_early(&self) -> Result<(), EbmlError> {
        match self.early.is_empty() {
            true => Ok(()),
            false => Err(self.elements.damaged(Damage::BlockTime)),
        }
    }

    /// Reads a block. `None` if it belongs to another track.
    fn parse_block(&mut self, data: Vec<u8>, number: u64) -> Result<Option<Block>, EbmlError> {
        let (track, length) = variable_length(&data).ok_or_else(|| self.elements.damaged(Damage::BlockTrack))?;
        let Some(&[high, low, flags]) = data.get(length..length + 3) else {
            return Err(self.elements.damaged(Damage::BlockTooShort));
        };
        let at = self.time(i16::from_be_bytes([high, low]));
        if at > self.last + MAX_GAP {
            return Err(self.elements.damaged(Damage::BlockTime));
        }
        self.last = self.last.max(at);
        if track != number {
            return Ok(None);
        }
        let frames =
            laced_frames(&data, length + 3, flags).ok_or_else(|| self.elements.damaged(Damage::BlockLacing))?;
        let frame_duration = self
            .tracks
            .iter()
            .find(|t| t.number == number)
            .map_or(Duration::ZERO, |t| t.frame_duration);
        Ok(Some(Block {
            at,
            data,
            frames,
            frame_duration,
        }))
    }

    fn time(&self, relative: i16) -> Duration {
        let ticks = i128::from(self.cluster.unwrap_or(0)) + i128::from(relative) - i128::from(self.origin.unwrap_or(0));
        let nanos = ticks.max(0).saturating_mul(i128::from(self.timestamp_scale));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

const LACING_MASK: u8 = 0x06;
const LACING_NONE: u8 = 0x00;
const LACING_XIPH: u8 = 0x02;
const LACING_FIXED: u8 = 0x04;

/// The frames of a block whose header ends at `from`. `None` if the lacing is invalid.
fn laced_frames(data: &[u8], mut from: usize, flags: u8) -> Option<Vec<Range<usize>>> {
    let lacing = flags & LACING_MASK;
    if lacing == LACING_NONE {
        return Some(std::iter::once(from..data.len()).collect());
    }
    let count = usize::from(*data.get(from)?) + 1;
    from += 1;
    let mut sizes = VecDeque::new();
    match lacing {
        LACING_XIPH => {
            for _ in 1..count {
                let full = data.get(from..)?.iter().take_while(|&&byte| byte == 255).count();
                sizes.push_back(full * 255 + usize::from(*data.get(from + full)?));
                from += full + 1;
            }
        }
        LACING_FIXED => {
            let size = (data.len() - from) / count;
            sizes.extend(std::iter::repeat_n(size, count - 1));
        }
        // EBML lacing: the first size, then differences.
        _ => {
            let mut size = 0i64;
            for i in 1..count {
                let (value, length) = variable_length(data.get(from..)?)?;
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

    /// A clip with one PCM track, number 1, and clusters with this content.
    fn clip(clusters: &[Vec<u8>]) -> Vec<u8> {
        let tracks = element(ids::TRACKS, &audio_track(1, "A_PCM/INT/LIT", 16_000.0, 1, 8));
        let clusters: Vec<u8> = clusters
            .iter()
            .flat_map(|content| unknown_size(ids::CLUSTER, content))
            .collect();
        [
            matroska_header(),
            unknown_size(ids::SEGMENT, &[info(), tracks, clusters].concat()),
        ]
        .concat()
    }

    type Frames = Vec<Vec<u8>>;

    /// Times in milliseconds and frames of all blocks of track 1.
    fn blocks(clip: &[u8]) -> Result<Vec<(u128, Frames)>, EbmlError> {
        let mut matroska = Matroska::open(clip, Start::FirstCluster)?;
        let mut found = Vec::new();
        while let Some(block) = matroska.next_block(1)? {
            let frames = block.frames().map(|(_, frame)| frame.to_vec()).collect();
            found.push((block.at.as_millis(), frames));
        }
        Ok(found)
    }

    fn one(bytes: &[u8]) -> Frames {
        vec![bytes.to_vec()]
    }

    #[test]
    fn unknown_sizes_void_elements_and_block_groups_are_read() {
        let group = element(
            ids::BLOCK_GROUP,
            &[
                element(ids::BLOCK, &block_content(1, 20, 0, b"b")),
                uint(ids::BLOCK_DURATION, 20),
            ]
            .concat(),
        );
        let first = [
            uint(ids::TIMESTAMP, 0),
            simple_block(1, 0, b"a"),
            element(ids::VOID, &[0; 9]),
            group,
        ]
        .concat();
        let second = [
            uint(ids::TIMESTAMP, 1000),
            simple_block(2, 0, b"other"),
            simple_block(1, -5, b"c"),
        ]
        .concat();
        let expected = vec![(0, one(b"a")), (20, one(b"b")), (995, one(b"c"))];
        assert_eq!(blocks(&clip(&[first, second])).unwrap(), expected);
    }

    #[test]
    fn blocks_before_the_timestamp_of_their_cluster_have_its_time() {
        let first = [
            simple_block(1, 5, b"a"),
            simple_block(1, 6, b"b"),
            uint(ids::TIMESTAMP, 100),
        ]
        .concat();
        let second = [
            simple_block(1, 7, b"c"),
            uint(ids::TIMESTAMP, 300),
            simple_block(1, 8, b"d"),
        ]
        .concat();
        let expected = [(5, one(b"a")), (6, one(b"b")), (207, one(b"c")), (208, one(b"d"))];
        assert_eq!(blocks(&clip(&[first, second])).unwrap(), expected);
    }

    #[test]
    fn timestamps_count_from_the_first_cluster() {
        let late = [uint(ids::TIMESTAMP, 86_400_000), simple_block(1, 40, b"a")].concat();
        assert_eq!(blocks(&clip(&[late])).unwrap(), [(40, one(b"a"))]);
    }

    #[test]
    fn laced_frames_are_separated() {
        let frames = || vec![b"aa".to_vec(), b"bbbb".to_vec(), b"c".to_vec()];
        let xiph = block_content(1, 0, 2, b"\x02\x02\x04aabbbbc");
        let ebml = block_content(1, 1, 6, b"\x02\x82\xC1aabbbbc");
        let fixed = block_content(1, 2, 4, b"\x02aabbcc");
        let content = [
            uint(ids::TIMESTAMP, 0),
            element(ids::SIMPLE_BLOCK, &xiph),
            element(ids::SIMPLE_BLOCK, &ebml),
            element(ids::SIMPLE_BLOCK, &fixed),
        ];
        let same = vec![b"aa".to_vec(), b"bb".to_vec(), b"cc".to_vec()];
        let expected = vec![(0, frames()), (1, frames()), (2, same)];
        assert_eq!(blocks(&clip(&[content.concat()])).unwrap(), expected);
    }

    #[test]
    fn invalid_sizes_and_times_are_damage() {
        let damage = |clip: &[u8]| match blocks(clip) {
            Err(EbmlError::Damaged { damage, .. }) => damage,
            other => panic!("{other:?}"),
        };
        let with_block = |block: Vec<u8>| clip(&[[uint(ids::TIMESTAMP, 0), block].concat()]);
        let oversized = with_block(sized(ids::SIMPLE_BLOCK, 1 << 40, b"\x81\0\0\x80"));
        assert_eq!(damage(&oversized), Damage::Oversized);
        let lacing = element(ids::SIMPLE_BLOCK, &block_content(1, 0, 2, b"\x02\xFF\xFF\x00aa"));
        assert_eq!(damage(&with_block(lacing)), Damage::BlockLacing);
        let short = with_block(element(ids::SIMPLE_BLOCK, b"\x81\0"));
        assert_eq!(damage(&short), Damage::BlockTooShort);
        let late = [uint(ids::TIMESTAMP, u64::MAX), simple_block(1, 9, b"a")].concat();
        assert_eq!(damage(&clip(&[uint(ids::TIMESTAMP, 0), late])), Damage::BlockTime);
    }

    #[test]
    fn bytes_after_the_segment_are_ignored() {
        let tracks = element(ids::TRACKS, &audio_track(1, "A_PCM/INT/LIT", 16_000.0, 1, 8));
        let cluster = element(
            ids::CLUSTER,
            &[uint(ids::TIMESTAMP, 0), simple_block(1, 0, b"a")].concat(),
        );
        let segment = element(ids::SEGMENT, &[info(), tracks, cluster].concat());
        let clip = [matroska_header(), segment, b"\0\0 junk".to_vec()].concat();
        assert_eq!(blocks(&clip).unwrap(), [(0, one(b"a"))]);
    }
}
