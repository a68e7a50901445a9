//! Messages that wait for room on the line. A message is always written whole, and only the newest estimate waits.

use std::collections::VecDeque;
use std::io;

/// Answers that may wait. Further ones are dropped while a peer asks faster than the line carries.
const MAX_ANSWERS: usize = 8;

/// Whether an answer that waits may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// It belongs to its command.
    Fixed,
    /// It shows the present state. A newer one of this kind replaces the content of those that wait, so that a peer that asks often
    /// does not read old states.
    Present,
}

#[derive(Debug, Default)]
pub struct Outbox {
    /// The message being written. The first `sent` bytes are written.
    current: Vec<u8>,
    sent: usize,
    current_is_estimate: bool,
    answers: VecDeque<(AnswerKind, Vec<u8>)>,
    estimate: Option<Vec<u8>>,
    /// An answer was written since the last estimate. The next one waits, so that a peer that asks without end cannot hold
    /// back the estimates.
    answered: bool,
}

impl Outbox {
    /// Starts anew on a port that was just opened. Messages from before are dropped, and `delimiter` ends any half message
    /// that the reader still holds.
    pub fn start_connection(&mut self, delimiter: u8) {
        *self = Outbox::default();
        self.current.push(delimiter);
    }

    /// Queues the newest estimate. Returns the older one that it replaces, if that was still waiting.
    pub fn push_estimate(&mut self, message: Vec<u8>) -> Option<Vec<u8>> {
        self.estimate.replace(message)
    }

    /// How many estimates are not written, or not completely.
    pub fn unsent_estimates(&self) -> u64 {
        let is_half_written = self.current_is_estimate && self.sent < self.current.len();
        u64::from(is_half_written) + u64::from(self.estimate.is_some())
    }

    /// Queues an answer. One answer is written between two estimates.
    pub fn push_answer(&mut self, kind: AnswerKind, message: Vec<u8>) {
        if kind == AnswerKind::Present {
            for (_, waiting) in self.answers.iter_mut().filter(|(waiting, _)| *waiting == kind) {
                waiting.clone_from(&message);
            }
        }
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back((kind, message));
        }
    }

    /// Permits one more answer before the next estimate.
    pub fn permit_answer(&mut self) {
        self.answered = false;
    }

    /// Whether nothing may be written now. Answers may still wait for their turn.
    pub fn is_idle(&self) -> bool {
        self.sent == self.current.len() && self.estimate.is_none() && (self.answered || self.answers.is_empty())
    }

    /// Writes until nothing may be written or the line has no more room. `write` returns how many bytes it took.
    pub fn flush(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            while self.sent < self.current.len() {
                match write(&self.current[self.sent..])? {
                    0 => return Ok(()),
                    taken => self.sent += taken,
                }
            }
            let answer = match self.answered {
                true => None,
                false => self.answers.pop_front().map(|(_, message)| message),
            };
            self.answered |= answer.is_some();
            self.current_is_estimate = answer.is_none();
            let next = answer.or_else(|| {
                self.answered &= self.estimate.is_none();
                self.estimate.take()
            });
            match next {
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
        fn messages_are_written_whole_and_in_order_whatever_the_room(room in prop::collection::vec(0usize..12, 1..200)) {
            let mut outbox = Outbox::default();
            let mut line = Vec::new();
            outbox.start_connection(b'\n');
            let mut lost = 0;
            for (k, room) in room.iter().enumerate() {
                lost += usize::from(outbox.push_estimate(format!("estimate {k}\n").into_bytes()).is_some());
                if k % 5 == 0 {
                    outbox.push_answer(AnswerKind::Fixed, format!("answer {k}\n").into_bytes());
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
            prop_assert!(outbox.is_idle());
            let text = String::from_utf8(line).unwrap();
            let numbers: Vec<usize> = text.lines().filter_map(|l| l.strip_prefix("estimate ")).map(|n| n.parse().unwrap()).collect();
            prop_assert!(numbers.is_sorted());
            prop_assert_eq!(numbers.len() + lost, room.len());
            prop_assert_eq!(numbers.last(), Some(&(room.len() - 1)));
            prop_assert!(text.lines().skip(1).all(|l| l.starts_with("estimate ") || l.starts_with("answer ")));
        }
    }

    #[test]
    fn at_most_one_answer_is_written_between_two_estimates() {
        let mut outbox = Outbox::default();
        let mut line = Vec::new();
        let mut flush = |outbox: &mut Outbox| {
            let mut write = |bytes: &[u8]| {
                line.extend_from_slice(bytes);
                Ok(bytes.len())
            };
            outbox.flush(&mut write).unwrap();
            assert!(outbox.is_idle());
        };
        (0..4).for_each(|_| outbox.push_answer(AnswerKind::Fixed, b"a".to_vec()));
        flush(&mut outbox);
        flush(&mut outbox);
        outbox.push_estimate(b"E".to_vec());
        flush(&mut outbox);
        outbox.permit_answer();
        flush(&mut outbox);
        outbox.push_estimate(b"E".to_vec());
        flush(&mut outbox);
        assert_eq!(line, b"aEaaEa");
    }

    #[test]
    fn answers_that_wait_show_the_newest_state() {
        let mut outbox = Outbox::default();
        outbox.push_answer(AnswerKind::Present, b"1".to_vec());
        outbox.push_answer(AnswerKind::Fixed, b"p".to_vec());
        (2..=9).for_each(|k| outbox.push_answer(AnswerKind::Present, format!("{k}").into_bytes()));
        let mut line = Vec::new();
        for _ in 0..4 {
            outbox.permit_answer();
            outbox.push_estimate(b"E".to_vec());
            outbox
                .flush(|bytes| {
                    line.extend_from_slice(bytes);
                    Ok(bytes.len())
                })
                .unwrap();
        }
        assert_eq!(String::from_utf8(line).unwrap().replace('E', ""), "9p999999");
    }

    #[test]
    fn estimates_that_are_not_completely_written_are_counted() {
        let mut outbox = Outbox::default();
        outbox.start_connection(b'\n');
        let flush = |outbox: &mut Outbox, room: usize| {
            let mut left = room;
            let mut write = |bytes: &[u8]| {
                let taken = bytes.len().min(left);
                left -= taken;
                Ok(taken)
            };
            outbox.flush(&mut write).unwrap();
            outbox.unsent_estimates()
        };
        outbox.push_answer(AnswerKind::Fixed, b"ab".to_vec());
        // A delimiter and half an answer.
        assert_eq!(flush(&mut outbox, 2), 0);
        outbox.push_estimate(b"EE".to_vec());
        assert_eq!(flush(&mut outbox, 0), 1);
        assert_eq!(flush(&mut outbox, 2), 1);
        outbox.push_estimate(b"FF".to_vec());
        assert_eq!(flush(&mut outbox, 0), 2);
        assert_eq!(flush(&mut outbox, 2), 1);
        assert_eq!(flush(&mut outbox, 1), 0);
    }

    #[test]
    fn a_new_connection_begins_with_a_delimiter_and_without_old_messages() {
        let mut outbox = Outbox::default();
        outbox.push_estimate(b"old\n".to_vec());
        outbox.flush(|_| Ok(0)).unwrap();
        outbox.start_connection(b'\n');
        outbox.push_estimate(b"new\n".to_vec());
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
