//! The time of day, once it can be trusted.
//!
//! A Raspberry Pi has no battery-backed clock: until the network has set it, its time of day is that of the last
//! shutdown, or 1970. The kernel knows whether somebody disciplines the clock; while nobody does, there is no time of day.

use std::time::{Duration, Instant, SystemTime};

/// Asking the kernel is a system call, and the answer changes once a boot.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct WallClock {
    asked: Option<(Instant, bool)>,
}

impl WallClock {
    /// The time of day; `None` while the system clock is not synchronized.
    pub fn now(&mut self) -> Option<SystemTime> {
        let synchronized = match self.asked {
            Some((when, answer)) if when.elapsed() < ASK_EVERY => answer,
            _ => {
                let answer = is_synchronized();
                self.asked = Some((Instant::now(), answer));
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
