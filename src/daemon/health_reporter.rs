//! The `health` thread: sends health records to the outputs.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::health::Health;
use crate::queue::Disconnected;

use super::board_watch::BoardWatch;
use super::output_senders::OutputSenders;

/// The time between two records if nothing changes.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// How soon a record follows a change, such as a device that was disconnected.
const CHANGE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Sends a record at the start, every 30 s, and when the condition of the devices or of the board changes. Returns when `end` is closed or
/// all outputs have ended.
pub fn run(health: &Health, outputs: &OutputSenders, end: &Receiver<Infallible>) {
    let started = Instant::now();
    let mut reported = None;
    let mut board = BoardWatch::new("/sys".into());
    loop {
        board.poll(health, Instant::now());
        let condition = health.condition();
        let is_due = reported
            .as_ref()
            .is_none_or(|(before, at): &(_, Instant)| at.elapsed() >= REPORT_INTERVAL || *before != condition);
        if is_due {
            if outputs.send_health(health.report(started.elapsed())) == Err(Disconnected) {
                return;
            }
            reported = Some((condition, Instant::now()));
        }
        if end.recv_timeout(CHANGE_CHECK_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}
