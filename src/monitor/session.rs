//! What the monitor has received so far, in the form that is shown.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::received::{Reading, Received};
use super::unrecognized::Unrecognized;
use crate::health::HealthReport;

/// The length of the time series, in seconds.
pub const SERIES_S: f64 = 60.0;
/// The most points of the time series, for a device whose clock does not advance.
const MAX_RECENT: usize = 6000;
/// After this time without an estimate, the user is told what to check.
const SILENCE: Duration = Duration::from_secs(5);
/// After this time without an estimate, the estimates have stopped, however few came before.
const MAX_SILENCE: Duration = Duration::from_secs(300);
/// How many devices are named that use the broker.
const MAX_DEVICES: usize = 8;
/// The most points that the plot of a session keeps. When it is reached, every other point is dropped.
const MAX_POINTS: usize = 100_000;

/// A point of the time series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds on the source's clock.
    pub t: f64,
    pub affect: Option<Affect>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affect {
    /// −1 to 1.
    pub valence: f32,
    /// −1 to 1.
    pub arousal: f32,
}

#[derive(Debug)]
pub struct Session {
    /// The source, as the user named it.
    pub source: String,
    pub last: Option<Reading>,
    pub health: Option<HealthReport>,
    /// The state of the source.
    pub status: String,
    /// The status says that something is waited for.
    is_waiting: bool,
    /// Sequence numbers that are missing.
    pub missed: u64,
    /// Estimates that were received twice.
    pub repeated: u64,
    /// Invalid lines and frames.
    pub invalid_lines: u64,
    pub estimates: u64,
    pub ended: bool,
    /// The newest of what is not a message of affectd.
    unrecognized: Option<Unrecognized>,
    /// What to check if no estimates come.
    hint: &'static str,
    /// The base topics of devices that use the broker.
    devices: BTreeSet<String>,
    started: Instant,
    /// The user was told that no estimates come.
    told: bool,
    /// When the last estimate came.
    last_at: Option<Instant>,
    /// The time between the last two estimates, in seconds on the device's clock.
    interval_s: f64,
    /// How long no estimate has come, if that is too long.
    silent_for: Option<Duration>,
    /// Added to the source's clock, so that the time of the plot never goes back.
    offset: f64,
    recent: VecDeque<Moment>,
    all: Vec<Moment>,
    /// One of this many moments goes into `all`.
    stride: u64,
}

/// `None` if valence or arousal is unknown.
pub fn affect(reading: &Reading) -> Option<Affect> {
    Some(Affect {
        valence: reading.valence?,
        arousal: reading.arousal?,
    })
}

impl Session {
    /// `hint` tells what to check if no estimates come.
    pub fn new(source: String, hint: &'static str) -> Session {
        Session {
            source,
            last: None,
            health: None,
            status: "waiting".into(),
            is_waiting: true,
            missed: 0,
            repeated: 0,
            invalid_lines: 0,
            estimates: 0,
            ended: false,
            unrecognized: None,
            hint,
            devices: BTreeSet::new(),
            started: Instant::now(),
            told: false,
            last_at: None,
            interval_s: 0.0,
            silent_for: None,
            offset: 0.0,
            recent: VecDeque::new(),
            all: Vec::new(),
            stride: 1,
        }
    }

    pub fn receive(&mut self, received: Received) {
        match received {
            Received::Estimate(reading) => self.estimate(reading),
            Received::Health(health) => self.health = Some(health),
            Received::Unrecognized(what) => {
                self.invalid_lines += u64::from(what.is_fault());
                self.unrecognized = Some(what);
            }
            Received::Noise => {
                self.unrecognized.get_or_insert(Unrecognized::Bytes);
            }
            Received::Status(status) => {
                self.status = status;
                self.is_waiting = false;
            }
            Received::CaughtUp => {
                self.status = "at the end of the file, waits for more".into();
                self.is_waiting = true;
                if self.unrecognized.is_some() {
                    self.tell_silence();
                }
            }
            Received::Device(base) => {
                if self.devices.len() < MAX_DEVICES {
                    self.devices.insert(base);
                }
            }
            Received::LeftOut { shown, device } => {
                self.status = format!("shows {shown} only, not {device}: name the topic of the one that you want");
            }
            Received::End => {
                self.ended = true;
                self.status = "ended".into();
            }
        }
    }

    /// If no estimate has come for a while, sets the status to what the user may check, once.
    pub fn notice_silence(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        let silence = now.saturating_duration_since(self.last_at.unwrap_or(self.started));
        if self.last_at.is_none() {
            if silence >= SILENCE {
                self.tell_silence();
            }
        } else if silence >= self.longest_usual_silence() {
            let is_new = self.silent_for.replace(silence).is_none();
            self.is_waiting |= is_new;
            if is_new {
                self.status += ": the estimates have stopped: check that affectd runs and is connected";
            }
        }
    }

    /// The source, as messages name it.
    pub fn name(&self) -> &str {
        match self.source.as_str() {
            "-" => "standard input",
            other => other,
        }
    }

    /// How long none has come, if the estimates have stopped.
    pub fn silent_for(&self) -> Option<Duration> {
        self.silent_for
    }

    /// A device may send an estimate in a minute.
    fn longest_usual_silence(&self) -> Duration {
        Duration::from_secs_f64((3.0 * self.interval_s).min(MAX_SILENCE.as_secs_f64())).max(SILENCE)
    }

    fn tell_silence(&mut self) {
        if !self.told && !self.has_messages() {
            self.told = true;
            self.is_waiting = true;
            self.status = format!("{}: no estimates yet{}", self.status, self.why_silent());
        }
    }

    /// What came instead of a message of affectd, and what to do; `None` if a message came.
    pub fn why_nothing(&self) -> Option<String> {
        let why = || format!("no estimates{}", self.why_silent());
        (!self.has_messages()).then(why)
    }

    fn has_messages(&self) -> bool {
        self.estimates > 0 || self.health.is_some()
    }

    /// What came instead of estimates, and what to do.
    fn why_silent(&self) -> String {
        let seen = match (&self.unrecognized, self.invalid_lines) {
            (None, _) => String::new(),
            (Some(what), 0 | 1) => format!(", but {what}"),
            (Some(what), lines) => format!(", but {what} ({lines} invalid lines)"),
        };
        let mend = self.unrecognized.as_ref().and_then(Unrecognized::mend);
        let devices: Vec<&str> = self.devices.iter().map(String::as_str).collect();
        let known = match devices.is_empty() {
            true => String::new(),
            false => format!("; devices that use this broker: {}", devices.join(", ")),
        };
        format!("{seen}: {}{known}", mend.unwrap_or(self.hint))
    }

    fn estimate(&mut self, reading: Reading) {
        self.last_at = Some(Instant::now());
        self.silent_for = None;
        if let Some(last) = &self.last {
            self.interval_s = (reading.t - last.t).max(0.0) / reading.seq.saturating_sub(last.seq).max(1) as f64;
            if reading.seq == last.seq {
                self.repeated += 1;
                return;
            }
            if reading.seq > last.seq {
                self.missed = self.missed.saturating_add(reading.seq - last.seq - 1);
            }
            if reading.t < last.t {
                // The device has restarted, or its clock has wrapped, as that of frames does after 49 days.
                self.recent.clear();
                self.offset += last.t - reading.t;
            }
        }
        if std::mem::take(&mut self.is_waiting) {
            self.status = "receiving".into();
        }
        let moment = Moment {
            t: reading.t,
            affect: affect(&reading),
        };
        self.recent.push_back(moment);
        while self.recent.len() > MAX_RECENT || self.recent.front().is_some_and(|m| reading.t - m.t > SERIES_S) {
            self.recent.pop_front();
        }
        if self.estimates.is_multiple_of(self.stride) {
            self.all.push(Moment {
                t: moment.t + self.offset,
                ..moment
            });
        }
        if self.all.len() >= MAX_POINTS {
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
            return self.status.clone();
        };
        let number = |value: Option<f32>| value.map_or("    –".into(), |v| format!("{v:+.2}"));
        let modalities = match last.modalities.is_empty() {
            _ if last.paused => "paused".into(),
            true => "none".into(),
            false => last.modalities.join("+"),
        };
        let confidence = last.confidence.map_or("   –".into(), |c| format!("{c:.2}"));
        format!(
            "{:9.1} s  valence {}  arousal {}  confidence {confidence}  {modalities:10}  missed {}  invalid lines {}",
            last.t,
            number(last.valence),
            number(last.arousal),
            self.missed,
            self.invalid_lines
        )
    }
}

#[cfg(test)]
pub mod samples {
    use super::*;
    use crate::monitor::received::{Expressions, Face, Voice};

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
            expression: Some(Expressions([0.11, 0.83, 0.0, 0.0, 0.0, 0.0, 0.06, 0.0])),
            paused: false,
            latency_ms: Some(41),
        }
    }

    /// A minute, with one missing estimate and one invalid line.
    pub fn session() -> Session {
        let mut session = Session::new("mqtt://broker/affectd/kitchen".into(), "check the topic");
        for seq in (1..=300).filter(|seq| *seq != 100) {
            session.receive(Received::Estimate(reading(seq)));
        }
        session.receive(Received::Unrecognized(Unrecognized::Damaged));
        session.receive(Received::Health(HealthReport {
            uptime_s: 3700,
            temperature_c: Some(48.3),
            problem: None,
            ..HealthReport::default()
        }));
        session.receive(Received::Status("connected".into()));
        session
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{reading, session};
    use super::*;

    #[test]
    fn missing_repeated_and_invalid_lines_are_counted() {
        let mut session = session();
        session.receive(Received::Estimate(reading(300)));
        assert_eq!((session.missed, session.repeated, session.invalid_lines), (1, 1, 1));
        // Nothing is missing after a restart of the device.
        session.receive(Received::Estimate(reading(1)));
        assert_eq!(session.missed, 1);
    }

    #[test]
    fn the_time_series_covers_the_last_minute() {
        let mut session = session();
        session.receive(Received::Estimate(reading(600)));
        let oldest = session.recent().next().unwrap().t;
        assert!(oldest >= 60.0, "{oldest}");
    }

    #[test]
    fn a_long_session_keeps_a_limited_number_of_points_from_start_to_end() {
        let mut session = Session::new(String::new(), "");
        for seq in 1..=250_000 {
            session.receive(Received::Estimate(reading(seq)));
        }
        assert!(session.all().len() < MAX_POINTS);
        assert_eq!(session.all()[0].t, 0.2);
        assert!(session.all().last().unwrap().t > 49_990.0);
    }

    #[test]
    fn a_clock_that_goes_back_or_stands_keeps_the_time_series_and_the_plot_in_order() {
        let mut session = Session::new(String::new(), "");
        let at = |seq, t| Received::Estimate(Reading { seq, t, ..reading(seq) });
        session.receive(at(1, 4_294_967.2));
        session.receive(at(2, 0.1));
        assert_eq!(session.recent().count(), 1);
        for seq in 3..20_000 {
            session.receive(at(seq, 0.1));
        }
        assert_eq!(session.recent().count(), MAX_RECENT);
        assert!(session.all().is_sorted_by(|one, next| one.t <= next.t));
        session.receive(Received::Estimate(reading(u64::MAX)));
        session.receive(Received::Estimate(reading(1)));
        session.receive(Received::Estimate(reading(u64::MAX)));
        assert_eq!(session.missed, u64::MAX);
    }

    #[test]
    fn silence_is_noticed_once_with_what_came_and_what_to_check() {
        let mut session = Session::new("-".into(), "pipe something");
        let start = session.started;
        let text = || Received::Unrecognized(Unrecognized::of_line(b"login: "));
        session.receive(text());
        session.notice_silence(start);
        assert_eq!(session.status, "waiting");
        session.notice_silence(start + SILENCE);
        insta::assert_snapshot!(session.status, @"waiting: no estimates yet, but text such as “login:”: pipe something");
        session.receive(text());
        session.notice_silence(start + 2 * SILENCE);
        assert!(session.status.starts_with("waiting: no estimates yet, but text"));
        insta::assert_snapshot!(session.why_nothing().unwrap(), @"no estimates, but text such as “login:” (2 invalid lines): pipe something");
        let mut session = Session::new("mqtt://b/x".into(), "check the topic");
        for base in ["affectd/kitchen", "affectd/hall", "affectd/hall"] {
            session.receive(Received::Device(base.into()));
        }
        let later = session.started + SILENCE;
        session.notice_silence(later);
        insta::assert_snapshot!(session.status, @"waiting: no estimates yet: check the topic; devices that use this broker: affectd/hall, affectd/kitchen");
        let mut session = super::samples::session();
        let later = session.started + SILENCE;
        session.notice_silence(later);
        assert_eq!((session.status.as_str(), session.why_nothing()), ("connected", None));
    }

    #[test]
    fn estimates_that_stop_are_noticed_once_and_their_return_too() {
        let mut session = Session::new("mqtt://b/x".into(), "check the topic");
        session.receive(Received::Status("connected".into()));
        session.receive(Received::Estimate(reading(1)));
        let last = session.last_at.unwrap();
        session.notice_silence(last + SILENCE / 2);
        assert_eq!((session.status.as_str(), session.silent_for()), ("connected", None));
        session.notice_silence(last + SILENCE);
        let told = "connected: the estimates have stopped: check that affectd runs and is connected";
        assert_eq!((session.status.as_str(), session.silent_for()), (told, Some(SILENCE)));
        session.notice_silence(last + 9 * SILENCE);
        assert_eq!(
            (session.status.as_str(), session.silent_for()),
            (told, Some(9 * SILENCE))
        );
        session.receive(Received::Estimate(reading(2)));
        assert_eq!((session.status.as_str(), session.silent_for()), ("receiving", None));
        // Estimates every ten seconds on the clock of the device.
        session.receive(Received::Estimate(Reading { t: 10.4, ..reading(3) }));
        let last = session.last_at.unwrap();
        session.notice_silence(last + Duration::from_secs(29));
        assert_eq!(session.silent_for(), None);
        session.notice_silence(last + Duration::from_secs(31));
        assert!(session.silent_for().is_some());
    }

    #[test]
    fn at_the_end_of_a_file_what_it_holds_is_told_at_once() {
        let told = |received: &[Received]| {
            let mut session = Session::new("file".into(), "name another");
            received.iter().cloned().for_each(|one| session.receive(one));
            session.receive(Received::CaughtUp);
            session.status
        };
        insta::assert_snapshot!(told(&[]), @"at the end of the file, waits for more");
        insta::assert_snapshot!(told(&[Received::Noise]), @"at the end of the file, waits for more: no estimates yet, but bytes that are neither text nor frames of affectd: name another");
        insta::assert_snapshot!(told(&[Received::Unrecognized(Unrecognized::Log)]), @"at the end of the file, waits for more: no estimates yet, but the log of affectd: its estimates are on standard output and in the files of --output");
        insta::assert_snapshot!(told(&[Received::Unrecognized(Unrecognized::Log), Received::Estimate(reading(1))]), @"at the end of the file, waits for more");
    }

    #[test]
    fn an_estimate_ends_the_waiting() {
        let mut session = Session::new("file".into(), "");
        session.receive(Received::Estimate(reading(1)));
        assert_eq!(session.status, "receiving");
        session.receive(Received::CaughtUp);
        session.receive(Received::Estimate(reading(2)));
        assert_eq!(session.status, "receiving");
        session.receive(Received::Status("connected".into()));
        session.receive(Received::Estimate(reading(3)));
        assert_eq!(session.status, "connected");
    }

    #[test]
    fn a_line_of_text_shows_the_known_values() {
        insta::assert_snapshot!(session().line(), @"     60.0 s  valence -0.61  arousal +0.52  confidence 0.81  face+voice  missed 1  invalid lines 1");
        let mut unknown = Session::new(String::new(), "");
        unknown.receive(Received::Estimate(Reading {
            seq: 1,
            t: 0.2,
            ..Reading::default()
        }));
        insta::assert_snapshot!(unknown.line(), @"      0.2 s  valence     –  arousal     –  confidence    –  none        missed 0  invalid lines 0");
        unknown.receive(Received::Estimate(Reading {
            seq: 2,
            t: 0.4,
            paused: true,
            ..Reading::default()
        }));
        insta::assert_snapshot!(unknown.line(), @"      0.4 s  valence     –  arousal     –  confidence    –  paused      missed 0  invalid lines 0");
    }
}
