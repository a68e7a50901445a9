//! The progress of long work, in one line of a terminal: how much is done, and how much time is left.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::stderr::Stderr;
use crate::daemon::ReplayProgress;

/// The time between two updates.
const INTERVAL: Duration = Duration::from_millis(250);
/// Before this time and this part of the work, the time left would be a guess.
const MIN_ELAPSED: Duration = Duration::from_secs(1);
const MIN_FRACTION: f64 = 0.01;

/// A line on standard error, if that is a terminal. It is removed at the end.
#[derive(Debug)]
pub struct ProgressLine {
    stderr: Option<Stderr>,
    started: Instant,
    shown: Option<Instant>,
}

impl ProgressLine {
    pub fn on_stderr() -> ProgressLine {
        ProgressLine {
            stderr: io::stderr().is_terminal().then(Stderr::default),
            started: Instant::now(),
            shown: None,
        }
    }

    /// A line that is never shown.
    pub fn off() -> ProgressLine {
        ProgressLine {
            stderr: None,
            ..ProgressLine::on_stderr()
        }
    }

    /// Shows what `line` returns for the time since the start, unless a line was shown just before.
    pub fn show(&mut self, line: impl FnOnce(Duration) -> String) {
        let now = Instant::now();
        let is_due = self.shown.is_none_or(|shown| now.duration_since(shown) >= INTERVAL);
        if let Some(stderr) = self.stderr.as_mut().filter(|_| is_due) {
            stderr.replace_line(&line(now.duration_since(self.started)));
            self.shown = Some(now);
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some(stderr) = &mut self.stderr {
            stderr.replace_line("");
        }
    }
}

/// The line of `affectd run --input`.
pub fn replay_line(progress: ReplayProgress, elapsed: Duration) -> String {
    let ReplayProgress { position, fraction } = progress;
    let speed = position.as_secs_f64() / elapsed.as_secs_f64().max(0.001);
    let replayed = format!("{} of the clip at {speed:.1} times its speed", clock(position));
    match fraction {
        Some(fraction) => format!("replay {}, {replayed}", done(fraction, elapsed)),
        None => format!("replay {replayed}"),
    }
}

/// Such as ` 42 %, 1:03 left`.
pub fn done(fraction: f64, elapsed: Duration) -> String {
    let percent = format!("{:3.0} %", fraction * 100.0);
    match time_left(fraction, elapsed) {
        Some(left) => format!("{percent}, {} left", clock(left)),
        None => percent,
    }
}

/// `None` if it is too early to know.
fn time_left(fraction: f64, elapsed: Duration) -> Option<Duration> {
    let is_known = elapsed >= MIN_ELAPSED && fraction >= MIN_FRACTION;
    is_known.then(|| elapsed.mul_f64((1.0 - fraction).max(0.0) / fraction))
}

/// Minutes and seconds, with hours if there are any.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_shows_its_part_its_speed_and_the_time_left() {
        let line = |seconds, fraction, elapsed| {
            let progress = ReplayProgress {
                position: Duration::from_secs(seconds),
                fraction,
            };
            replay_line(progress, Duration::from_millis(elapsed))
        };
        insta::assert_snapshot!(line(63, Some(0.42), 5_000), @"replay  42 %, 0:06 left, 1:03 of the clip at 12.6 times its speed");
        insta::assert_snapshot!(line(0, Some(0.0), 250), @"replay   0 %, 0:00 of the clip at 0.0 times its speed");
        insta::assert_snapshot!(line(3723, Some(1.0), 600_000), @"replay 100 %, 0:00 left, 1:02:03 of the clip at 6.2 times its speed");
        insta::assert_snapshot!(line(63, None, 5_000), @"replay 1:03 of the clip at 12.6 times its speed");
    }

    #[test]
    fn the_time_left_is_told_when_it_is_known() {
        assert_eq!(done(0.005, Duration::from_secs(30)), "  0 %");
        assert_eq!(done(0.5, Duration::from_millis(900)), " 50 %");
        assert_eq!(done(0.25, Duration::from_secs(1200)), " 25 %, 1:00:00 left");
    }
}
