//! What the monitor receives: estimates, health reports and invalid lines.

use serde::Deserialize;
use serde_json::Value;

use crate::health::HealthReport;
use crate::output::csv;

/// The fields of an estimate that the monitor shows. Other fields are ignored, so estimates of newer devices can be read.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Reading {
    pub seq: u64,
    /// Seconds on the source's clock.
    pub t: f64,
    pub valence: Option<f32>,
    pub arousal: Option<f32>,
    pub confidence: Option<f32>,
    #[serde(default)]
    pub modalities: Vec<String>,
    pub face: Option<Face>,
    pub voice: Option<Voice>,
    /// The devices are closed on request.
    #[serde(default)]
    pub paused: bool,
    pub latency_ms: Option<u64>,
}

impl Reading {
    /// The longest time, 31 years.
    const MAX_T: f64 = 1e9;

    /// Whether all numbers are in the ranges that affectd sends. Others would spoil the plot.
    fn is_in_range(&self) -> bool {
        let within = |value: Option<f32>, low: f32| value.is_none_or(|value| (low..=1.0).contains(&value));
        (0.0..=Reading::MAX_T).contains(&self.t)
            && within(self.valence, -1.0)
            && within(self.arousal, -1.0)
            && within(self.confidence, 0.0)
            && within(self.face.as_ref().map(|face| face.score), 0.0)
            && self
                .voice
                .as_ref()
                .and_then(|voice| voice.level_db)
                .is_none_or(f32::is_finite)
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Face {
    pub id: u32,
    pub score: f32,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Voice {
    pub active: bool,
    pub level_db: Option<f32>,
}

/// One event of a source.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    Estimate(Reading),
    Health(HealthReport),
    /// A line that is not JSON, an estimate with a number out of range, or an invalid frame.
    Invalid,
    /// The state of the source: connected, lost.
    Status(String),
    /// A device uses the broker, with this base topic.
    Device(String),
    /// The end of the source.
    End,
}

impl Received {
    fn of_reading(reading: Reading) -> Received {
        match reading.is_in_range() {
            true => Received::Estimate(reading),
            false => Received::Invalid,
        }
    }

    /// Parses a JSON line. `None` for lines that the monitor ignores: empty lines and answers to commands.
    pub fn from_json(line: &[u8]) -> Option<Received> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        let Ok(Value::Object(object)) = serde_json::from_slice(line) else {
            return Some(Received::Invalid);
        };
        let has = |key| object.contains_key(key);
        if has("seq") {
            Some(parsed(object, Received::of_reading))
        } else if has("uptime_s") {
            Some(parsed(object, Received::Health))
        } else {
            None
        }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(
    object: serde_json::Map<String, Value>,
    received: fn(T) -> Received,
) -> Received {
    serde_json::from_value(Value::Object(object)).map_or(Received::Invalid, received)
}

/// Splits a stream of bytes into lines of JSON or CSV. A last line without a line end is dropped.
#[derive(Debug)]
pub struct LineSplitter {
    line: Line,
    /// The columns of CSV rows.
    columns: Vec<String>,
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

    /// Forgets a part of a line.
    pub fn restart(&mut self) {
        self.line = Line::Kept(Vec::new());
    }

    fn extend_line(&mut self, piece: &[u8]) -> Option<Received> {
        let Line::Kept(line) = &mut self.line else {
            return None;
        };
        if line.len() + piece.len() > LineSplitter::MAX_LINE_BYTES {
            self.line = Line::Skipped;
            return Some(Received::Invalid);
        }
        line.extend_from_slice(piece);
        None
    }

    fn parse(&mut self, line: &[u8]) -> Option<Received> {
        let text = line.trim_ascii();
        let is_json = text.starts_with(b"{");
        let Ok(text) = str::from_utf8(text) else {
            return Some(Received::Invalid);
        };
        if is_json || text.is_empty() {
            return Received::from_json(line);
        }
        if text.starts_with("seq,") {
            self.columns = columns(text);
            return None;
        }
        let reading = from_csv(&self.columns, text);
        Some(reading.map_or(Received::Invalid, Received::of_reading))
    }
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
        paused: is_set("paused"),
        latency_ms: cell("latency_ms").and_then(|ms| ms.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &str = r#"{"schema":1,"seq":1042,"t":208.4,"time":null,"valence":0.42,"arousal":0.18,"confidence":0.81,"modalities":["face","voice"],"face":{"id":3,"box":[0.31,0.22,0.18,0.24],"score":0.97},"voice":{"active":true,"level_db":-23.1},"expression":{"happiness":0.83},"latency_ms":41}"#;

    #[test]
    fn estimates_health_reports_and_answers_are_distinguished() {
        let Some(Received::Estimate(reading)) = Received::from_json(LINE.as_bytes()) else {
            panic!()
        };
        assert_eq!(
            (reading.seq, reading.valence, reading.latency_ms),
            (1042, Some(0.42), Some(41))
        );
        let health = br#"{"schema":1,"uptime_s":60,"camera":"running","temperature_c":48.0,"problem":null}"#;
        assert!(matches!(
            Received::from_json(health),
            Some(Received::Health(HealthReport { uptime_s: 60, .. }))
        ));
        assert_eq!(Received::from_json(br#"{"ok":"pong"}"#), None);
        assert_eq!(Received::from_json(b"\r\n"), None);
        assert_eq!(Received::from_json(&LINE.as_bytes()[40..]), Some(Received::Invalid));
    }

    #[test]
    fn numbers_that_no_device_sends_are_invalid() {
        for (field, value) in [
            ("t", "-0.1"),
            ("t", "1e308"),
            ("valence", "1.01"),
            ("arousal", "-1e39"),
            ("confidence", "-0.01"),
        ] {
            let line = format!(r#"{{"seq":1,"t":0.2,"{field}":{value}}}"#).replace(r#""t":0.2,"t""#, r#""t""#);
            assert_eq!(Received::from_json(line.as_bytes()), Some(Received::Invalid), "{line}");
        }
        let rows = b"seq,t,valence\n1,0.2,nan\n2,inf,0\n3,0.4,1\n";
        let received = LineSplitter::default().push(rows);
        assert_eq!(received[..2], [Received::Invalid, Received::Invalid]);
        assert!(matches!(received[2..], [Received::Estimate(_)]));
    }

    #[test]
    fn a_line_that_is_too_long_is_one_invalid_line_however_the_stream_is_cut() {
        let long = vec![b'x'; 3 * LineSplitter::MAX_LINE_BYTES];
        let stream = [&long[..], b"\n", LINE.as_bytes(), b"\n"].concat();
        let expected = [Received::Invalid, Received::from_json(LINE.as_bytes()).unwrap()];
        for cut in [1, 8192, 100_000, stream.len()] {
            let mut splitter = LineSplitter::default();
            let received: Vec<Received> = stream.chunks(cut).flat_map(|piece| splitter.push(piece)).collect();
            assert_eq!(received, expected, "{cut}");
        }
        // Noise without a line end is counted while it lasts.
        assert_eq!(LineSplitter::default().push(&long), [Received::Invalid]);
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
            prop_assert_eq!(&received[1], &Received::Invalid);
            prop_assert_eq!(&received[0], &received[2]);
        }
    }
}
