//! Reading EBML, the element tree under Matroska, front to back.
//!
//! Nothing here seeks and nothing trusts a size: memory grows only as bytes arrive, so that a damaged or hostile file
//! costs no more than its own length. Reading forward only also means that a pipe does as well as a file, and that a
//! recording cut off before its index was written is as good as a whole one up to the cut.

use std::io::{BufRead, BufReader, Read};

/// Why reading stopped before the end.
#[derive(Debug)]
pub enum EbmlError {
    /// The input ends within an element.
    CutOff,
    /// The bytes at this position make no sense.
    Damaged {
        position: u64,
        what: &'static str,
    },
    Io(std::io::Error),
}

impl std::fmt::Display for EbmlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EbmlError::CutOff => write!(f, "cut off: it ends too early"),
            EbmlError::Damaged { position, what } => write!(f, "damaged at byte {position}: {what}"),
            EbmlError::Io(err) => write!(f, "cannot be read: {err}"),
        }
    }
}

impl From<std::io::Error> for EbmlError {
    fn from(err: std::io::Error) -> EbmlError {
        match err.kind() {
            std::io::ErrorKind::UnexpectedEof => EbmlError::CutOff,
            _ => EbmlError::Io(err),
        }
    }
}

/// The header of an element.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    pub id: u32,
    /// Bytes of content; `None` where the writer did not know, as in a live stream.
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

    pub fn damaged(&self, what: &'static str) -> EbmlError {
        EbmlError::Damaged {
            position: self.position,
            what,
        }
    }

    /// The next header, or `None` where the input ends.
    pub fn next(&mut self) -> Result<Option<Header>, EbmlError> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let first = self.byte()?;
        let length = first.leading_zeros() + 1;
        if length > 4 {
            return Err(self.damaged("no element starts here"));
        }
        let mut id = u32::from(first);
        for _ in 1..length {
            id = id << 8 | u32::from(self.byte()?);
        }
        let first = self.byte()?;
        let length = first.leading_zeros() + 1;
        if length > 8 {
            return Err(self.damaged("an element has no valid size"));
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

    /// Reads the content of an element into `content`, replacing what was there.
    pub fn read(&mut self, header: Header, most: u64, content: &mut Vec<u8>) -> Result<(), EbmlError> {
        content.clear();
        let size = header
            .size
            .ok_or_else(|| self.damaged("an element that needs a size has none"))?;
        if size > most {
            return Err(self.damaged("an element says it is absurdly large"));
        }
        let read = self.input.by_ref().take(size).read_to_end(content)? as u64;
        self.position += read;
        if read < size { Err(EbmlError::CutOff) } else { Ok(()) }
    }

    /// Passes over the content of an element.
    pub fn skip(&mut self, header: Header) -> Result<(), EbmlError> {
        let mut left = header
            .size
            .ok_or_else(|| self.damaged("an element that needs a size has none"))?;
        while left > 0 {
            let there = self.input.fill_buf()?.len();
            if there == 0 {
                return Err(EbmlError::CutOff);
            }
            let step = there.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(step);
            self.position += step as u64;
            left -= step as u64;
        }
        Ok(())
    }
}

/// The children of a master element held in memory: id and content. Ends early where they make no sense.
pub fn children(mut content: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let mut elements = Elements::new(content);
        let header = elements.next().ok()??;
        let from = elements.position() as usize;
        let to = from.checked_add(usize::try_from(header.size?).ok()?)?;
        let child = content.get(from..to)?;
        content = &content[to..];
        Some((header.id, child))
    })
}

/// The content of an unsigned integer element; too long ones read as the largest there is.
pub fn unsigned(content: &[u8]) -> u64 {
    if content.len() > 8 {
        return u64::MAX;
    }
    content.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// The content of a float element; 0 where it has no valid length.
pub fn float(content: &[u8]) -> f64 {
    if let Ok(bytes) = content.try_into() {
        f64::from_be_bytes(bytes)
    } else if let Ok(bytes) = content.try_into() {
        f32::from_be_bytes(bytes).into()
    } else {
        0.0
    }
}

/// The content of a string element, less the zeros that may pad it.
pub fn string(content: &[u8]) -> String {
    String::from_utf8_lossy(content).trim_end_matches('\0').to_owned()
}

/// A number of variable length at the front of `content`, as in block headers, and how many bytes it takes.
pub fn variable(content: &[u8]) -> Option<(u64, usize)> {
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
    fn headers_tell_known_from_unknown_sizes() {
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
    fn a_lying_size_reserves_nothing() {
        let mut content = Vec::new();
        let bytes = [0xA3, 0x08, 0x01, 0x00, 0x00, 0x00, 7, 7];
        let mut elements = Elements::new(&bytes[..]);
        let header = elements.next().unwrap().unwrap();
        assert_eq!(header.size, Some(1 << 24));
        assert!(matches!(
            elements.read(header, 1 << 30, &mut content),
            Err(EbmlError::CutOff)
        ));
        assert!(content.capacity() < 4096);
    }

    #[test]
    fn children_end_where_they_leave_their_parent() {
        let content = [0xD7, 0x81, 5, 0x83, 0x81, 2, 0x86, 0x88, 1];
        let found: Vec<_> = children(&content).map(|(id, value)| (id, unsigned(value))).collect();
        assert_eq!(found, [(0xD7, 5), (0x83, 2)]);
    }

    #[test]
    fn numbers_of_variable_length() {
        assert_eq!(variable(&[0x81, 9]), Some((1, 1)));
        assert_eq!(variable(&[0x41, 0x00]), Some((256, 2)));
        assert_eq!(variable(&[0x41]), None);
        assert_eq!(variable(&[0x00, 0x01]), None);
        assert_eq!(float(&1.5f32.to_be_bytes()), 1.5);
        assert_eq!(float(&48_000f64.to_be_bytes()), 48_000.0);
    }
}
