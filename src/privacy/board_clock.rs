//! Whether the system clock is right although the network has not set it.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the kernel lists the battery-backed clocks.
const CLOCKS: &str = "/sys/class/rtc";
/// Both clocks drift, and the kernel reads them at different times.
const TOLERANCE: Duration = Duration::from_secs(60);

/// Whether a battery-backed clock has set the system clock at boot and still agrees with it. One whose battery is empty starts in
/// the past, and does not.
pub fn is_set_by_battery_clock(now: SystemTime) -> bool {
    is_set_by_clock_in(Path::new(CLOCKS), now)
}

fn is_set_by_clock_in(clocks: &Path, now: SystemTime) -> bool {
    let Ok(since_epoch) = now.duration_since(UNIX_EPOCH) else {
        return false;
    };
    let agrees = |clock: fs::DirEntry| {
        let read = |name| fs::read_to_string(clock.path().join(name)).ok();
        let has_set_it = read("hctosys").is_some_and(|text| text.trim() == "1");
        let seconds = read("since_epoch").and_then(|text| text.trim().parse().ok());
        has_set_it && seconds.is_some_and(|s| Duration::from_secs(s).abs_diff(since_epoch) <= TOLERANCE)
    };
    fs::read_dir(clocks).is_ok_and(|clocks| clocks.flatten().any(agrees))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_battery_clock_counts_if_it_has_set_the_system_clock_and_agrees_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = folder.path().join("rtc0");
        fs::create_dir(&clock).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let is_right = |hctosys: &str, since_epoch: &str| {
            fs::write(clock.join("hctosys"), hctosys).unwrap();
            fs::write(clock.join("since_epoch"), since_epoch).unwrap();
            is_set_by_clock_in(folder.path(), now)
        };
        assert!(is_right("1\n", "1799999990\n"));
        // Not read at boot; its battery is empty; it runs on local time.
        assert!(!is_right("0\n", "1799999990\n"));
        assert!(!is_right("1\n", "946684900\n"));
        assert!(!is_right("1\n", "1800003600\n"));
        assert!(!is_set_by_clock_in(&folder.path().join("none"), now));
    }
}
