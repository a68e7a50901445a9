//! Closes the devices in the hours that the configuration names, by the board's local time.

use std::time::{SystemTime, UNIX_EPOCH};

use log::{info, warn};

use crate::output::wall_clock::WallClock;
use crate::privacy::{Closed, OffHours, PauseSwitch, is_set_by_battery_clock, missing_time_zone};

unsafe extern "C" {
    /// Reads the time zone, also one that was changed since the last call.
    fn tzset();
}

pub struct OffHoursWatch {
    hours: OffHours,
    clock: WallClock,
    /// The clock has been right since the start. It may lose its network, and is still right then.
    was_right: bool,
    closed: Option<Closed>,
}

impl OffHoursWatch {
    pub fn new(hours: OffHours) -> OffHoursWatch {
        OffHoursWatch {
            hours,
            clock: WallClock::default(),
            was_right: false,
            closed: None,
        }
    }

    /// Uses other hours from now on.
    pub fn set(&mut self, hours: OffHours) {
        self.hours = hours;
    }

    /// Sets the switch for the present hour. Call it several times a second.
    pub fn poll(&mut self, pause: &PauseSwitch) {
        // Without hours, no system call.
        let closed = match self.hours.is_empty() {
            true => None,
            false => {
                let now = SystemTime::now();
                self.was_right = self.was_right || self.clock.now().is_some() || is_set_by_battery_clock(now);
                self.closed_at(local_minute(now))
            }
        };
        if closed != self.closed {
            match closed {
                Some(Closed::OffHours) => info!("privacy.off = {}: the devices are closed", self.hours),
                Some(Closed::UnknownTime) => warn!("privacy.off = {}: {}", self.hours, why_unknown()),
                None => info!("privacy.off: the devices may be opened"),
            }
            self.closed = closed;
        }
        pause.set_closed(closed);
    }

    /// `minute` is the local time, in minutes since midnight.
    fn closed_at(&self, minute: Option<u16>) -> Option<Closed> {
        match minute.filter(|_| self.was_right) {
            None => Some(Closed::UnknownTime),
            Some(minute) => self.hours.contains(minute).then_some(Closed::OffHours),
        }
    }
}

/// Why the local time is unknown, and what to do.
fn why_unknown() -> String {
    match missing_time_zone() {
        Some(zone) => format!(
            "the system has no such time zone: {zone}, so the devices are closed: correct it (timedatectl list-timezones), or \
             install tzdata"
        ),
        None => "the clock is not synchronized, so the devices are closed: wait for the network, or set up NTP (timedatectl)".into(),
    }
}

/// The local time in minutes since midnight. `None` if the system cannot tell it.
fn local_minute(now: SystemTime) -> Option<u16> {
    if missing_time_zone().is_some() {
        return None;
    }
    let seconds = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let seconds = libc::time_t::try_from(seconds).ok()?;
    // SAFETY: `tm` is plain data for which all zeroes is a valid value. Both pointers are to live variables, and nothing in this
    // process changes the environment, which tzset reads.
    let local = unsafe {
        tzset();
        let mut local: libc::tm = std::mem::zeroed();
        (!libc::localtime_r(&seconds, &mut local).is_null()).then_some(local)
    }?;
    u16::try_from(local.tm_hour * 60 + local.tm_min).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(hours: &str, was_right: bool) -> OffHoursWatch {
        OffHoursWatch {
            was_right,
            ..OffHoursWatch::new(hours.parse().unwrap())
        }
    }

    #[test]
    fn the_devices_are_closed_in_the_off_hours() {
        let night = watch("22:00-07:00", true);
        assert_eq!(night.closed_at(Some(23 * 60)), Some(Closed::OffHours));
        assert_eq!(night.closed_at(Some(12 * 60)), None);
        // The clock was stepped back into the night.
        assert_eq!(night.closed_at(Some(6 * 60)), Some(Closed::OffHours));
    }

    #[test]
    fn the_devices_are_closed_while_the_time_is_unknown() {
        assert_eq!(
            watch("22:00-07:00", false).closed_at(Some(12 * 60)),
            Some(Closed::UnknownTime)
        );
        assert_eq!(watch("22:00-07:00", true).closed_at(None), Some(Closed::UnknownTime));
    }

    #[test]
    fn without_off_hours_the_time_does_not_matter() {
        let pause = PauseSwitch::default();
        let mut watch = watch("", false);
        watch.poll(&pause);
        assert!(!pause.is_paused());
        watch.set("00:00-24:00".parse().unwrap());
        watch.poll(&pause);
        assert!(pause.is_paused());
        watch.set(OffHours::default());
        watch.poll(&pause);
        assert!(!pause.is_paused());
    }

    /// In a process of its own: the C library reads the time zone from a variable, which all threads share.
    #[test]
    fn the_hours_follow_daylight_saving_time_and_steps_of_the_clock() {
        const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
        if std::env::var("TZ").as_deref() != Ok(ZONE) {
            let name = std::thread::current().name().unwrap().to_owned();
            let program = std::env::current_exe().unwrap();
            let output = std::process::Command::new(program)
                .args(["--exact", &name])
                .env("TZ", ZONE)
                .output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            assert!(text.contains("test result: ok. 1 passed"), "{text}");
            return;
        }
        let at = |seconds| local_minute(UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        let clock = |hour: u16, minute: u16| Some(hour * 60 + minute);
        // 29 March 2026: 01:59 is followed by 03:00. 25 October 2026: 02:59 is followed by 02:00.
        assert_eq!([at(1_774_745_940), at(1_774_746_000)], [clock(1, 59), clock(3, 0)]);
        assert_eq!([at(1_792_889_940), at(1_792_890_000)], [clock(2, 59), clock(2, 0)]);
        let night = watch("22:00-02:30", true);
        let closed = |seconds| night.closed_at(at(seconds)).is_some();
        assert!(closed(1_774_745_940) && !closed(1_774_746_000));
        // The half hour is repeated, and the clock may be stepped back into it.
        assert!(!closed(1_792_889_940) && closed(1_792_890_000) && !closed(1_792_891_800));
    }

    #[test]
    fn the_local_time_is_within_the_day() {
        let minute = local_minute(SystemTime::now()).unwrap();
        assert!(minute < 24 * 60, "{minute}");
        assert_eq!(local_minute(UNIX_EPOCH - std::time::Duration::from_secs(1)), None);
    }
}
