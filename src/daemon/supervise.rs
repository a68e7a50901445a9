//! Keeps a device going whatever it does: opens it, pulls it, and when it fails opens it again, for ever.

use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::capture::CaptureError;
use crate::failure::Failure;

use crate::health::{SourceHealth, SourceState};
use crate::queue::Gone;

/// From one attempt to open a device to the next. Looking is cheap, and a device that is back shall be used at once.
const RETRY: Duration = Duration::from_millis(500);
/// How soon `stop` is noticed in between.
const NAP: Duration = Duration::from_millis(50);

/// A device's thread: what it is called, where its state is kept, and when to give up.
pub struct DeviceSupervisor<'a> {
    pub what: &'static str,
    pub state: &'a SourceHealth,
    /// Whether all is over, or this device no longer wanted.
    pub stop: &'a dyn Fn() -> bool,
    /// Goes on trying even what is said to be no such device.
    pub stubborn: bool,
}

impl DeviceSupervisor<'_> {
    /// Puts what `next` pulls out of what `open` opens, until `stop` or until nobody takes it. Fails only if a device that
    /// never ran is said to be none.
    pub fn keep<S, T>(
        &self,
        mut open: impl FnMut() -> Result<S, CaptureError>,
        describe: impl Fn(&S) -> &str,
        mut next: impl FnMut(&mut S) -> Result<Option<T>, CaptureError>,
        mut put: impl FnMut(T) -> Result<(), Gone>,
    ) -> Result<(), Failure> {
        let mut log = RateLimitedLog::new(self.what);
        let mut ran = self.stubborn;
        self.state.set(SourceState::Starting, None);
        while !self.stopped() {
            let error = match open() {
                Ok(mut source) => loop {
                    match next(&mut source) {
                        Ok(_) if self.stopped() => return Ok(()),
                        Ok(None) => return Ok(()),
                        Ok(Some(item)) => {
                            if self.state.get() != SourceState::Running {
                                self.state.set(SourceState::Running, None);
                                log.change(SourceState::Running, describe(&source));
                            }
                            log.catch_up();
                            ran = true;
                            if put(item) == Err(Gone) {
                                return Ok(());
                            }
                        }
                        Err(error) => break error,
                    }
                },
                Err(CaptureError::Unusable(why)) if !ran => return Err(Failure::Source(why)),
                Err(error) => error,
            };
            let state = match error {
                CaptureError::Stalled(_) => SourceState::Stalled,
                _ => SourceState::Absent,
            };
            let why = error.to_string();
            log.change(state, &why);
            log.catch_up();
            self.state.set(state, Some(why));
            self.pause();
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        (self.stop)()
    }

    fn pause(&self) {
        let until = Instant::now() + RETRY;
        while !self.stopped() && Instant::now() < until {
            thread::sleep(NAP);
        }
    }
}

/// Lines a minute, about, however often a loose plug makes contact: the journal lies on an SD card.
const LINES: u32 = 6;
const REFILL: Duration = Duration::from_secs(10);

/// One line for each change of state or reason, within reason. The last word is always said, if later.
struct RateLimitedLog {
    what: &'static str,
    current: Option<(SourceState, String)>,
    /// Whether `current` has been logged.
    said: bool,
    left: u32,
    refilled: Instant,
    /// Changes before the current one that were not.
    unsaid: u32,
}

impl RateLimitedLog {
    fn new(what: &'static str) -> RateLimitedLog {
        RateLimitedLog {
            what,
            current: None,
            said: true,
            left: LINES,
            refilled: Instant::now(),
            unsaid: 0,
        }
    }

    fn change(&mut self, state: SourceState, why: &str) {
        if self.current.as_ref().is_some_and(|(s, w)| *s == state && w == why) {
            return;
        }
        self.unsaid += u32::from(!self.said);
        self.current = Some((state, why.to_owned()));
        self.said = false;
    }

    /// Logs what has not been said, once it may be. To be called often.
    fn catch_up(&mut self) {
        if self.said {
            return;
        }
        match self.line(Instant::now()) {
            Some((SourceState::Running, line)) => info!("{line}"),
            Some((_, line)) => warn!("{line}"),
            None => {}
        }
    }

    /// The line to log, unless that was done, or there were too many.
    fn line(&mut self, now: Instant) -> Option<(SourceState, String)> {
        let (state, why) = self.current.as_ref().filter(|_| !self.said)?;
        let refills = (now.saturating_duration_since(self.refilled).as_secs() / REFILL.as_secs()) as u32;
        if refills > 0 {
            self.left = self.left.saturating_add(refills).min(LINES);
            self.refilled = now;
        }
        self.left = self.left.checked_sub(1)?;
        self.said = true;
        let unsaid = match std::mem::take(&mut self.unsaid) {
            0 => String::new(),
            n => format!(" ({n} changes before this one were not logged)"),
        };
        Some((*state, format!("{} {state}: {why}{unsaid}", self.what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// What a device does next.
    enum Act {
        Refuse(CaptureError),
        Open(Vec<Result<u32, CaptureError>>),
    }

    /// Runs a device through `acts`; gives what it delivered, and its state after every attempt to open it.
    fn play(acts: Vec<Act>) -> (Result<(), Failure>, Vec<u32>, Vec<SourceState>) {
        let (state, stop) = (SourceHealth::default(), AtomicBool::new(false));
        let supervisor = DeviceSupervisor {
            what: "camera",
            state: &state,
            stop: &|| stop.load(Ordering::Relaxed),
            stubborn: false,
        };
        let (mut acts, mut got, mut states) = (VecDeque::from(acts), Vec::new(), Vec::new());
        let open = || {
            states.push(state.get());
            match acts.pop_front() {
                Some(Act::Refuse(error)) => Err(error),
                Some(Act::Open(items)) => Ok(VecDeque::from(items)),
                None => {
                    stop.store(true, Ordering::Relaxed);
                    Err(lost())
                }
            }
        };
        let next = |items: &mut VecDeque<Result<u32, CaptureError>>| match items.pop_front() {
            Some(item) => item.map(Some),
            None => Err(lost()),
        };
        let outcome = supervisor.keep(
            open,
            |_| "a device",
            next,
            |item| {
                got.push(item);
                Ok(())
            },
        );
        (outcome, got, states)
    }

    fn lost() -> CaptureError {
        CaptureError::Lost("not connected".into())
    }

    #[test]
    fn a_device_that_comes_late_stalls_and_goes_is_used_whenever_it_can_be() {
        let stalled = || CaptureError::Stalled("sent nothing".into());
        let (outcome, got, states) = play(vec![
            Act::Refuse(lost()),
            Act::Open(vec![Ok(1), Ok(2), Err(stalled())]),
            Act::Open(vec![Ok(3), Err(lost())]),
            Act::Refuse(CaptureError::Unusable("another device took its place".into())),
            Act::Open(vec![Ok(4)]),
        ]);
        assert!(outcome.is_ok());
        assert_eq!(got, [1, 2, 3, 4]);
        use SourceState::*;
        assert_eq!(states, [Starting, Absent, Stalled, Absent, Absent, Absent]);
    }

    #[test]
    fn a_device_that_is_none_ends_it() {
        let (outcome, got, _) = play(vec![Act::Refuse(CaptureError::Unusable(
            "/dev/null: is no camera".into(),
        ))]);
        assert!(matches!(outcome, Err(Failure::Source(why)) if why == "/dev/null: is no camera"));
        assert!(got.is_empty());
    }

    /// What the log says, at `now`, of a change.
    fn said(log: &mut RateLimitedLog, state: SourceState, why: &str, now: Instant) -> Option<String> {
        log.change(state, why);
        log.line(now).map(|(_, line)| line)
    }

    #[test]
    fn the_log_says_each_change_once_and_not_too_many() {
        let (mut log, start) = (RateLimitedLog::new("camera"), Instant::now());
        let first = said(&mut log, SourceState::Absent, "not connected", start).unwrap();
        insta::assert_snapshot!(first, @"camera absent: not connected");
        assert_eq!(said(&mut log, SourceState::Absent, "not connected", start), None);
        let more = (0..100).filter_map(|i| said(&mut log, SourceState::Stalled, &i.to_string(), start));
        assert_eq!(more.count(), 5);
        let next = said(&mut log, SourceState::Running, "/dev/video0", start + REFILL).unwrap();
        insta::assert_snapshot!(next, @"camera running: /dev/video0 (95 changes before this one were not logged)");
    }

    #[test]
    fn the_log_ends_with_how_things_are() {
        let (mut log, start) = (RateLimitedLog::new("camera"), Instant::now());
        for i in 0..100 {
            said(&mut log, SourceState::Stalled, &i.to_string(), start);
        }
        assert_eq!(said(&mut log, SourceState::Running, "/dev/video0", start), None);
        let (_, last) = log.line(start + REFILL).unwrap();
        insta::assert_snapshot!(last, @"camera running: /dev/video0 (94 changes before this one were not logged)");
        assert_eq!(log.line(start + 2 * REFILL), None);
    }
}
