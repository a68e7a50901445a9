//! Opens the configured camera: a V4L2 camera in a mode that delivers, or a program.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::discover::{candidates, open_node};
use super::fallback::{Failed, first_that_works};
use super::negotiate::{self, Mode};
use super::node::format_name;
use super::program::ProgramCamera;
use super::{Camera, CameraSettings, Choice};
use crate::capture::error::Reason;
use crate::capture::{CaptureError, CaptureErrorKind, VideoFrame};
use crate::health::CameraCounters;

/// Opens the configured camera, again whenever it has failed. It remembers which camera and mode delivered.
pub struct CameraOpener {
    settings: CameraSettings,
    epoch: Instant,
    counters: CameraCounters,
    /// The node and the mode that delivered last.
    worked: Option<(PathBuf, Mode)>,
}

/// A running camera of any kind.
pub enum LiveCamera<'a> {
    V4l(Box<Camera<'a>>),
    Program(Box<ProgramCamera<'a>>),
}

impl LiveCamera<'_> {
    /// One line for the log.
    pub fn description(&self) -> &str {
        match self {
            LiveCamera::V4l(camera) => camera.description(),
            LiveCamera::Program(camera) => camera.description(),
        }
    }

    /// Waits for the next frame. `None` means that the camera has ended. Times never decrease.
    pub fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        match self {
            LiveCamera::V4l(camera) => camera.next_frame().map(Some),
            LiveCamera::Program(camera) => camera.next_frame(),
        }
    }
}

impl CameraOpener {
    /// Frame times count from `epoch`.
    pub fn new(settings: CameraSettings, epoch: Instant, counters: CameraCounters) -> CameraOpener {
        CameraOpener {
            settings,
            epoch,
            counters,
            worked: None,
        }
    }

    /// Opens and starts the camera, and waits for its first frame: some nodes open and never deliver. A camera that delivers in no
    /// mode is followed by the next one, if the configuration leaves the choice. `stop` ends the search after an attempt, each of
    /// which takes at most two seconds more, a running camera's wait for a frame, and a program at once. The error is [`CaptureErrorKind::Unusable`] only if the configured device exists and can
    /// never be a camera.
    pub fn open<'a>(&mut self, stop: &'a dyn Fn() -> bool) -> Result<LiveCamera<'a>, CaptureError> {
        let v4l = |camera| LiveCamera::V4l(Box::new(camera));
        match &self.settings.device {
            Choice::Program(program) => {
                let camera = ProgramCamera::start(program, &self.settings.mode, self.epoch, &self.counters, stop)?;
                Ok(LiveCamera::Program(Box::new(camera)))
            }
            Choice::Path(path) => self.open_path(&path.clone(), stop).map(v4l),
            Choice::Auto => self.open_any(stop).map(v4l),
        }
    }

    fn open_any<'a>(&mut self, stop: &'a dyn Fn() -> bool) -> Result<Camera<'a>, CaptureError> {
        let mut first_error = None;
        for path in self.candidates() {
            match self.open_path(&path, stop) {
                Ok(camera) => return Ok(camera),
                Err(error) if error.kind() == CaptureErrorKind::Unusable => {}
                Err(error) => first_error = first_error.or(Some(error)),
            }
            if stop() {
                break;
            }
        }
        Err(first_error.unwrap_or_else(|| CaptureError::camera("auto", Reason::NoneConnected)))
    }

    /// The nodes to try, that which delivered last first.
    fn candidates(&self) -> Vec<PathBuf> {
        let mut nodes = candidates();
        if let Some((worked, _)) = &self.worked {
            nodes.sort_by_key(|node| node != worked);
        }
        nodes
    }

    fn open_path<'a>(&mut self, path: &Path, stop: &'a dyn Fn() -> bool) -> Result<Camera<'a>, CaptureError> {
        let requested = self.settings.mode;
        let (node, _) = open_node(path)?;
        let modes = negotiate::ranked(negotiate::modes(&node, &requested), &requested);
        let offered = node.formats();
        drop(node);
        let start = |mode: &Mode| match stop() {
            true => Err(CaptureError::camera(
                &path.display().to_string(),
                Reason::NoFrames(Duration::ZERO),
            )),
            false => Camera::start(path, mode, &requested, self.epoch, &self.counters, stop),
        };
        if let Some((node, mode)) = &self.worked
            && node == path
            && modes.contains(mode)
        {
            match start(mode) {
                // Another device may have taken the bandwidth.
                Err(error) if error.reason == Reason::UsbBandwidth => {}
                result => return result,
            }
        }
        let none = || {
            let names: Vec<String> = offered.into_iter().map(format_name).collect();
            CaptureError::camera(&path.display().to_string(), Reason::NoSupportedFormat(names.join(", ")))
        };
        let started = first_that_works(&modes, &requested, |mode| Ok((start(mode)?, *mode)), none)?;
        let ((mut camera, mode), failed) = started;
        for Failed { mode, error } in &failed {
            camera.description += &format!(" (not {mode}: {})", error.reason);
        }
        self.worked = Some((path.to_path_buf(), mode));
        Ok(camera)
    }
}
