//! Translates ALSA's errors, and keeps alsa-lib's messages off standard error.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::rc::Rc;

use alsa::Output;

use crate::capture::CaptureError;
use crate::capture::error::{Operation, Reason};

/// Until it is dropped, the result collects what alsa-lib would print to standard error on this thread.
pub fn capture_messages() -> Option<Rc<RefCell<Output>>> {
    Output::local_error_handler().ok()
}

/// Translates an error of ALSA.
pub fn alsa_error(name: &str, operation: Operation, error: &alsa::Error) -> CaptureError {
    let reason = match error.errno() {
        // To find a card by name, alsa-lib opens every card. It reports a card that it may not open as absent.
        libc::ENOENT | libc::ENODEV | libc::ENXIO if !may_open_cards() => Reason::PermissionDenied,
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Reason::NotConnected,
        libc::EBUSY | libc::EAGAIN => Reason::Busy,
        libc::EACCES | libc::EPERM => Reason::PermissionDenied,
        _ => Reason::Failed {
            operation,
            error: error.to_string(),
        },
    };
    CaptureError::microphone(name, reason)
}

/// Whether this process may open the control devices of all sound cards.
fn may_open_cards() -> bool {
    let nodes = fs::read_dir("/dev/snd").into_iter().flatten().flatten();
    nodes
        .filter(|node| node.file_name().to_string_lossy().starts_with("controlC"))
        .all(|node| !matches!(File::open(node.path()), Err(e) if e.kind() == ErrorKind::PermissionDenied))
}
