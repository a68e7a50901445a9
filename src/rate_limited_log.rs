//! Logs the state of one thing at a limited rate, because the journal may be on an SD card.

use std::fmt;
use std::time::{Duration, Instant};

use log::{Level, log};

/// Lines that may be logged in a burst.
const BURST: u32 = 6;
/// The time after which one more line may be logged: in the long run at most six lines a minute.
const INTERVAL: Duration = Duration::from_secs(10);

/// Logs each change of a state `S` once, and at most about six lines a minute.
///
/// A change that comes too soon is held back and logged by a later [`flush`](Self::flush), or when the log is dropped, so
/// the last state is always logged. The line then gives the number of changes that were skipped.
///
/// A state is new if its `S` differs from the previous one. The text may contain more, such as a time. With a count's
/// [`ilog2`](u64::ilog2) in `S`, a repeated event is logged the 1st, 2nd, 4th, 8th … time.
#[derive(Debug)]
pub struct RateLimitedLog<S> {
    state: Option<S>,
    /// The line for `state`, until it is logged.
    pending: Option<Line>,
    /// Changes since the last logged line, without the pending one.
    skipped: u32,
    /// Lines that may still be logged.
    budget: u32,
    refilled: Instant,
}

#[derive(Debug, PartialEq)]
struct Line {
    level: Level,
    text: String,
}

impl<S: PartialEq> RateLimitedLog<S> {
    pub fn new() -> RateLimitedLog<S> {
        RateLimitedLog {
            state: None,
            pending: None,
            skipped: 0,
            budget: BURST,
            refilled: Instant::now(),
        }
    }

    /// Sets the state. Logs `text` now if the state is new and the rate permits it.
    pub fn set(&mut self, state: S, level: Level, text: impl fmt::Display) {
        self.change(state, level, text);
        self.flush();
    }

    /// Logs the state that was held back, once the rate permits it. Call it often.
    pub fn flush(&mut self) {
        if self.pending.is_some()
            && let Some(line) = self.next_line(Instant::now())
        {
            line.write();
        }
    }

    fn change(&mut self, state: S, level: Level, text: impl fmt::Display) {
        if self.state.as_ref() == Some(&state) {
            return;
        }
        self.state = Some(state);
        let text = text.to_string();
        if self.pending.replace(Line { level, text }).is_some() {
            self.skipped = self.skipped.saturating_add(1);
        }
    }

    /// The line to log at `now`, if there is one and the rate permits it.
    fn next_line(&mut self, now: Instant) -> Option<Line> {
        let intervals = now.saturating_duration_since(self.refilled).as_secs() / INTERVAL.as_secs();
        if intervals > 0 {
            let refill = u32::try_from(intervals).unwrap_or(BURST);
            self.budget = self.budget.saturating_add(refill).min(BURST);
            self.refilled = now;
        }
        if self.pending.is_none() || self.budget == 0 {
            return None;
        }
        self.budget -= 1;
        self.take_line()
    }
}

impl<S> RateLimitedLog<S> {
    fn take_line(&mut self) -> Option<Line> {
        let mut line = self.pending.take()?;
        match std::mem::take(&mut self.skipped) {
            0 => {}
            1 => line.text.push_str(" (1 change before this one was not logged)"),
            n => line
                .text
                .push_str(&format!(" ({n} changes before this one were not logged)")),
        }
        Some(line)
    }
}

impl<S: PartialEq> Default for RateLimitedLog<S> {
    fn default() -> RateLimitedLog<S> {
        RateLimitedLog::new()
    }
}

impl<S> Drop for RateLimitedLog<S> {
    /// Logs the last state if it was held back.
    fn drop(&mut self) {
        if let Some(line) = self.take_line() {
            line.write();
        }
    }
}

impl Line {
    fn write(&self) {
        // The text names its subject; this module's name would mislead.
        log!(target: "affectd", self.level, "{}", self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged at `now` when the state becomes `state`.
    fn logged(log: &mut RateLimitedLog<u32>, state: u32, now: Instant) -> Option<String> {
        log.change(state, Level::Warn, format_args!("camera stalled: {state}"));
        log.next_line(now).map(|line| line.text)
    }

    #[test]
    fn each_change_is_logged_once_and_at_most_six_in_a_burst() {
        let (mut log, start) = (RateLimitedLog::new(), Instant::now());
        let first = logged(&mut log, 1000, start).unwrap();
        insta::assert_snapshot!(first, @"camera stalled: 1000");
        assert_eq!(logged(&mut log, 1000, start), None);
        let more = (0..100).filter_map(|state| logged(&mut log, state, start));
        assert_eq!(more.count(), 5);
        let next = logged(&mut log, 100, start + INTERVAL).unwrap();
        insta::assert_snapshot!(next, @"camera stalled: 100 (95 changes before this one were not logged)");
    }

    #[test]
    fn at_most_six_lines_a_minute_are_logged_in_the_long_run() {
        let (mut log, start) = (RateLimitedLog::new(), Instant::now());
        let lines = (0..3600).filter_map(|s| logged(&mut log, s, start + Duration::from_secs(s.into())));
        let lines = lines.count();
        assert!((350..=366).contains(&lines), "{lines} lines in an hour");
    }

    #[test]
    fn the_last_state_is_logged_once_the_rate_permits_it() {
        let (mut log, start) = (RateLimitedLog::new(), Instant::now());
        for state in 0..100 {
            logged(&mut log, state, start);
        }
        log.change(100, Level::Info, "camera running");
        assert_eq!(log.next_line(start), None);
        let last = log.next_line(start + INTERVAL).unwrap();
        assert_eq!(last.level, Level::Info);
        insta::assert_snapshot!(last.text, @"camera running (94 changes before this one were not logged)");
        assert_eq!(log.next_line(start + 2 * INTERVAL), None);
    }

    #[test]
    fn with_the_logarithm_of_a_count_the_log_thins_out() {
        let (mut log, start) = (RateLimitedLog::new(), Instant::now());
        let lines = (1..=1000_u32).filter(|count| logged(&mut log, count.ilog2(), start + *count * INTERVAL).is_some());
        assert_eq!(lines.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }
}
