//! Which modes of a camera to try, one after the other, until one delivers.
//!
//! A camera may offer modes that do not work: a USB bus may have no bandwidth left for raw frames, and some drivers list formats that
//! never deliver.

use super::negotiate::{Mode, RequestedMode};
use crate::capture::CaptureError;
use crate::capture::error::Reason;

/// Each attempt without a frame takes seconds. Bandwidth is refused at once.
const MAX_SILENT: usize = 2;

/// A mode that failed, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    pub mode: Mode,
    pub error: CaptureError,
}

impl Failed {
    /// Whether `mode` would fail for the same reason.
    fn rules_out(&self, mode: &Mode, requested: &RequestedMode) -> bool {
        match &self.error.reason {
            Reason::UsbBandwidth => mode.bytes_per_second(requested) >= self.mode.bytes_per_second(requested),
            _ => *mode == self.mode,
        }
    }

    fn is_silent(&self) -> bool {
        !matches!(self.error.reason, Reason::UsbBandwidth)
    }
}

/// Tries `modes` in their order until one works. After a mode that delivers nothing, another encoding is more likely to work than
/// another size. Returns it with those that failed before. The error is that of the first mode, or `none` if there are no modes.
pub fn first_that_works<T>(
    modes: &[Mode],
    requested: &RequestedMode,
    mut attempt: impl FnMut(&Mode) -> Result<T, CaptureError>,
    none: impl FnOnce() -> CaptureError,
) -> Result<(T, Vec<Failed>), CaptureError> {
    let mut failed: Vec<Failed> = Vec::new();
    while let Some(mode) = next(modes, &failed, requested) {
        let error = match attempt(mode) {
            Ok(works) => return Ok((works, failed)),
            Err(error) => error,
        };
        match error.reason {
            Reason::UsbBandwidth
            | Reason::NoFrames(_)
            | Reason::OnlyDamagedFrames
            | Reason::UnexpectedFormat { .. } => failed.push(Failed { mode: *mode, error }),
            // Another mode would not help.
            _ => return Err(failed.into_iter().next().map_or(error, |first| first.error)),
        }
    }
    Err(failed.into_iter().next().map_or_else(none, |first| first.error))
}

/// The mode to try next.
fn next<'a>(modes: &'a [Mode], failed: &[Failed], requested: &RequestedMode) -> Option<&'a Mode> {
    let silent = || failed.iter().filter(|failed| failed.is_silent());
    if silent().count() >= MAX_SILENT {
        return None;
    }
    let may_work = |mode: &&Mode| !failed.iter().any(|failed| failed.rules_out(mode, requested));
    let is_other = |mode: &&Mode| silent().all(|failed| failed.mode.encoding != mode.encoding);
    let left = || modes.iter().filter(may_work);
    left().find(is_other).or_else(|| left().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::camera::negotiate::Encoding;
    use std::time::Duration;
    use v4l::FourCC;

    const VGA: RequestedMode = RequestedMode {
        width: 640,
        height: 480,
        rate_hz: 30.0,
        format: None,
    };

    fn mode(fourcc: &[u8; 4], width: u32, height: u32) -> Mode {
        let fourcc = FourCC::new(fourcc);
        Mode {
            fourcc,
            encoding: Encoding::of(fourcc).unwrap(),
            width,
            height,
            rate_hz: Some(30.0),
        }
    }

    fn error(reason: Reason) -> CaptureError {
        CaptureError::camera("/dev/video0", reason)
    }

    /// Tries modes, of which those work that `outcome` has no error for. Returns all attempts and the result.
    fn attempts(modes: &[Mode], outcome: impl Fn(&Mode) -> Option<Reason>) -> (Vec<String>, Result<(), CaptureError>) {
        let mut tried = Vec::new();
        let attempt = |mode: &Mode| {
            tried.push(mode.to_string());
            outcome(mode).map_or(Ok(()), |reason| Err(error(reason)))
        };
        let result = first_that_works(modes, &VGA, attempt, || error(Reason::NotConnected));
        (tried, result.map(|((), _)| ()))
    }

    #[test]
    fn without_bandwidth_for_raw_frames_a_cheaper_mode_is_used() {
        let modes = [
            mode(b"YUYV", 640, 480),
            mode(b"UYVY", 640, 480),
            mode(b"MJPG", 640, 480),
            mode(b"YUYV", 320, 240),
        ];
        let raw_is_refused = |mode: &Mode| (mode.encoding != Encoding::Mjpeg).then_some(Reason::UsbBandwidth);
        let (tried, result) = attempts(&modes, raw_is_refused);
        assert_eq!(tried, ["YUYV 640×480 at 30 Hz", "MJPG 640×480 at 30 Hz"]);
        assert_eq!(result, Ok(()));
        let all_are_refused = |_: &Mode| Some(Reason::UsbBandwidth);
        let (tried, result) = attempts(&modes, all_are_refused);
        assert_eq!(tried, ["YUYV 640×480 at 30 Hz", "MJPG 640×480 at 30 Hz"]);
        assert_eq!(result, Err(error(Reason::UsbBandwidth)));
    }

    #[test]
    fn a_format_that_never_delivers_is_replaced_by_another_once() {
        let modes = [
            mode(b"GREY", 640, 480),
            mode(b"GREY", 320, 240),
            mode(b"YUYV", 640, 480),
            mode(b"MJPG", 640, 480),
        ];
        let silent = |_: &Mode| Some(Reason::NoFrames(Duration::from_secs(2)));
        let (tried, result) = attempts(&modes, silent);
        assert_eq!(tried, ["GREY 640×480 at 30 Hz", "YUYV 640×480 at 30 Hz"]);
        assert_eq!(result, Err(error(Reason::NoFrames(Duration::from_secs(2)))));
    }

    #[test]
    fn a_size_that_never_delivers_is_replaced_if_there_is_no_other_format() {
        let modes = [mode(b"MJPG", 640, 480), mode(b"MJPG", 320, 240)];
        let large_is_silent = |mode: &Mode| (mode.width == 640).then_some(Reason::NoFrames(Duration::from_secs(2)));
        let (tried, result) = attempts(&modes, large_is_silent);
        assert_eq!(tried, ["MJPG 640×480 at 30 Hz", "MJPG 320×240 at 30 Hz"]);
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn a_camera_that_is_gone_is_not_tried_in_another_mode() {
        let modes = [mode(b"YUYV", 640, 480), mode(b"MJPG", 640, 480)];
        let (tried, result) = attempts(&modes, |_| Some(Reason::NotConnected));
        assert_eq!((tried.len(), result), (1, Err(error(Reason::NotConnected))));
    }
}
