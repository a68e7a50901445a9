//! Decodes a stream of lines or of frames, whichever the device sends.

use super::lines::LineSplitter;
use super::received::{Expressions, Face, Reading, Received, Voice};
use super::unrecognized::Unrecognized;
use crate::face::EXPRESSIONS;
use crate::output::wire::{DELIMITER, FrameReader, Message, Record};

/// Reads the stream as lines and as frames, and returns what it is. The device may change the form at any time.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    lines: LineSplitter,
    frames: FrameReader,
    form: Form,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// No message has come yet.
    #[default]
    Unknown,
    Lines,
    Frames,
}

impl StreamDecoder {
    /// What the next bytes complete. The result does not depend on where the stream is cut, except [`Received::Noise`].
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Received> {
        let pieces = bytes.split_inclusive(|byte| matches!(*byte, b'\n' | DELIMITER));
        pieces.flat_map(|piece| self.push_piece(piece)).collect()
    }

    /// `piece` ends at most one line or frame.
    fn push_piece(&mut self, piece: &[u8]) -> Vec<Received> {
        let frames: Vec<Received> = piece
            .iter()
            .filter_map(|byte| self.frames.push(*byte))
            .filter_map(from_frame)
            .collect();
        let lines = self.lines.push(piece);
        let is_ours = |received: &[Received]| received.iter().any(Received::is_ours);
        if is_ours(&frames) {
            self.form = Form::Frames;
            self.lines.forget_line();
        } else if is_ours(&lines) {
            self.form = Form::Lines;
            // The next frame must not begin with this line.
            self.frames = FrameReader::default();
        }
        match self.form {
            Form::Frames => frames,
            Form::Lines => lines,
            Form::Unknown => lines.into_iter().map(perhaps_a_frame).collect(),
        }
    }
}

/// What is a part of a frame when it is read as a line.
fn perhaps_a_frame(received: Received) -> Received {
    match received {
        Received::Unrecognized(Unrecognized::Bytes | Unrecognized::TooLong) => Received::Noise,
        other => other,
    }
}

fn from_frame<E>(message: Result<Message, E>) -> Option<Received> {
    match message {
        Ok(Message::Estimate(record)) => Some(Received::Estimate(reading(&record))),
        Ok(Message::Text(text)) => Received::from_json(text.as_bytes()),
        Err(_) => Some(Received::Unrecognized(Unrecognized::Frame)),
    }
}

fn reading(record: &Record) -> Reading {
    let fraction = |value: i16| f32::from(value) / 10_000.0;
    let modalities = [(record.from_face, "face"), (record.from_voice, "voice")];
    Reading {
        seq: record.seq.into(),
        t: f64::from(record.t_ms) / 1000.0,
        valence: record.valence.map(fraction),
        arousal: record.arousal.map(fraction),
        confidence: record.confidence.map(fraction),
        modalities: modalities
            .iter()
            .filter(|(there, _)| *there)
            .map(|(_, name)| name.to_string())
            .collect(),
        face: record.face.map(|face| Face {
            id: face.id.into(),
            score: f32::from(face.score) / 100.0,
        }),
        voice: record.voice.map(|voice| Voice {
            active: voice.active,
            level_db: voice.level.map(|level| f32::from(level) / 10.0),
        }),
        expression: record.face.and_then(|face| face.expression).map(|likely| {
            let mut probabilities = [0.0; EXPRESSIONS.len()];
            probabilities[usize::from(likely.index)] = f32::from(likely.percent) / 100.0;
            Expressions(probabilities)
        }),
        paused: record.paused,
        latency_ms: record.latency_ms.map(u64::from),
    }
}

#[cfg(test)]
mod tests {
    use super::super::received::tests::LINE;
    use super::*;

    fn frame(seq: u32) -> Vec<u8> {
        let record = Record {
            seq,
            t_ms: 200 * seq,
            valence: None,
            arousal: None,
            confidence: None,
            from_face: false,
            from_voice: false,
            face: None,
            voice: None,
            paused: false,
            latency_ms: None,
        };
        let mut bytes = Vec::new();
        Message::Estimate(record).encode(&mut bytes);
        bytes
    }

    /// The sequence numbers of the estimates, and how many lines or frames are invalid.
    fn read(stream: &[u8]) -> (Vec<u64>, usize) {
        let (mut numbers, mut invalid) = (Vec::new(), 0);
        for received in StreamDecoder::default().push(stream) {
            match received {
                Received::Estimate(reading) => numbers.push(reading.seq),
                Received::Unrecognized(_) => invalid += 1,
                _ => {}
            }
        }
        (numbers, invalid)
    }

    #[test]
    fn the_form_is_recognized_and_may_change() {
        let line = format!("{LINE}\n").into_bytes();
        // A capture begins in the middle of a frame, whose bytes may be line ends.
        let torn = [&b"\x0a\x07\x0a\x90\x0a"[..], &frame(1)[9..]].concat();
        let frames = [torn, frame(2), frame(3)].concat();
        assert_eq!(read(&frames), (vec![2, 3], 0));
        assert_eq!(read(&[&frames[..], &line, &line].concat()).0, [2, 3, 1042, 1042]);
        assert_eq!(read(&[&line[..], &frame(4), &frame(5)].concat()).0, [1042, 4, 5]);
        assert_eq!(read(&[&line[..], b"torn\n", &line].concat()), (vec![1042, 1042], 1));
    }

    #[test]
    fn bytes_of_another_program_are_noise() {
        let noise: Vec<u8> = (0..2000u32).map(|k| (k * 167 % 251).to_le_bytes()[0]).collect();
        let received = StreamDecoder::default().push(&noise);
        assert!(
            !received.is_empty() && received.iter().all(|one| *one == Received::Noise),
            "{received:?}"
        );
    }

    #[test]
    fn frames_are_read_like_lines() {
        let record = Record {
            seq: 7,
            t_ms: 1400,
            valence: Some(-5000),
            arousal: Some(10_000),
            confidence: None,
            from_face: false,
            from_voice: true,
            face: None,
            voice: None,
            paused: true,
            latency_ms: Some(12),
        };
        let mut frames = vec![0];
        Message::Estimate(record).encode(&mut frames);
        // The same frame again, with one wrong bit.
        let whole = frames.len();
        Message::Estimate(record).encode(&mut frames);
        frames[whole + 9] ^= 2;
        let received = StreamDecoder::default().push(&frames);
        let Received::Estimate(reading) = &received[0] else {
            panic!("{received:?}")
        };
        assert_eq!(
            (reading.seq, reading.t, reading.valence, reading.arousal),
            (7, 1.4, Some(-0.5), Some(1.0))
        );
        assert_eq!(reading.modalities, ["voice"]);
        assert_eq!(received[1..], [Received::Unrecognized(Unrecognized::Frame)]);
    }
}
