//! Converts kernel timestamps to [`Instant`]s.
//!
//! V4L2 and ALSA take their timestamps from CLOCK_MONOTONIC, the clock behind [`Instant`] on Linux. Nobody can set that
//! clock, so a jump of the wall clock, common on boards without a battery, has no effect.

use std::time::{Duration, Instant};

/// Timestamps this far in the future are accepted, because two clocks are read one after the other.
const MAX_AHEAD: Duration = Duration::from_millis(5);
/// Older timestamps are rejected: they come from another clock.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Converts a timestamp of CLOCK_MONOTONIC. `None` if a device cannot have set it just now.
pub fn moment(timestamp: Duration) -> Option<Instant> {
    // Reads CLOCK_MONOTONIC last: if the thread is delayed in between, the result is too early, never in the future.
    let now = Instant::now();
    moment_at(timestamp, clock(), now)
}

fn moment_at(timestamp: Duration, clock: Duration, now: Instant) -> Option<Instant> {
    // Drivers and plugins use zero for "unknown". Soon after boot it would pass for a recent time.
    if timestamp.is_zero() {
        return None;
    }
    match clock.checked_sub(timestamp) {
        Some(age) if age <= MAX_AGE => now.checked_sub(age),
        Some(_) => None,
        None => (timestamp - clock <= MAX_AHEAD).then_some(now),
    }
}

/// CLOCK_MONOTONIC now.
pub fn clock() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live local of the type that clock_gettime writes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    from_timespec(time)
}

/// Negative times, which the monotonic clock never has, become zero.
pub fn from_timespec(time: libc::timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos.min(999_999_999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recent_timestamp_becomes_the_moment_it_names() {
        let (clock, now) = (Duration::from_secs(500), Instant::now());
        let ago = |ms| now - Duration::from_millis(ms);
        let stamp = |ms| clock - Duration::from_millis(ms);
        assert_eq!(moment_at(stamp(33), clock, now), Some(ago(33)));
        assert_eq!(moment_at(clock + Duration::from_millis(2), clock, now), Some(now));
    }

    #[test]
    fn timestamps_of_other_clocks_are_rejected() {
        let (clock, now) = (Duration::from_secs(500), Instant::now());
        assert_eq!(moment_at(Duration::ZERO, Duration::from_secs(9), now), None);
        assert_eq!(moment_at(Duration::from_secs(1), clock, now), None);
        assert_eq!(moment_at(Duration::from_secs(1_795_510_800), clock, now), None);
    }

    #[test]
    fn the_clock_matches_instants() {
        assert!(moment(clock()).is_some_and(|then| then.elapsed() < Duration::from_secs(5)));
    }
}
