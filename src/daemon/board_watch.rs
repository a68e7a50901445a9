//! Reads whether the board has enough power and whether it is throttled, for the health record and the log.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::Level;

use crate::health::{BoardState, Health, LOW_VOLTAGE};
use crate::rate_limited_log::RateLimitedLog;

/// The time between two readings. The kernel asks the firmware as often.
const INTERVAL: Duration = Duration::from_secs(2);
const VOLTAGE_NORMAL: &str = "board: the voltage is normal again";
const THROTTLED: &str =
    "board: throttled: the processor is slowed down because it is hot or the voltage is low: cool it";
const NOT_THROTTLED: &str = "board: no longer throttled";

pub struct BoardWatch {
    sysfs: PathBuf,
    last: Option<Instant>,
    state: BoardState,
    voltage_log: RateLimitedLog<bool>,
    throttling_log: RateLimitedLog<bool>,
}

impl BoardWatch {
    /// `sysfs` is `/sys` except in tests.
    pub fn new(sysfs: PathBuf) -> BoardWatch {
        BoardWatch {
            sysfs,
            last: None,
            state: BoardState::default(),
            voltage_log: RateLimitedLog::new(),
            throttling_log: RateLimitedLog::new(),
        }
    }

    /// Reads the state if that is due, and logs what begins or ends. Call it often.
    pub fn poll(&mut self, health: &Health, now: Instant) {
        self.voltage_log.flush();
        self.throttling_log.flush();
        if self.last.is_some_and(|last| now < last + INTERVAL) {
            return;
        }
        self.last = Some(now);
        let before = std::mem::replace(&mut self.state, BoardState::read(&self.sysfs));
        health.board.set(self.state);
        let voltage = change(before.low_voltage, self.state.low_voltage, LOW_VOLTAGE, VOLTAGE_NORMAL);
        if let Some((is_low, level, text)) = voltage {
            self.voltage_log.set(is_low, level, text);
        }
        let throttling = change(before.throttled, self.state.throttled, THROTTLED, NOT_THROTTLED);
        if let Some((is_throttled, level, text)) = throttling {
            self.throttling_log.set(is_throttled, level, text);
        }
    }
}

/// What begins or ends, and how it is logged.
fn change(
    before: Option<bool>,
    now: Option<bool>,
    begins: &'static str,
    ends: &'static str,
) -> Option<(bool, Level, &'static str)> {
    match (before == Some(true), now == Some(true)) {
        (false, true) => Some((true, Level::Warn, begins)),
        (true, false) => Some((false, Level::Info, ends)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn low_voltage_is_in_the_health_record_while_it_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let sensor = folder.path().join("class/hwmon/hwmon0");
        fs::create_dir_all(&sensor).unwrap();
        fs::write(sensor.join("name"), "rpi_volt\n").unwrap();
        let (health, start) = (Health::default(), Instant::now());
        let mut watch = BoardWatch::new(folder.path().to_path_buf());
        let mut report_at = |seconds, alarm: &str| {
            fs::write(sensor.join("in0_lcrit_alarm"), alarm).unwrap();
            watch.poll(&health, start + Duration::from_secs(seconds));
            let report = health.report(Duration::ZERO);
            (report.low_voltage, report.problem)
        };
        assert_eq!(report_at(0, "0\n"), (Some(false), None));
        // Not read again yet.
        assert_eq!(report_at(1, "1\n"), (Some(false), None));
        assert_eq!(report_at(2, "1\n"), (Some(true), Some(LOW_VOLTAGE.to_owned())));
        assert_eq!(report_at(4, "0\n"), (Some(false), None));
    }

    #[test]
    fn the_begin_and_the_end_are_logged_and_a_board_without_faults_is_not() {
        let logged = |before, now| change(before, now, "begins", "ends");
        assert_eq!(logged(None, Some(false)), None);
        assert_eq!(logged(None, Some(true)), Some((true, Level::Warn, "begins")));
        assert_eq!(logged(Some(true), Some(true)), None);
        assert_eq!(logged(Some(true), Some(false)), Some((false, Level::Info, "ends")));
        assert_eq!(logged(Some(true), None), Some((false, Level::Info, "ends")));
    }
}
