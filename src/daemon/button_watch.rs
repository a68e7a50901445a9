//! Pauses and resumes when somebody presses the button.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::privacy::{Button, ButtonLine, PauseSwitch};

/// How soon a stop is noticed.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How soon a line that is gone is taken again, for example that of a chip behind USB.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Runs until affectd stops.
pub fn run(line: &ButtonLine, mut button: Option<Button>, pause: &PauseSwitch, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &button else {
            sleep(RETRY_INTERVAL, stop);
            // Why it failed was logged when it was lost.
            button = line.open().ok();
            if button.is_some() {
                info!("privacy.button = {line}: works again");
            }
            continue;
        };
        match open.wait(CHECK_INTERVAL) {
            Ok(true) => toggle(pause),
            Ok(false) => {}
            Err(error) => {
                warn!("{error}; affectd tries again every {} s", RETRY_INTERVAL.as_secs());
                button = None;
            }
        }
    }
}

fn toggle(pause: &PauseSwitch) {
    let (text, result) = match pause.is_requested() {
        true => ("the button ends the pause", pause.resume()),
        false => ("the button requests a pause", pause.pause()),
    };
    match result {
        Ok(()) => info!("{text}"),
        Err(error) => warn!("{text}: {error}"),
    }
}

fn sleep(time: Duration, stop: &AtomicBool) {
    let end = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        thread::sleep(CHECK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::Closed;

    #[test]
    fn each_press_changes_the_requested_pause() {
        let pause = PauseSwitch::default();
        for expected in [true, false, true] {
            toggle(&pause);
            assert_eq!(pause.is_paused(), expected);
        }
        // In the off hours, a press ends the requested pause only.
        pause.set_closed(Some(Closed::OffHours));
        toggle(&pause);
        assert!(pause.is_paused() && !pause.is_requested());
    }
}
