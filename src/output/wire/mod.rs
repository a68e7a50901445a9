//! Binary frames for a serial line. They are short, and a reader detects every damaged one.
//!
//! ```text
//! COBS( version, kind, body, CRC-16 )  0x00
//! ```
//!
//! The body is a [`Record`] or, for answers to commands, text. `cross/wire.md` documents every byte. The integration tests
//! compare the readers in `cross/readers` with [`FrameReader`].

pub mod cobs;
pub mod crc;
pub mod record;

use crc::crc16;
use record::RECORD_BYTES;

pub use record::Record;

/// The version of the frame format. It changes when a reader of the previous version would misread a frame.
pub const VERSION: u8 = 1;
/// Ends every frame. One is also sent when the port is opened.
pub const DELIMITER: u8 = 0;
/// The longest encoded frame, in bytes without the delimiter.
const MAX_CODE_BYTES: usize = 1024;

/// The content of a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Estimate(Record),
    /// An answer: one JSON object.
    Text(String),
}

/// The bytes between two delimiters are not a valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an invalid frame")]
pub struct InvalidFrame;

impl Message {
    /// Values of the kind byte.
    const ESTIMATE: u8 = 1;
    const TEXT: u8 = 2;

    /// Appends the frame with its delimiter.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let record;
        let (kind, body) = match self {
            Message::Estimate(estimate) => {
                record = estimate.to_bytes();
                (Message::ESTIMATE, &record[..])
            }
            Message::Text(text) => (Message::TEXT, text.as_bytes()),
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&crc16(&bytes).to_le_bytes());
        cobs::encode(&bytes, out);
        out.push(DELIMITER);
    }

    /// Decodes the bytes between two delimiters.
    fn decode(code: &[u8]) -> Result<Message, InvalidFrame> {
        let bytes = cobs::decode(code).ok_or(InvalidFrame)?;
        let (content, sum) = bytes.split_last_chunk().ok_or(InvalidFrame)?;
        if crc16(content) != u16::from_le_bytes(*sum) {
            return Err(InvalidFrame);
        }
        match content {
            [VERSION, Message::ESTIMATE, body @ ..] => {
                let body: &[u8; RECORD_BYTES] = body.try_into().map_err(|_| InvalidFrame)?;
                Record::from_bytes(body).map(Message::Estimate).ok_or(InvalidFrame)
            }
            [VERSION, Message::TEXT, body @ ..] => String::from_utf8(body.to_vec())
                .map(Message::Text)
                .map_err(|_| InvalidFrame),
            _ => Err(InvalidFrame),
        }
    }
}

/// Finds the frames in a stream of bytes. The stream may begin anywhere and may be damaged.
#[derive(Debug, Default)]
pub struct FrameReader {
    code: Vec<u8>,
    /// Whether a delimiter has been read. The bytes before the first one may be half a frame, which is not an error.
    synchronized: bool,
}

impl FrameReader {
    /// Reads the next byte. Returns the frame that it completes, if any.
    pub fn push(&mut self, byte: u8) -> Option<Result<Message, InvalidFrame>> {
        if byte != DELIMITER {
            // One byte more than the limit is kept, to see that the frame is too long.
            if self.code.len() <= MAX_CODE_BYTES {
                self.code.push(byte);
            }
            return None;
        }
        let was_synchronized = std::mem::replace(&mut self.synchronized, true);
        let message = match self.code.len() {
            0 => return None,
            1..=MAX_CODE_BYTES => Message::decode(&self.code),
            _ => Err(InvalidFrame),
        };
        self.code.clear();
        match message {
            Err(InvalidFrame) if !was_synchronized => None,
            message => Some(message),
        }
    }
}

#[cfg(test)]
mod tests;
