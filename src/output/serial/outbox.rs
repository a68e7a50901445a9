//! What waits for room on the line: never half a message, never more than the newest estimate.

use std::collections::VecDeque;
use std::io;

/// Answers that may wait; whoever asks faster than the line carries gets no more.
const ANSWERS: usize = 8;

/// Messages on their way out.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Being written: the first `sent` bytes are out.
    current: Vec<u8>,
    sent: usize,
    answers: VecDeque<Vec<u8>>,
    estimate: Option<Vec<u8>>,
}

impl Outbox {
    /// Begins a connection. What was begun on the last one is lost, what waited is out of date; `delimiter` ends whatever
    /// half a message the reader still holds.
    pub fn connect(&mut self, delimiter: u8) {
        *self = Outbox::default();
        self.current.push(delimiter);
    }

    /// Puts a message there for the one that still waits, if any: false if one did.
    pub fn estimate(&mut self, message: Vec<u8>) -> bool {
        self.estimate.replace(message).is_none()
    }

    /// Answers go before estimates.
    pub fn answer(&mut self, message: Vec<u8>) {
        if self.answers.len() < ANSWERS {
            self.answers.push_back(message);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sent == self.current.len() && self.answers.is_empty() && self.estimate.is_none()
    }

    /// Writes until all is out or `write` takes nothing more: it gives how many bytes it took.
    pub fn flush(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            while self.sent < self.current.len() {
                match write(&self.current[self.sent..])? {
                    0 => return Ok(()),
                    taken => self.sent += taken,
                }
            }
            match self.answers.pop_front().or_else(|| self.estimate.take()) {
                Some(message) => (self.current, self.sent) = (message, 0),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_room_there_is_only_whole_messages_come_out_in_order(room in prop::collection::vec(0usize..12, 1..200)) {
            let mut outbox = Outbox::default();
            let mut line = Vec::new();
            outbox.connect(b'\n');
            let mut lost = 0;
            for (k, room) in room.iter().enumerate() {
                lost += usize::from(!outbox.estimate(format!("estimate {k}\n").into_bytes()));
                if k % 5 == 0 {
                    outbox.answer(format!("answer {k}\n").into_bytes());
                }
                let mut room = *room;
                outbox.flush(|bytes| {
                    let taken = bytes.len().min(room);
                    room -= taken;
                    line.extend_from_slice(&bytes[..taken]);
                    Ok(taken)
                }).unwrap();
            }
            outbox.flush(|bytes| {
                line.extend_from_slice(bytes);
                Ok(bytes.len())
            }).unwrap();
            prop_assert!(outbox.is_empty());
            let text = String::from_utf8(line).unwrap();
            let numbers: Vec<usize> = text.lines().filter_map(|l| l.strip_prefix("estimate ")).map(|n| n.parse().unwrap()).collect();
            prop_assert!(numbers.is_sorted());
            prop_assert_eq!(numbers.len() + lost, room.len());
            prop_assert_eq!(numbers.last(), Some(&(room.len() - 1)));
            prop_assert!(text.lines().skip(1).all(|l| l.starts_with("estimate ") || l.starts_with("answer ")));
        }
    }

    #[test]
    fn a_new_connection_begins_with_a_delimiter_and_no_old_half() {
        let mut outbox = Outbox::default();
        outbox.estimate(b"old\n".to_vec());
        outbox.flush(|_| Ok(0)).unwrap();
        outbox.connect(b'\n');
        outbox.estimate(b"new\n".to_vec());
        let mut line = Vec::new();
        outbox
            .flush(|bytes| {
                line.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .unwrap();
        assert_eq!(line, b"\nnew\n");
    }
}
