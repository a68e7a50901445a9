//! The time of day, if it can be trusted.
//!
//! A Raspberry Pi has no battery-backed clock. Until the network sets it, the clock shows the time of the last shutdown, or
//! 1970. The kernel knows whether the clock is synchronized. While it is not, the time of day is unknown.

use std::time::{Duration, Instant, SystemTime};

/// A query costs a system call, and its result changes about once per boot.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct WallClock {
    last_query: Option<(Instant, bool)>,
}

impl WallClock {
    /// The time of day; `None` while the system clock is not synchronized.
    pub fn now(&mut self) -> Option<SystemTime> {
        let synchronized = match self.last_query {
            Some((when, answer)) if when.elapsed() < QUERY_INTERVAL => answer,
            _ => {
                let answer = is_synchronized();
                self.last_query = Some((Instant::now(), answer));
                answer
            }
        };
        synchronized.then(SystemTime::now)
    }
}

fn is_synchronized() -> bool {
    // SAFETY: `timex` is plain data for which all zeroes is a valid value; `modes` = 0 asks without setting, and the
    // pointer is to a live, exclusively borrowed local.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&mut timex)
    };
    state >= 0 && state != libc::TIME_ERROR
}
