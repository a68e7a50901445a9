//! Kernel timestamps as moments of this process.
//!
//! V4L2 and ALSA stamp what they capture on CLOCK_MONOTONIC, the clock behind [`Instant`] on Linux. Nobody can set that
//! clock: a time of day that jumps, as it does on a board without a battery, changes nothing here.

use std::time::{Duration, Instant};

/// Stamps later than now by this much are still believed: two clocks are read one after the other.
const EARLY: Duration = Duration::from_millis(5);
/// Older stamps are not: a driver's zero, or another clock.
const OLDEST: Duration = Duration::from_secs(60);

/// The moment of a CLOCK_MONOTONIC `stamp`; `None` if it cannot be one that a device set just now.
pub fn moment(stamp: Duration) -> Option<Instant> {
    // The clock last: a thread that is held up in between makes a moment seem too early, never too late.
    let now = Instant::now();
    moment_at(stamp, clock(), now)
}

fn moment_at(stamp: Duration, clock: Duration, now: Instant) -> Option<Instant> {
    // What drivers and plugins say that do not know; soon after a boot it would pass for a time.
    if stamp.is_zero() {
        return None;
    }
    match clock.checked_sub(stamp) {
        Some(age) if age <= OLDEST => now.checked_sub(age),
        Some(_) => None,
        None => (stamp - clock <= EARLY).then_some(now),
    }
}

/// CLOCK_MONOTONIC now.
pub fn clock() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the type that clock_gettime writes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    from_timespec(time)
}

/// Zero if the time is before the clock's start, which none is.
pub fn from_timespec(time: libc::timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos.min(999_999_999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_as_old_as_the_clock_says() {
        let (clock, now) = (Duration::from_secs(500), Instant::now());
        let ago = |ms| now - Duration::from_millis(ms);
        let stamp = |ms| clock - Duration::from_millis(ms);
        assert_eq!(moment_at(stamp(33), clock, now), Some(ago(33)));
        assert_eq!(moment_at(clock + Duration::from_millis(2), clock, now), Some(now));
    }

    #[test]
    fn stamps_of_other_clocks_are_not_believed() {
        let (clock, now) = (Duration::from_secs(500), Instant::now());
        assert_eq!(moment_at(Duration::ZERO, Duration::from_secs(9), now), None);
        assert_eq!(moment_at(Duration::from_secs(1), clock, now), None);
        assert_eq!(moment_at(Duration::from_secs(1_795_510_800), clock, now), None);
    }

    #[test]
    fn the_clock_is_that_of_instants() {
        assert!(moment(clock()).is_some_and(|then| then.elapsed() < Duration::from_secs(5)));
    }
}
