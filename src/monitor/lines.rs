//! Messages as lines of text: JSON, CSV, and what other programs have recorded of them.

use super::received::{Expressions, Face, Reading, Received, Voice};
use super::unrecognized::Unrecognized;
use crate::face::EXPRESSIONS;
use crate::output::csv;

/// Splits a stream of bytes into lines, and reads each. A last line without a line end is dropped.
#[derive(Debug)]
pub struct LineSplitter {
    line: Line,
    /// The columns of CSV rows.
    columns: Vec<String>,
    /// The topic of the first device in a dump of MQTT messages. Those of others are ignored.
    device: Option<String>,
}

/// The line that has not ended yet.
#[derive(Debug)]
enum Line {
    Kept(Vec<u8>),
    /// It is too long, and has been counted as invalid.
    Skipped,
}

impl Default for LineSplitter {
    fn default() -> LineSplitter {
        LineSplitter {
            line: Line::Kept(Vec::new()),
            columns: columns(csv::HEADER),
            device: None,
        }
    }
}

impl LineSplitter {
    /// The longest line, in bytes. Messages are far shorter.
    const MAX_LINE_BYTES: usize = 64 * 1024;

    /// Adds the next bytes and returns what the completed lines contain.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Received> {
        let mut received = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            received.extend(self.extend_line(piece));
            let ended = pieces.peek().is_some();
            if ended && let Line::Kept(line) = std::mem::replace(&mut self.line, Line::Kept(Vec::new())) {
                received.extend(self.parse(&line));
            }
        }
        received
    }

    /// Forgets the line that has not ended: it was a frame.
    pub fn forget_line(&mut self) {
        self.line = Line::Kept(Vec::new());
    }

    fn extend_line(&mut self, piece: &[u8]) -> Option<Received> {
        let Line::Kept(line) = &mut self.line else {
            return None;
        };
        if line.len() + piece.len() > LineSplitter::MAX_LINE_BYTES {
            self.line = Line::Skipped;
            return Some(Received::Unrecognized(Unrecognized::TooLong));
        }
        line.extend_from_slice(piece);
        None
    }

    fn parse(&mut self, line: &[u8]) -> Option<Received> {
        let bytes = Received::Unrecognized(Unrecognized::Bytes);
        let Ok(text) = str::from_utf8(line.trim_ascii()) else {
            return Some(bytes);
        };
        let is_text = !text.contains(is_never_in_text);
        if text.starts_with('{') || text.is_empty() {
            // JSON may hold control characters above 0x7e.
            return match Received::from_json(line) {
                Some(Received::Unrecognized(Unrecognized::Text(_))) if !is_text => Some(bytes),
                received => received,
            };
        }
        if !is_text {
            return Some(bytes);
        }
        if text.starts_with("seq,") {
            self.columns = columns(text);
            return None;
        }
        if is_own_log(text) {
            return Some(Received::Unrecognized(Unrecognized::Log));
        }
        if text.split(',').count() == self.columns.len() {
            let reading = from_csv(&self.columns, text);
            let damaged = Received::Unrecognized(Unrecognized::Damaged);
            return Some(reading.map_or(damaged, Received::of_reading));
        }
        self.recorded(text)
            .unwrap_or_else(|| Some(Received::Unrecognized(Unrecognized::of_line(line))))
    }

    /// A message that another program has recorded, after a time or the topic of MQTT: a line of a journal, or of
    /// `mosquitto_sub -v`. `None` if it is none, and `Some(None)` if it is ignored.
    fn recorded(&mut self, text: &str) -> Option<Option<Received>> {
        let (before, payload) = match text.split_once(" {") {
            Some((before, _)) => (before, &text[before.len() + 1..]),
            None => text.rsplit_once(' ')?,
        };
        let topic = before.rsplit(' ').next().and_then(|word| word.rsplit_once('/'));
        let received = match topic {
            Some((_, "status")) if matches!(payload, "online" | "offline") => {
                Some(Received::Status(format!("the device is {payload}")))
            }
            Some((_, "state" | "response" | "config" | "board" | "command")) => None,
            _ if !payload.starts_with('{') => return None,
            _ => match Received::from_json(payload.as_bytes()) {
                Some(Received::Unrecognized(Unrecognized::Text(_) | Unrecognized::Json(_))) => return None,
                received => received,
            },
        };
        let Some((base, _)) = topic else {
            return Some(received);
        };
        let is_shown = self.device.get_or_insert_with(|| base.to_owned()) == base;
        Some(received.filter(|_| is_shown))
    }
}

/// Control characters except tabs, and escape sequences, which colour a log.
fn is_never_in_text(character: char) -> bool {
    character.is_control() && !matches!(character, '\t' | '\u{1b}')
}

/// Whether this is a line of the log of affectd: in a terminal or a file, or with a priority for the journal.
fn is_own_log(text: &str) -> bool {
    let in_file = || {
        let (time, after) = text.strip_prefix('[')?.split_once(' ')?;
        let (level, _) = after.split_once(' ')?;
        Some(time.ends_with('Z') && matches!(level, "ERROR" | "WARN" | "INFO" | "DEBUG" | "TRACE"))
    };
    let in_journal = || {
        let (priority, _) = text.strip_prefix('<')?.split_once('>')?;
        Some(matches!(priority, "3" | "4" | "6" | "7"))
    };
    in_file().or_else(in_journal).unwrap_or(false)
}

fn columns(header: &str) -> Vec<String> {
    header.split(',').map(|name| name.trim().to_owned()).collect()
}

/// An estimate as a row of comma-separated values. Unknown columns are ignored.
fn from_csv(columns: &[String], row: &str) -> Option<Reading> {
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    if cells.len() != columns.len() {
        return None;
    }
    let cell = |name: &str| {
        let at = columns.iter().position(|column| column == name)?;
        (!cells[at].is_empty()).then(|| cells[at])
    };
    let number = |name: &str| cell(name)?.parse::<f32>().ok();
    let is_set = |name: &str| cell(name) == Some("1");
    let modalities = [("from_face", "face"), ("from_voice", "voice")];
    Some(Reading {
        seq: cell("seq")?.parse().ok()?,
        t: cell("t")?.parse().ok()?,
        valence: number("valence"),
        arousal: number("arousal"),
        confidence: number("confidence"),
        modalities: modalities
            .iter()
            .filter(|(column, _)| is_set(column))
            .map(|(_, name)| name.to_string())
            .collect(),
        face: cell("face_id").and_then(|id| id.parse().ok()).map(|id| Face {
            id,
            score: number("face_score").unwrap_or_default(),
        }),
        voice: cell("voice_active").map(|_| Voice {
            active: is_set("voice_active"),
            level_db: number("voice_level_db"),
        }),
        expression: cell("expression_neutral")
            .map(|_| Expressions(EXPRESSIONS.map(|name| number(&format!("expression_{name}")).unwrap_or_default()))),
        paused: is_set("paused"),
        latency_ms: cell("latency_ms").and_then(|ms| ms.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::received::tests::LINE;
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<Received> {
        LineSplitter::default().push(text.as_bytes())
    }

    #[test]
    fn numbers_that_no_device_sends_are_invalid() {
        let damaged = Received::Unrecognized(Unrecognized::Damaged);
        let rows = b"seq,t,valence\n1,0.2,nan\n2,inf,0\n3,0.4,1\n";
        let received = LineSplitter::default().push(rows);
        assert_eq!(received[..2], [damaged.clone(), damaged]);
        assert!(matches!(received[2..], [Received::Estimate(_)]));
    }

    #[test]
    fn recorded_messages_are_read() {
        let estimate = [Received::from_json(LINE.as_bytes()).unwrap()];
        for before in [
            "Nov 30 19:03:19 pi affectd[812]: ",
            "2026-11-30T19:03:19+0000 ",
            "affectd/hall/estimate ",
            "1795510800.123 affectd/hall/estimate ",
        ] {
            assert_eq!(read(&format!("{before}{LINE}\n")), estimate, "{before}");
        }
        let log = "[2026-11-30T19:03:19Z INFO  affectd::daemon] camera: running\n<6>microphone: running\n";
        assert_eq!(read(log), [(); 2].map(|()| Received::Unrecognized(Unrecognized::Log)));
    }

    #[test]
    fn of_a_dump_of_a_broker_the_first_device_is_read() {
        let dump = format!(
            "affectd/hall/status online\naffectd/hall/estimate {LINE}\naffectd/den/estimate {LINE}\n\
             affectd/hall/state {{\"schema\":1,\"valence\":0.4}}\nhomeassistant/device/hall/config {{\"dev\":{{}}}}\n\
             affectd/hall/response {{\"ok\":\"pong\"}}\naffectd/den/status offline\n"
        );
        let expected = [
            Received::Status("the device is online".into()),
            Received::from_json(LINE.as_bytes()).unwrap(),
        ];
        assert_eq!(read(&dump), expected);
    }

    #[test]
    fn lines_of_other_programs_are_described() {
        let described = |text: &str| match &read(text)[..] {
            [Received::Unrecognized(what)] => what.to_string(),
            other => panic!("{other:?}"),
        };
        insta::assert_snapshot!(described("Nov 30 19:03:19 pi sshd[812]: Accepted publickey for pi from 192.168.0.7\n"), @"text such as “Nov 30 19:03:19 pi sshd[812]: Accepted p…”");
        insta::assert_snapshot!(described("zigbee2mqtt/lamp {\"state\":\"ON\",\"linkquality\":87}\n"), @"text such as “zigbee2mqtt/lamp {\"state\":\"ON\",\"linkqual…”");
        insta::assert_snapshot!(described("{\"temperature\":21.5,\"humidity\":40}\n"), @"JSON of another program, with the fields humidity, temperature");
        insta::assert_snapshot!(described("$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\n"), @"text such as “$GPGGA,123519,4807.038,N,01131.000,E,1,0…”");
        assert_eq!(read("\u{0}\u{1}\u{2}\n"), [Received::Unrecognized(Unrecognized::Bytes)]);
    }

    #[test]
    fn a_line_that_is_too_long_is_one_invalid_line_however_the_stream_is_cut() {
        let long = vec![b'x'; 3 * LineSplitter::MAX_LINE_BYTES];
        let stream = [&long[..], b"\n", LINE.as_bytes(), b"\n"].concat();
        let too_long = Received::Unrecognized(Unrecognized::TooLong);
        let expected = [too_long.clone(), Received::from_json(LINE.as_bytes()).unwrap()];
        for cut in [1, 8192, 100_000, stream.len()] {
            let mut splitter = LineSplitter::default();
            let received: Vec<Received> = stream.chunks(cut).flat_map(|piece| splitter.push(piece)).collect();
            assert_eq!(received, expected, "{cut}");
        }
        // Noise without a line end is counted while it lasts.
        assert_eq!(LineSplitter::default().push(&long), [too_long]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_stream_is_cut(cuts in proptest::collection::vec(1usize..80, 1..20)) {
            let stream = format!("{LINE}\ngarbage\n{LINE}\n");
            let mut splitter = LineSplitter::default();
            let mut received = Vec::new();
            let mut rest = stream.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                received.extend(splitter.push(piece));
                rest = after;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(received.len(), 3);
            prop_assert_eq!(&received[1], &Received::Unrecognized(Unrecognized::Text("garbage".into())));
            prop_assert_eq!(&received[0], &received[2]);
        }
    }
}
