//! Frames for a serial line: binary, short, and each either whole or known not to be.
//!
//! ```text
//! 0x00-free COBS code of ( version, kind, body, CRC-16 )  0x00
//! ```
//!
//! The body is a [`Record`] or, for answers to commands, text. `cross/wire.md` has every byte; the readers in
//! `cross/readers` are held to [`Reader`] by the integration tests.

pub mod cobs;
pub mod crc;
pub mod record;

use crc::crc16;
use record::RECORD;

pub use record::Record;

/// Changes when a reader of the one before would misread it.
pub const VERSION: u8 = 1;
/// Ends every frame, and begins a connection.
pub const DELIMITER: u8 = 0;
/// A longer code is no frame of ours: [`Reader`] keeps no more of it.
const LONGEST_CODE: usize = 1024;

/// What is in a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Estimate(Record),
    /// An answer: one JSON object.
    Text(String),
}

/// Something that is no frame of ours stood between two delimiters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a broken frame")]
pub struct Broken;

impl Message {
    /// The kind byte, which comes after the version.
    const ESTIMATE: u8 = 1;
    const TEXT: u8 = 2;

    /// Appends the frame, delimiter and all.
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

    /// What `code`, all that stood between two delimiters, says.
    fn decode(code: &[u8]) -> Result<Message, Broken> {
        let bytes = cobs::decode(code).ok_or(Broken)?;
        let (content, sum) = bytes.split_last_chunk().ok_or(Broken)?;
        if crc16(content) != u16::from_le_bytes(*sum) {
            return Err(Broken);
        }
        match content {
            [VERSION, Message::ESTIMATE, body @ ..] => {
                let body: &[u8; RECORD] = body.try_into().map_err(|_| Broken)?;
                Record::from_bytes(body).map(Message::Estimate).ok_or(Broken)
            }
            [VERSION, Message::TEXT, body @ ..] => {
                String::from_utf8(body.to_vec()).map(Message::Text).map_err(|_| Broken)
            }
            _ => Err(Broken),
        }
    }
}

/// Finds the frames in a stream of bytes, wherever it begins and whatever happened to it.
#[derive(Debug, Default)]
pub struct Reader {
    code: Vec<u8>,
    /// Whether a delimiter has been seen: what comes before the first may be half a frame, and is nobody's fault.
    in_step: bool,
}

impl Reader {
    /// Takes in the next byte; gives what it completes.
    pub fn push(&mut self, byte: u8) -> Option<Result<Message, Broken>> {
        if byte != DELIMITER {
            // One byte too many is enough to know that there were too many.
            if self.code.len() <= LONGEST_CODE {
                self.code.push(byte);
            }
            return None;
        }
        let was_in_step = std::mem::replace(&mut self.in_step, true);
        let message = match self.code.len() {
            0 => return None,
            1..=LONGEST_CODE => Message::decode(&self.code),
            _ => Err(Broken),
        };
        self.code.clear();
        match message {
            Err(Broken) if !was_in_step => None,
            message => Some(message),
        }
    }
}

#[cfg(test)]
mod tests;
