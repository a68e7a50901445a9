//! What was heard so far, in the form that is shown.

use std::collections::VecDeque;

use super::reading::{Health, Heard, Reading};

/// The time series goes back so far, in seconds.
pub const SERIES_S: f64 = 60.0;
/// The session's plot keeps so many points; of a longer session every other, again and again.
const MOST_POINTS: usize = 100_000;

/// A moment: seconds on the source's clock, and how somebody seemed to feel, if that was known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    pub t: f64,
    pub affect: Option<(f32, f32)>,
}

#[derive(Debug)]
pub struct Session {
    /// What is read, in the user's words.
    pub source: String,
    pub last: Option<Reading>,
    pub health: Option<Health>,
    pub note: String,
    /// Sequence numbers that never came.
    pub missed: u64,
    /// Estimates that came again.
    pub repeated: u64,
    /// Records that were broken.
    pub garbled: u64,
    pub estimates: u64,
    pub ended: bool,
    recent: VecDeque<Moment>,
    all: Vec<Moment>,
    /// Of so many moments one goes into `all`.
    stride: u64,
}

impl Session {
    pub fn new(source: String) -> Session {
        Session {
            source,
            last: None,
            health: None,
            note: "waiting".into(),
            missed: 0,
            repeated: 0,
            garbled: 0,
            estimates: 0,
            ended: false,
            recent: VecDeque::new(),
            all: Vec::new(),
            stride: 1,
        }
    }

    pub fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Estimate(reading) => self.estimate(reading),
            Heard::Health(health) => self.health = Some(health),
            Heard::Garbled => self.garbled += 1,
            Heard::Note(note) => self.note = note,
            Heard::End => {
                self.ended = true;
                self.note = "ended".into();
            }
        }
    }

    fn estimate(&mut self, reading: Reading) {
        if let Some(last) = &self.last {
            if reading.seq == last.seq {
                self.repeated += 1;
                return;
            }
            if reading.seq > last.seq {
                self.missed += reading.seq - last.seq - 1;
            } else {
                // The device began anew: its clock did, too.
                self.recent.clear();
            }
        }
        let moment = Moment {
            t: reading.t,
            affect: reading.valence.zip(reading.arousal),
        };
        self.recent.push_back(moment);
        while self.recent.front().is_some_and(|m| reading.t - m.t > SERIES_S) {
            self.recent.pop_front();
        }
        if self.estimates.is_multiple_of(self.stride) {
            self.all.push(moment);
        }
        if self.all.len() >= MOST_POINTS {
            let mut keep = false;
            self.all.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
        self.estimates += 1;
        self.last = Some(reading);
    }

    /// The last minute, oldest first.
    pub fn recent(&self) -> impl DoubleEndedIterator<Item = &Moment> {
        self.recent.iter()
    }

    /// The whole session, oldest first.
    pub fn all(&self) -> &[Moment] {
        &self.all
    }

    /// The newest estimate as text.
    pub fn line(&self) -> String {
        let Some(last) = &self.last else {
            return self.note.clone();
        };
        let number = |value: Option<f32>| value.map_or("    –".into(), |v| format!("{v:+.2}"));
        let modalities = match last.modalities.is_empty() {
            true => "nobody".into(),
            false => last.modalities.join("+"),
        };
        let confidence = last.confidence.map_or("   –".into(), |c| format!("{c:.2}"));
        format!(
            "{:9.1} s  valence {}  arousal {}  confidence {confidence}  {modalities:10}  missed {}  garbled {}",
            last.t,
            number(last.valence),
            number(last.arousal),
            self.missed,
            self.garbled
        )
    }
}

#[cfg(test)]
pub mod samples {
    use super::*;
    use crate::monitor::reading::{Face, Voice};

    pub fn reading(seq: u64) -> Reading {
        let angle = seq as f32 / 20.0;
        Reading {
            seq,
            t: seq as f64 / 5.0,
            valence: Some(0.8 * angle.cos()),
            arousal: Some(0.8 * angle.sin()),
            confidence: Some(0.81),
            modalities: vec!["face".into(), "voice".into()],
            face: Some(Face { id: 3, score: 0.97 }),
            voice: Some(Voice {
                active: true,
                level_db: Some(-23.1),
            }),
            latency_ms: Some(41),
        }
    }

    /// A minute, with one estimate that is missing and one broken line.
    pub fn session() -> Session {
        let mut session = Session::new("mqtt://broker/affectd/kitchen".into());
        for seq in (1..=300).filter(|seq| *seq != 100) {
            session.take(Heard::Estimate(reading(seq)));
        }
        session.take(Heard::Garbled);
        session.take(Heard::Health(Health {
            uptime_s: 3700,
            temperature_c: Some(48.3),
            problem: None,
        }));
        session.take(Heard::Note("connected".into()));
        session
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{reading, session};
    use super::*;

    #[test]
    fn missing_repeated_and_broken_ones_are_counted() {
        let mut session = session();
        session.take(Heard::Estimate(reading(300)));
        assert_eq!((session.missed, session.repeated, session.garbled), (1, 1, 1));
        // A device that begins anew has missed nothing.
        session.take(Heard::Estimate(reading(1)));
        assert_eq!(session.missed, 1);
    }

    #[test]
    fn the_series_goes_back_a_minute() {
        let mut session = session();
        session.take(Heard::Estimate(reading(600)));
        let oldest = session.recent().next().unwrap().t;
        assert!(oldest >= 60.0, "{oldest}");
    }

    #[test]
    fn a_session_however_long_fits_into_memory_and_keeps_its_ends() {
        let mut session = Session::new(String::new());
        for seq in 1..=250_000 {
            session.take(Heard::Estimate(reading(seq)));
        }
        assert!(session.all().len() < MOST_POINTS);
        assert_eq!(session.all()[0].t, 0.2);
        assert!(session.all().last().unwrap().t > 49_990.0);
    }

    #[test]
    fn a_line_of_text_says_what_is_known() {
        insta::assert_snapshot!(session().line(), @"     60.0 s  valence -0.61  arousal +0.52  confidence 0.81  face+voice  missed 1  garbled 1");
        let mut nobody = Session::new(String::new());
        nobody.take(Heard::Estimate(Reading {
            seq: 1,
            t: 0.2,
            ..Reading::default()
        }));
        insta::assert_snapshot!(nobody.line(), @"      0.2 s  valence     –  arousal     –  confidence    –  nobody      missed 0  garbled 0");
    }
}
