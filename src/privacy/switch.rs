//! The switch that closes the camera and the microphone.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::record::PauseRecord;

/// Pause and resume, for all threads: signals and commands set the switch, the threads of the devices open nothing while it is
/// set, and the stages forget what they know about people.
#[derive(Debug)]
pub struct PauseSwitch {
    /// `None` if affectd replays a clip, which has no devices.
    record: Option<Mutex<PauseRecord>>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// A signal or a command has paused affectd.
    requested: bool,
    /// The configuration closes the devices at present.
    closed: Option<Closed>,
    /// Counts the pauses.
    pauses: u64,
    /// Earlier captures must not be used any more. `None` before the first pause.
    resumed: Option<Instant>,
}

/// Why the configuration closes the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It is one of the hours of `privacy.off`.
    OffHours,
    /// There are such hours, and the time is not known.
    UnknownTime,
}

/// Why the devices are closed. Several reasons may hold at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// A signal or a command has paused affectd.
    Request,
    /// See [`Closed::OffHours`].
    OffHours,
    /// See [`Closed::UnknownTime`].
    UnknownTime,
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PauseReason::Request => "on request",
            PauseReason::OffHours => "in the off hours",
            PauseReason::UnknownTime => "because the time of day is unknown",
        })
    }
}

impl From<Closed> for PauseReason {
    fn from(closed: Closed) -> PauseReason {
        match closed {
            Closed::OffHours => PauseReason::OffHours,
            Closed::UnknownTime => PauseReason::UnknownTime,
        }
    }
}

/// Why affectd does not pause or resume, or not for long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    #[error("affectd replays a clip, which has no devices: use it with a camera or a microphone")]
    NoDevices,
    #[error("the devices are closed, but the next start of affectd will open them: {0}")]
    NotKept(String),
    #[error("the devices are opened, but the next start of affectd will be paused: {0}")]
    StillKept(String),
    #[error(
        "the pause on request is over, but privacy.off keeps the devices closed at this hour: wait until it is over, or change it"
    )]
    OffHours,
    #[error(
        "the pause on request is over, but privacy.off keeps the devices closed because the clock is not synchronized: wait for the \
         network, or set up NTP (timedatectl)"
    )]
    UnknownTime,
}

impl PauseSwitch {
    /// The switch of a clip, which refuses everything.
    pub fn of_clip() -> PauseSwitch {
        PauseSwitch {
            record: None,
            state: Mutex::default(),
        }
    }

    /// The switch of a camera and a microphone. It is set if `paused`, or if affectd was paused when it ended. The state directory
    /// keeps that; without one, nothing does.
    pub fn of_devices(paused: bool, state_directory: Option<&Path>) -> PauseSwitch {
        let record = PauseRecord::in_folder(state_directory);
        let paused = record.read() || paused;
        PauseSwitch {
            record: Some(Mutex::new(record)),
            state: Mutex::new(State {
                requested: paused,
                ..State::default()
            }),
        }
    }

    /// Closes the devices soon. Fails if there are none, or if a restart would open them.
    pub fn pause(&self) -> Result<(), PauseError> {
        let record = self.record.as_ref().ok_or(PauseError::NoDevices)?;
        let request = || self.change(|state| state.requested = true);
        // At once, before the disk has time.
        request();
        let record = lock(record);
        // A resume on another thread may have come in between.
        request();
        record.write(true).map_err(PauseError::NotKept)
    }

    /// Ends the requested pause, so that the devices are opened soon. Fails if there are none, if the configuration still keeps
    /// them closed, or if a restart would close them.
    pub fn resume(&self) -> Result<(), PauseError> {
        let record = lock(self.record.as_ref().ok_or(PauseError::NoDevices)?);
        let written = record.write(false).map_err(PauseError::StillKept);
        self.change(|state| state.requested = false);
        written?;
        match self.state().closed {
            Some(Closed::OffHours) => Err(PauseError::OffHours),
            Some(Closed::UnknownTime) => Err(PauseError::UnknownTime),
            None => Ok(()),
        }
    }

    /// Closes the devices for a reason of the configuration, or ends that. A requested pause stays.
    pub fn set_closed(&self, closed: Option<Closed>) {
        if self.record.is_some() {
            self.change(|state| state.closed = closed);
        }
    }

    /// Why the devices are closed; empty if they are not.
    pub fn reasons(&self) -> Vec<PauseReason> {
        let state = self.state();
        let request = state.requested.then_some(PauseReason::Request);
        request.into_iter().chain(state.closed.map(PauseReason::from)).collect()
    }

    /// Whether a signal or a command has paused affectd.
    pub fn is_requested(&self) -> bool {
        self.state().requested
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let before = state.is_paused();
        change(&mut state);
        match (before, state.is_paused()) {
            (false, true) => state.pauses += 1,
            (true, false) => state.resumed = Some(Instant::now()),
            _ => {}
        }
    }

    pub fn is_paused(&self) -> bool {
        self.state().is_paused()
    }

    /// The number of pauses so far. When it changes, a stage forgets what it knows.
    pub fn pauses(&self) -> u64 {
        self.state().pauses
    }

    /// Whether something captured at this time may be used: not during a pause, and not if it was captured before one.
    pub fn admits(&self, captured: Instant) -> bool {
        let state = self.state();
        !state.is_paused() && state.resumed.is_none_or(|resumed| captured >= resumed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Default for PauseSwitch {
    /// The switch of devices, not set, of which nothing is kept.
    fn default() -> PauseSwitch {
        PauseSwitch::of_devices(false, None)
    }
}

impl State {
    fn is_paused(&self) -> bool {
        self.requested || self.closed.is_some()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_from_before_and_during_a_pause_are_not_admitted() {
        let switch = PauseSwitch::default();
        let before = Instant::now();
        assert!(switch.admits(before));
        switch.pause().unwrap();
        let during = Instant::now();
        assert!(switch.is_paused() && !switch.admits(before) && !switch.admits(during));
        switch.resume().unwrap();
        assert!(!switch.is_paused() && !switch.admits(before) && !switch.admits(during));
        assert!(switch.admits(Instant::now()));
    }

    #[test]
    fn a_second_pause_is_the_same_pause() {
        let switch = PauseSwitch::default();
        for _ in 0..2 {
            switch.pause().unwrap();
            assert!(switch.is_paused());
        }
        assert_eq!(switch.pauses(), 1);
        for _ in 0..2 {
            switch.resume().unwrap();
            assert!(!switch.is_paused());
        }
        switch.pause().unwrap();
        assert_eq!(switch.pauses(), 2);
    }

    #[test]
    fn a_pause_survives_a_restart_with_a_state_directory() {
        let folder = tempfile::tempdir().unwrap();
        let start = |paused| PauseSwitch::of_devices(paused, Some(folder.path()));
        let first = start(false);
        assert!(!first.is_paused());
        first.pause().unwrap();
        assert!(start(false).is_paused());
        first.resume().unwrap();
        assert!(!start(false).is_paused());
        assert!(start(true).is_paused());
    }

    #[test]
    fn a_pause_that_cannot_be_kept_closes_the_devices_nevertheless() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let switch = PauseSwitch::of_devices(false, Some(&state));
        std::fs::remove_dir(&state).unwrap();
        let error = switch.pause().unwrap_err();
        assert!(switch.is_paused());
        let text = error.to_string();
        assert!(
            text.starts_with("the devices are closed, but the next start of affectd will open them: /"),
            "{text}"
        );
    }

    #[test]
    fn a_resume_in_the_off_hours_opens_nothing_and_is_an_error() {
        let switch = PauseSwitch::default();
        let before = Instant::now();
        switch.set_closed(Some(Closed::OffHours));
        assert!(switch.is_paused() && !switch.admits(before));
        assert_eq!(switch.resume(), Err(PauseError::OffHours));
        switch.set_closed(Some(Closed::UnknownTime));
        assert_eq!(switch.resume(), Err(PauseError::UnknownTime));
        assert_eq!((switch.pauses(), switch.reasons()), (1, vec![PauseReason::UnknownTime]));
        switch.set_closed(None);
        assert!(!switch.is_paused() && !switch.admits(before));
    }

    #[test]
    fn a_requested_pause_outlasts_the_off_hours() {
        let switch = PauseSwitch::default();
        switch.set_closed(Some(Closed::OffHours));
        switch.pause().unwrap();
        switch.set_closed(None);
        assert!(switch.is_paused() && switch.is_requested());
        assert_eq!(switch.reasons(), [PauseReason::Request]);
        switch.resume().unwrap();
        assert!(!switch.is_paused() && switch.reasons().is_empty());
    }

    #[test]
    fn a_resume_in_the_off_hours_ends_the_requested_pause() {
        let switch = PauseSwitch::default();
        switch.pause().unwrap();
        switch.set_closed(Some(Closed::OffHours));
        assert_eq!(switch.reasons(), [PauseReason::Request, PauseReason::OffHours]);
        assert_eq!(switch.resume(), Err(PauseError::OffHours));
        assert!(switch.is_paused() && !switch.is_requested());
        switch.set_closed(None);
        assert!(!switch.is_paused());
    }

    #[test]
    fn a_clip_cannot_be_paused() {
        let switch = PauseSwitch::of_clip();
        assert_eq!(switch.pause(), Err(PauseError::NoDevices));
        assert_eq!(switch.resume(), Err(PauseError::NoDevices));
        switch.set_closed(Some(Closed::OffHours));
        assert!(!switch.is_paused() && switch.admits(Instant::now()));
    }
}
