//! Whether estimates of a person can come out at this moment, and if not, why.

use std::time::Duration;

use crate::health::{Health, SourceState};

/// Estimates come at least this often, unless a stage hangs.
const MAX_SILENCE: Duration = Duration::from_secs(2);

/// `None` if affectd is ready. `silence` is the time since the last estimate; `None` before the first.
pub fn why_not_ready(silence: Option<Duration>, health: &Health) -> Option<String> {
    let states = [health.camera.get(), health.microphone.get()];
    match silence {
        None => return Some("no estimate yet: affectd is starting".into()),
        Some(silence) if silence > MAX_SILENCE => {
            let seconds = silence.as_secs();
            return Some(format!("no estimate for {seconds} s: a stage hangs, see the log"));
        }
        Some(_) => {}
    }
    let reasons: Vec<String> = health.pause.reasons().iter().map(ToString::to_string).collect();
    if !reasons.is_empty() {
        let reasons = reasons.join(", and ");
        return Some(format!("paused: the camera and the microphone are closed {reasons}"));
    }
    if states.contains(&SourceState::Running) {
        return None;
    }
    Some(problem(health).unwrap_or_else(|| format!("camera {}, microphone {}", states[0], states[1])))
}

/// What is wrong with the devices.
pub fn problem(health: &Health) -> Option<String> {
    health.report(Duration::ZERO).problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::Closed;

    #[test]
    fn a_hang_a_pause_and_absent_devices_are_named() {
        let health = Health::default();
        let now = Some(Duration::ZERO);
        let why = |silence| why_not_ready(silence, &health).unwrap_or("ready".into());
        insta::assert_snapshot!(why(None), @"no estimate yet: affectd is starting");
        insta::assert_snapshot!(why(now), @"camera off, microphone off");
        health.camera.set(SourceState::Absent, Some("not connected".into()));
        insta::assert_snapshot!(why(now), @"camera absent: not connected");
        health.microphone.set(SourceState::Running, None);
        assert_eq!(why(now), "ready");
        insta::assert_snapshot!(why(Some(Duration::from_secs(7))), @"no estimate for 7 s: a stage hangs, see the log");
        health.pause.set_closed(Some(Closed::UnknownTime));
        insta::assert_snapshot!(why(now), @"paused: the camera and the microphone are closed because the time of day is unknown");
        health.pause.pause().unwrap();
        insta::assert_snapshot!(why(now), @"paused: the camera and the microphone are closed on request, and because the time of day is unknown");
    }
}
