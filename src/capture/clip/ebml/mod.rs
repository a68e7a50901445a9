//! EBML, the element tree below Matroska (RFC 8794), read front to back.
//!
//! The reader never seeks and never trusts a size. Memory grows only as bytes arrive, so a damaged or hostile file costs no
//! more than its own length. Pipes work as well as files, and a recording that was cut off before its index was written is
//! readable up to the cut.

pub mod encode;
pub mod ids;

use std::io::{BufRead, BufReader, Read};

use crate::capture::error::CutCause;

/// Why reading stopped before the end.
#[derive(Debug, thiserror::Error)]
pub enum EbmlError {
    /// The input ends within an element.
    #[error("it ends too early")]
    Truncated,
    #[error("at byte {position}, {damage}")]
    Damaged { position: u64, damage: Damage },
    #[error("it cannot be read: {0}")]
    Io(std::io::Error),
}

/// What is invalid in a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("no element starts")]
    ElementId,
    #[error("an element has an invalid size")]
    ElementSize,
    #[error("the size of an element is missing")]
    UnknownSize,
    #[error("an element is too large")]
    Oversized,
    #[error("a block has no track number")]
    BlockTrack,
    #[error("a block is too short")]
    BlockTooShort,
    #[error("a block has invalid lacing")]
    BlockLacing,
    #[error("a block is more than an hour later than the one before")]
    BlockTime,
}

impl From<std::io::Error> for EbmlError {
    fn from(error: std::io::Error) -> EbmlError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => EbmlError::Truncated,
            _ => EbmlError::Io(error),
        }
    }
}

impl From<EbmlError> for CutCause {
    fn from(error: EbmlError) -> CutCause {
        match error {
            EbmlError::Truncated => CutCause::Truncated,
            EbmlError::Damaged { .. } => CutCause::Damaged(error.to_string()),
            EbmlError::Io(error) => CutCause::Io(error.to_string()),
        }
    }
}

/// The header of an element.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    pub id: u32,
    /// Bytes of content. `None` if the writer did not know the size, as in a live stream.
    pub size: Option<u64>,
}

/// A forward-only reader of elements.
pub struct Elements<R> {
    input: BufReader<R>,
    position: u64,
}

impl<R: Read> Elements<R> {
    pub fn new(input: R) -> Elements<R> {
        Elements {
            input: BufReader::with_capacity(64 * 1024, input),
            position: 0,
        }
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn damaged(&self, damage: Damage) -> EbmlError {
        EbmlError::Damaged {
            position: self.position,
            damage,
        }
    }

    /// The next header, or `None` at the end of the input.
    pub fn next(&mut self) -> Result<Option<Header>, EbmlError> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let first = self.byte()?;
        let length = first.leading_zeros() + 1;
        if length > 4 {
            return Err(self.damaged(Damage::ElementId));
        }
        let mut id = u32::from(first);
        for _ in 1..length {
            id = id << 8 | u32::from(self.byte()?);
        }
        let first = self.byte()?;
        let length = first.leading_zeros() + 1;
        if length > 8 {
            return Err(self.damaged(Damage::ElementSize));
        }
        let mut size = u64::from(first) & ((1 << (8 - length)) - 1);
        for _ in 1..length {
            size = size << 8 | u64::from(self.byte()?);
        }
        let unknown = size == (1 << (7 * length)) - 1;
        Ok(Some(Header {
            id,
            size: (!unknown).then_some(size),
        }))
    }

    fn byte(&mut self) -> Result<u8, EbmlError> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        self.position += 1;
        Ok(byte[0])
    }

    /// Reads the content of an element into `content`, replacing its previous value. Fails if there are more than `max_size`
    /// bytes.
    pub fn read(&mut self, header: Header, max_size: u64, content: &mut Vec<u8>) -> Result<(), EbmlError> {
        content.clear();
        let size = header.size.ok_or_else(|| self.damaged(Damage::UnknownSize))?;
        if size > max_size {
            return Err(self.damaged(Damage::Oversized));
        }
        let read = self.input.by_ref().take(size).read_to_end(content)? as u64;
        self.position += read;
        if read < size { Err(EbmlError::Truncated) } else { Ok(()) }
    }

    /// Skips the content of an element.
    pub fn skip(&mut self, header: Header) -> Result<(), EbmlError> {
        let mut left = header.size.ok_or_else(|| self.damaged(Damage::UnknownSize))?;
        while left > 0 {
            let available = self.input.fill_buf()?.len();
            if available == 0 {
                return Err(EbmlError::Truncated);
            }
            let step = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(step);
            self.position += step as u64;
            left -= step as u64;
        }
        Ok(())
    }
}

/// The children of a master element in memory: id and content. Ends early at the first invalid child.
pub fn children(mut content: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let mut elements = Elements::new(content);
        let header = elements.next().ok()??;
        let from = usize::try_from(elements.position()).ok()?;
        let to = from.checked_add(usize::try_from(header.size?).ok()?)?;
        let child = content.get(from..to)?;
        content = &content[to..];
        Some((header.id, child))
    })
}

/// The value of an unsigned integer element. An element longer than eight bytes yields `u64::MAX`.
pub fn unsigned(content: &[u8]) -> u64 {
    if content.len() > 8 {
        return u64::MAX;
    }
    content.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// The value of a float element. An element of invalid length yields 0.
pub fn float(content: &[u8]) -> f64 {
    if let Ok(bytes) = content.try_into() {
        f64::from_be_bytes(bytes)
    } else if let Ok(bytes) = content.try_into() {
        f32::from_be_bytes(bytes).into()
    } else {
        0.0
    }
}

/// The value of a string element, without padding.
pub fn string(content: &[u8]) -> String {
    String::from_utf8_lossy(content).trim_end_matches('\0').to_owned()
}

/// The variable-length number at the start of `content`, as in block headers, and its length in bytes.
pub fn variable_length(content: &[u8]) -> Option<(u64, usize)> {
    let first = *content.first()?;
    let length = first.leading_zeros() as usize + 1;
    let bytes = content.get(..length).filter(|_| length <= 8)?;
    let marker = 1u64 << (7 * length);
    Some((unsigned(bytes) ^ marker, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_distinguish_known_and_unknown_sizes() {
        let header = |bytes: &[u8]| Elements::new(bytes).next().unwrap().unwrap();
        assert_eq!(header(&[0xA3, 0x84]).size, Some(4));
        assert_eq!(header(&[0x1F, 0x43, 0xB6, 0x75, 0x40, 0x02]).id, 0x1F43_B675);
        assert_eq!(header(&[0x1F, 0x43, 0xB6, 0x75, 0xFF]).size, None);
        assert_eq!(
            header(&[0xA3, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).size,
            None
        );
        assert!(Elements::new(&[][..]).next().unwrap().is_none());
    }

    #[test]
    fn a_wrong_size_allocates_nothing() {
        let mut content = Vec::new();
        let bytes = [0xA3, 0x08, 0x01, 0x00, 0x00, 0x00, 7, 7];
        let mut elements = Elements::new(&bytes[..]);
        let header = elements.next().unwrap().unwrap();
        assert_eq!(header.size, Some(1 << 24));
        assert!(matches!(
            elements.read(header, 1 << 30, &mut content),
            Err(EbmlError::Truncated)
        ));
        assert!(content.capacity() < 4096);
    }

    #[test]
    fn children_end_at_the_end_of_their_parent() {
        let content = [0xD7, 0x81, 5, 0x83, 0x81, 2, 0x86, 0x88, 1];
        let found: Vec<_> = children(&content).map(|(id, value)| (id, unsigned(value))).collect();
        assert_eq!(found, [(0xD7, 5), (0x83, 2)]);
    }

    #[test]
    fn numbers_of_variable_length_are_decoded() {
        assert_eq!(variable_length(&[0x81, 9]), Some((1, 1)));
        assert_eq!(variable_length(&[0x41, 0x00]), Some((256, 2)));
        assert_eq!(variable_length(&[0x41]), None);
        assert_eq!(variable_length(&[0x00, 0x01]), None);
        assert_eq!(float(&1.5f32.to_be_bytes()), 1.5);
        assert_eq!(float(&48_000f64.to_be_bytes()), 48_000.0);
    }
}
