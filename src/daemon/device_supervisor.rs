//! Keeps one device in use: opens it, reads it, and opens it again whenever it fails.

use std::thread;
use std::time::{Duration, Instant};

use log::Level;

use crate::capture::{CaptureError, CaptureErrorKind};
use crate::health::{SourceHealth, SourceState};
use crate::privacy::{CaptureLight, PauseSwitch};
use crate::queue::Disconnected;
use crate::rate_limited_log::RateLimitedLog;
use crate::retry::{Retry, RetryPolicy};

/// Opening is cheap, and a device that is back is used at once.
const RETRY: RetryPolicy = RetryPolicy::Fixed(Duration::from_millis(500));
/// A program may fail after seconds of work, again and again.
const PROGRAM_RETRY: RetryPolicy = RetryPolicy::Exponential {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
/// A program that ends sooner than this after its first frame or samples has failed: the next wait is longer.
const PROGRAM_SUCCESS: Duration = Duration::from_secs(5);
/// How soon a stop, a pause and its end are noticed during a wait.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Supervises a device on the device's own thread.
pub struct DeviceSupervisor<'a> {
    /// The device's name in the log.
    pub name: &'static str,
    pub health: &'a SourceHealth,
    /// Whether the supervisor must stop: affectd stops, or the configuration no longer has this device.
    pub stop: &'a dyn Fn() -> bool,
    /// While it is set, the device is closed.
    pub pause: &'a PauseSwitch,
    /// It is on while the device may be open.
    pub light: &'a CaptureLight,
    pub if_unusable: IfUnusable,
}

/// What to do if the device exists but can never be used, for example because the path is not a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfUnusable {
    /// End affectd with an error, unless the device has already run. For the start, so that the user notices a wrong setting.
    Fail,
    /// Retry until it can be used. For a reload, because the rest of affectd keeps running.
    Retry,
}

impl DeviceSupervisor<'_> {
    /// Reads items with `next` from the device that `open` opens, and passes them to `deliver`. Returns when `stop` is true,
    /// when the device has ended, or when the receiver is gone. Fails only if the device is unusable and `if_unusable` is
    /// [`IfUnusable::Fail`]. During a pause the device is closed. `open` and `next` must return early then.
    pub fn run<S, T>(
        &self,
        mut open: impl FnMut() -> Result<S, CaptureError>,
        describe: impl Fn(&S) -> &str,
        mut next: impl FnMut(&mut S) -> Result<Option<T>, CaptureError>,
        mut deliver: impl FnMut(T) -> Result<(), Disconnected>,
    ) -> Result<(), CaptureError> {
        let mut log = RateLimitedLog::new();
        let mut device_retry = Retry::new(RETRY);
        let mut program_retry = Retry::new(PROGRAM_RETRY);
        let mut has_run = false;
        self.health.set(SourceState::Starting, None);
        while !self.stopped() {
            if self.pause.is_paused() {
                self.wait_for_resume(&mut log);
                // Somebody uses this affectd: it must not end because the device was replaced meanwhile.
                has_run = true;
                continue;
            }
            let lit = match self.light.switch_on() {
                Ok(lit) => lit,
                Err(error) => {
                    // The owner relies on the light.
                    self.failed(&mut log, SourceState::Absent, error.to_string());
                    device_retry.failed(Instant::now());
                    self.wait_for(&device_retry);
                    continue;
                }
            };
            let opening = open();
            let opened_at = Instant::now();
            let error = match opening {
                Ok(mut device) => loop {
                    match next(&mut device) {
                        Ok(_) if self.stopped() => return Ok(()),
                        Ok(None) => return Ok(()),
                        Ok(Some(_)) if self.pause.is_paused() => break None,
                        Ok(Some(item)) => {
                            if self.health.get() != SourceState::Running {
                                self.health.set(SourceState::Running, None);
                                let description = describe(&device).to_owned();
                                self.log(&mut log, Level::Info, SourceState::Running, description);
                            }
                            log.flush();
                            device_retry.succeeded();
                            if opened_at.elapsed() >= PROGRAM_SUCCESS {
                                program_retry.succeeded();
                            }
                            has_run = true;
                            if deliver(item) == Err(Disconnected) {
                                return Ok(());
                            }
                        }
                        Err(error) => break Some(error),
                    }
                },
                Err(error)
                    if error.kind() == CaptureErrorKind::Unusable
                        && self.if_unusable == IfUnusable::Fail
                        && !has_run
                        && !self.pause.is_paused() =>
                {
                    return Err(error);
                }
                Err(error) => Some(error),
            };
            drop(lit);
            // A stop or a pause ends the wait for a device with an error.
            if self.stopped() {
                return Ok(());
            }
            let Some(error) = error.filter(|_| !self.pause.is_paused()) else {
                continue;
            };
            let state = match error.kind() {
                CaptureErrorKind::Stalled => SourceState::Stalled,
                _ => SourceState::Absent,
            };
            self.failed(&mut log, state, error.to_string());
            let retry = match error.is_of_program() {
                true => &mut program_retry,
                false => &mut device_retry,
            };
            retry.failed(Instant::now());
            self.wait_for(retry);
        }
        Ok(())
    }

    fn failed(&self, log: &mut RateLimitedLog<(SourceState, String)>, state: SourceState, why: String) {
        self.log(log, Level::Warn, state, why.clone());
        self.health.set(state, Some(why));
    }

    fn wait_for(&self, retry: &Retry) {
        while !self.stopped() && !self.pause.is_paused() && !retry.is_due(Instant::now()) {
            thread::sleep(CHECK_INTERVAL);
        }
    }

    /// The device is closed.
    fn wait_for_resume(&self, log: &mut RateLimitedLog<(SourceState, String)>) {
        self.health.set(SourceState::Paused, None);
        self.log(log, Level::Info, SourceState::Paused, "closed".to_owned());
        while !self.stopped() && self.pause.is_paused() {
            thread::sleep(CHECK_INTERVAL);
            log.flush();
        }
        self.health.set(SourceState::Starting, None);
    }

    fn log(&self, log: &mut RateLimitedLog<(SourceState, String)>, level: Level, state: SourceState, detail: String) {
        let text = format!("{} {state}: {detail}", self.name);
        log.set((state, detail), level, text);
    }

    fn stopped(&self) -> bool {
        (self.stop)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::error::Reason;
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The outcome of an attempt to open a device.
    enum Attempt {
        Fails(CaptureError),
        Delivers(Vec<Result<u32, CaptureError>>),
    }

    /// Runs a device through `attempts`; returns what it delivered, and its state before every attempt.
    fn run(attempts: Vec<Attempt>) -> (Result<(), CaptureError>, Vec<u32>, Vec<SourceState>) {
        run_with(&PauseSwitch::default(), &SourceHealth::default(), attempts, |_| ())
    }

    /// The same, with a switch that `before_delivery` may set.
    fn run_with(
        pause: &PauseSwitch,
        health: &SourceHealth,
        attempts: Vec<Attempt>,
        before_delivery: impl Fn(u32),
    ) -> (Result<(), CaptureError>, Vec<u32>, Vec<SourceState>) {
        let stop = AtomicBool::new(false);
        let supervisor = DeviceSupervisor {
            name: "camera",
            health,
            stop: &|| stop.load(Ordering::Relaxed),
            pause,
            light: &CaptureLight::default(),
            if_unusable: IfUnusable::Fail,
        };
        let (mut attempts, mut delivered, mut states) = (VecDeque::from(attempts), Vec::new(), Vec::new());
        let open = || {
            assert!(!pause.is_paused(), "opened during a pause");
            states.push(health.get());
            match attempts.pop_front() {
                Some(Attempt::Fails(error)) => Err(error),
                Some(Attempt::Delivers(items)) => Ok(VecDeque::from(items)),
                None => {
                    stop.store(true, Ordering::Relaxed);
                    Err(lost())
                }
            }
        };
        let next = |items: &mut VecDeque<Result<u32, CaptureError>>| match items.pop_front() {
            Some(item) => {
                item.iter().copied().for_each(&before_delivery);
                item.map(Some)
            }
            None => Err(lost()),
        };
        let outcome = supervisor.run(
            open,
            |_| "a device",
            next,
            |item| {
                delivered.push(item);
                Ok(())
            },
        );
        (outcome, delivered, states)
    }

    fn lost() -> CaptureError {
        CaptureError::camera("/dev/video0", Reason::NotConnected)
    }

    #[test]
    fn a_device_that_comes_late_stalls_or_goes_is_opened_again() {
        let stalled = || CaptureError::camera("/dev/video0", Reason::OnlyDamagedFrames);
        let (outcome, delivered, states) = run(vec![
            Attempt::Fails(lost()),
            Attempt::Delivers(vec![Ok(1), Ok(2), Err(stalled())]),
            Attempt::Delivers(vec![Ok(3), Err(lost())]),
            Attempt::Fails(CaptureError::camera("/dev/video0", Reason::NotACamera)),
            Attempt::Delivers(vec![Ok(4)]),
        ]);
        assert!(outcome.is_ok());
        assert_eq!(delivered, [1, 2, 3, 4]);
        use SourceState::*;
        assert_eq!(states, [Starting, Absent, Stalled, Absent, Absent, Absent]);
    }

    #[test]
    fn a_program_that_ends_soon_after_its_first_frame_is_started_ever_more_slowly() {
        let ended = || {
            let (status, stderr) = ("exit status: 0".into(), String::new());
            CaptureError::camera("command:a", Reason::ProgramEnded { status, stderr })
        };
        let start = Instant::now();
        let (outcome, delivered, _) = run((0..4).map(|n| Attempt::Delivers(vec![Ok(n), Err(ended())])).collect());
        assert!(outcome.is_ok());
        assert_eq!(delivered, [0, 1, 2, 3]);
        // The least that the waits of 0.5, 1, 2 and 4 s can take, which are at least half of that. Four first waits take 2 s at most.
        assert!(start.elapsed() >= Duration::from_millis(3750));
    }

    #[test]
    fn a_pause_closes_the_device_and_a_resume_opens_it_again() {
        let (pause, health) = (PauseSwitch::default(), SourceHealth::default());
        thread::scope(|scope| {
            scope.spawn(|| {
                while health.get() != SourceState::Paused {
                    thread::yield_now();
                }
                pause.resume().unwrap();
            });
            let attempts = vec![
                Attempt::Delivers(vec![Ok(1), Ok(2), Ok(3)]),
                // An owner may have replaced the camera in the meantime.
                Attempt::Fails(CaptureError::camera("/dev/null", Reason::NotACamera)),
                Attempt::Delivers(vec![Ok(4)]),
            ];
            let (outcome, delivered, states) = run_with(&pause, &health, attempts, |item| {
                if item == 2 {
                    pause.pause().unwrap();
                }
            });
            assert!(outcome.is_ok());
            // The second item came with the pause.
            assert_eq!(delivered, [1, 4]);
            use SourceState::*;
            assert_eq!(states, [Starting, Starting, Absent, Absent]);
        });
    }

    #[test]
    fn an_unusable_device_at_the_start_is_an_error() {
        let (outcome, delivered, _) = run(vec![Attempt::Fails(CaptureError::camera(
            "/dev/null",
            Reason::NotACamera,
        ))]);
        assert_eq!(outcome, Err(CaptureError::camera("/dev/null", Reason::NotACamera)));
        assert!(delivered.is_empty());
    }
}
