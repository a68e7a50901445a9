//! What a reader gets: estimates, health records, and what is neither.

use serde::Deserialize;

/// An estimate as it stands on the wire. Fields that are not here are ignored, so that newer devices can be read.
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
    pub latency_ms: Option<u64>,
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

/// How a device says it is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Health {
    pub uptime_s: u64,
    pub temperature_c: Option<f32>,
    pub problem: Option<String>,
}

/// One thing that came.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Estimate(Reading),
    Health(Health),
    /// A line that is no record, or a frame whose checksum is wrong.
    Garbled,
    /// How the source is: connected, gone, over.
    Note(String),
    /// Nothing more comes.
    End,
}

impl Heard {
    /// What a JSON line says; `None` for what is neither wanted nor broken, such as an empty line or an answer.
    pub fn of_json(line: &[u8]) -> Option<Heard> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return None;
        }
        if let Ok(reading) = serde_json::from_slice(line) {
            return Some(Heard::Estimate(reading));
        }
        if let Ok(health) = serde_json::from_slice(line) {
            return Some(Heard::Health(health));
        }
        match serde_json::from_slice::<serde_json::Value>(line) {
            Ok(value) if value.is_object() => None,
            _ => Some(Heard::Garbled),
        }
    }
}

/// Cuts a stream into lines. What is left at the end is no whole line, and is not given.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// No record is nearly so long: beyond it there is no line end to be hoped for.
    const LONGEST: usize = 64 * 1024;

    /// Takes in the next piece, and gives what is now whole.
    pub fn take(&mut self, piece: &[u8]) -> Vec<Heard> {
        self.0.extend_from_slice(piece);
        let mut heard = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            heard.extend(Heard::of_json(&line));
        }
        if self.0.len() > Lines::LONGEST {
            self.0.clear();
            heard.push(Heard::Garbled);
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &str = r#"{"schema":1,"seq":1042,"t":208.4,"time":null,"valence":0.42,"arousal":0.18,"confidence":0.81,"modalities":["face","voice"],"face":{"id":3,"box":[0.31,0.22,0.18,0.24],"score":0.97},"voice":{"active":true,"level_db":-23.1},"expression":{"happiness":0.83},"latency_ms":41}"#;

    #[test]
    fn an_estimate_a_health_record_and_an_answer_are_told_apart() {
        let Some(Heard::Estimate(reading)) = Heard::of_json(LINE.as_bytes()) else {
            panic!()
        };
        assert_eq!(
            (reading.seq, reading.valence, reading.latency_ms),
            (1042, Some(0.42), Some(41))
        );
        let health = br#"{"schema":1,"uptime_s":60,"camera":"running","temperature_c":48.0,"problem":null}"#;
        assert!(matches!(
            Heard::of_json(health),
            Some(Heard::Health(Health { uptime_s: 60, .. }))
        ));
        assert_eq!(Heard::of_json(br#"{"ok":"pong"}"#), None);
        assert_eq!(Heard::of_json(b"\r\n"), None);
        assert_eq!(Heard::of_json(&LINE.as_bytes()[40..]), Some(Heard::Garbled));
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_lines_are_the_same(cuts in proptest::collection::vec(1usize..80, 1..20)) {
            let stream = format!("{LINE}\nrubbish\n{LINE}\n");
            let mut lines = Lines::default();
            let mut heard = Vec::new();
            let mut rest = stream.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                heard.extend(lines.take(piece));
                rest = after;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(heard.len(), 3);
            prop_assert_eq!(&heard[1], &Heard::Garbled);
            prop_assert_eq!(&heard[0], &heard[2]);
        }
    }
}
