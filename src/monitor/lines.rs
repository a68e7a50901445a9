//! Messages as lines of text: JSON, CSV, and what other programs have recorded of them.

use super::received::{Expressions, Face, Reading, Received, Voice};
use super::shown_device::ShownDevice;
use super::unrecognized::Unrecognized;
use crate::face::EXPRESSIONS;
use crate::output::csv;
use crate::output::mqtt::subscriber::IndexMessage;

/// Splits a stream of bytes into lines, and reads each. A last line without a line end is dropped.
#[derive(Debug)]
pub struct LineSplitter {
    line: Line,
    /// The columns of CSV rows.
    columns: Vec<String>,
    /// The device of a dump of MQTT messages.
    device: ShownDevice,
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
            device: ShownDevice::default(),
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

    fn parse(&mut self, line: &[u8]) -> Vec<Received> {
        match str::from_utf8(line)
            .ok()
            .filter(|text| !is_own_log(text))
            .and_then(published)
        {
            Some((topic, payload)) => self.published(topic, payload),
            None => self.parse_line(line).into_iter().collect(),
        }
    }

    fn parse_line(&mut self, line: &[u8]) -> Option<Received> {
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
        recorded(text).or_else(|| Some(Received::Unrecognized(Unrecognized::of_line(line))))
    }

    /// A message of MQTT. Those of other devices and of other kinds are ignored.
    fn published(&mut self, topic: &str, payload: &str) -> Vec<Received> {
        match IndexMessage::of(topic, payload.as_bytes()) {
            IndexMessage::Device(base) => return vec![Received::Device(base)],
            IndexMessage::NoEntry => return Vec::new(),
            IndexMessage::Other => {}
        }
        let Some((base, kind)) = topic.rsplit_once('/') else {
            return Vec::new();
        };
        let received = match kind {
            "status" if matches!(payload, "online" | "offline") => {
                Some(Received::Status(format!("the device is {payload}")))
            }
            "estimate" | "health" if payload.starts_with('{') => Received::from_json(payload.as_bytes()),
            _ => None,
        };
        received.map_or(Vec::new(), |received| self.device.choose(base, received))
    }
}

/// The last parts of the topics of a device, and of its announcement to Home Assistant.
const KINDS: [&str; 8] = [
    "estimate", "health", "status", "state", "command", "response", "board", "config",
];

/// The topic and the payload of a line of `mosquitto_sub -v`, perhaps after a time.
fn published(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let mut rest = line;
    // A payload may contain anything.
    while !rest.starts_with('{') {
        let (word, after) = rest.split_once(' ')?;
        let kind = word.rsplit_once('/').map(|(_, kind)| kind);
        if kind.is_some_and(|kind| KINDS.contains(&kind)) || IndexMessage::of(word, b"") != IndexMessage::Other {
            return Some((word, after.trim_start()));
        }
        rest = after;
    }
    None
}

/// A message that another program has recorded after a time, such as a line of a journal.
fn recorded(text: &str) -> Option<Received> {
    let start = text.find(" {")? + 1;
    match Received::from_json(&text.as_bytes()[start..])? {
        Received::Unrecognized(Unrecognized::Text(_) | Unrecognized::Json(_)) => None,
        received => Some(received),
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
            // Again, with the first estimate.
            Received::Status("the device is online".into()),
            Received::from_json(LINE.as_bytes()).unwrap(),
            Received::LeftOut {
                shown: "affectd/hall".into(),
                device: "affectd/den".into(),
            },
        ];
        assert_eq!(read(&dump), expected);
    }

    #[test]
    fn all_topics_of_affectd_are_known_and_none_is_an_invalid_line() {
        let dump = "affectd/boards/affectd0123456789abcdef/hall {\"status\":\"affectd/hall/status\",\"discovery\":null}\n\
                    affectd/boards/affectd0123456789abcdef/old (null)\n\
                    affectd/hall/board affectd0123456789abcdef\naffectd/hall/command rate 5\naffectd/hall/status (null)\n\
                    affectd/hall/health (null)\naffectd/hall/response {\"error\":\"unknown command\"}\n\
                    2026-11-30T19:03:19+0000 affectd/hall/state {\"schema\":1}\nhomeassistant/status online\n\
                    homeassistant/device/affectd0123456789abcdef_hall/config {\"dev\":{}}\n";
        let expected = [
            Received::Device("affectd/hall".into()),
            Received::Status("the device is online".into()),
        ];
        assert_eq!(read(dump), expected);
        // The status of another program does not hide the estimates.
        let received = read(&format!("homeassistant/status online\naffectd/hall/estimate {LINE}\n"));
        assert!(
            matches!(received[..], [Received::Status(_), Received::Estimate(_)]),
            "{received:?}"
        );
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
