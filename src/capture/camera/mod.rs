//! A camera, through V4L2.
//!
//! A [`Camera`] is good until its first error: whoever pulls it drops it then and opens another, since nothing about a
//! camera that was pulled out, starved or reset can be relied on.

pub mod list;
pub mod negotiate;
mod node;
mod picture;
mod stream;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use v4l::buffer::Flags;
use v4l::timestamp::Timestamp;

use super::monotonic::moment;
use super::{CaptureError, VideoFrame, VideoSource};
use crate::health::CameraCounters;
use negotiate::{Encoding, Mode, RequestedMode};
use node::{Format, Identity, Node};
use picture::Layout;
use stream::{Filled, Stream};

/// A camera that sends nothing for this long has stalled, unless its own rate is that low.
const STALL: Duration = Duration::from_secs(1);
/// Jumps of the picture counter beyond this are no pictures missed but a counter that started again.
const LONGEST_JUMP: u32 = 1000;

/// Which camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The first that captures.
    Auto,
    /// A device node, or a link to one as in /dev/v4l/by-id.
    Path(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct CameraSettings {
    pub device: Choice,
    pub wish: RequestedMode,
}

/// A camera that captures.
pub struct Camera {
    name: String,
    description: String,
    stream: Stream,
    reader: Reader,
    /// Nothing for this long is a stall.
    patience: Duration,
}

/// Makes pictures of buffers, and counts what is wrong with them.
struct Reader {
    layout: Layout,
    epoch: Instant,
    /// Pictures from before are left over.
    started: Instant,
    faults: CameraCounters,
    /// Sequence number and time of the picture before.
    last: Option<(u32, Duration)>,
}

impl Camera {
    /// Opens the camera and starts it; times count from `epoch`. [`CaptureError::Unusable`] only where the named device is
    /// there and never will be a camera.
    pub fn open(settings: &CameraSettings, epoch: Instant, faults: &CameraCounters) -> Result<Camera, CaptureError> {
        match &settings.device {
            Choice::Path(path) => Camera::open_path(path, &settings.wish, epoch, faults),
            Choice::Auto => {
                let mut why = None;
                for path in list::nodes() {
                    match Camera::open_path(&path, &settings.wish, epoch, faults) {
                        Ok(camera) => return Ok(camera),
                        Err(CaptureError::Unusable(_)) => {}
                        Err(error) => why = why.or(Some(error)),
                    }
                }
                Err(why.unwrap_or_else(|| CaptureError::Lost("no camera: none is connected".into())))
            }
        }
    }

    fn open_path(
        path: &Path,
        wish: &RequestedMode,
        epoch: Instant,
        faults: &CameraCounters,
    ) -> Result<Camera, CaptureError> {
        let name = path.display().to_string();
        let (node, identity) = open_node(path)?;
        let failed = |doing: &str, error: io::Error| explain(&name, doing, &error);
        let modes = negotiate::ranked(negotiate::modes(&node, wish), wish);
        let Some(mode) = modes.first() else {
            return Err(CaptureError::Lost(format!(
                "{name}: sends none of GREY, NV12, YUYV and MJPG: another camera is needed"
            )));
        };
        let got = set(&node, mode, wish).map_err(|e| failed("set its format", e))?;
        let Some(encoding) = Encoding::of(got.format.fourcc) else {
            return Err(CaptureError::Lost(format!(
                "{name}: was asked for {mode} and sends {} instead: another camera is needed",
                node::name(got.format.fourcc)
            )));
        };
        let layout = Layout {
            encoding,
            width: got.format.width,
            height: got.format.height,
            stride: got.format.stride,
        };
        let patience = got
            .rate_hz
            .map_or(STALL, |rate| STALL.max(Duration::from_secs_f64(3.0 / rate.max(0.1))));
        let stream = Stream::of(&node).map_err(|e| failed("be started", e))?;
        // v4l2loopback stamps its buffers as they are asked for, and then hands out the last picture of its feeder again.
        let started = Instant::now();
        Ok(Camera {
            description: format!("{name} ({}), {got}", identity.card),
            name,
            stream,
            reader: Reader {
                layout,
                epoch,
                started,
                faults: faults.clone(),
                last: None,
            },
            patience,
        })
    }

    /// One line that says what was got: `/dev/video0 (HD Webcam), YUYV 640×480 at 30 Hz`.
    pub fn description(&self) -> &str {
        &self.description
    }
}

impl Reader {
    /// What a buffer holds; `None` if that cannot be used.
    fn read(&mut self, filled: &Filled) -> Option<VideoFrame> {
        let Filled {
            metadata, passed_over, ..
        } = filled;
        self.faults.skipped.fetch_add((*passed_over).into(), Ordering::Relaxed);
        let captured = stamp(metadata.timestamp).and_then(moment).unwrap_or_else(Instant::now);
        if captured < self.started {
            return None;
        }
        let (jump, before) = match self.last {
            Some((sequence, at)) => (metadata.sequence.wrapping_sub(sequence), at),
            None => (1, Duration::ZERO),
        };
        let astray = jump == 0 || jump > LONGEST_JUMP;
        if !astray {
            // Buffers that were passed over count as steps, and were not missed.
            let missed: u64 = (jump - 1).saturating_sub(*passed_over).into();
            self.faults.missed.fetch_add(missed, Ordering::Relaxed);
        }
        let picture::Read { picture, lied } = self.layout.read(filled.bytes, filled.capacity);
        if lied || astray || metadata.flags.contains(Flags::ERROR) {
            self.faults.malformed.fetch_add(1, Ordering::Relaxed);
        }
        // Times never go back, whatever a driver says.
        let at = captured.saturating_duration_since(self.epoch).max(before);
        self.last = Some((metadata.sequence, at));
        picture.map(|picture| VideoFrame { at, captured, picture })
    }
}

/// When a buffer was filled. On CLOCK_MONOTONIC, but v4l2loopback for one does not say so: whether the time can be of that
/// clock must be judged by itself.
fn stamp(timestamp: Timestamp) -> Option<Duration> {
    let seconds = Duration::from_secs(u64::try_from(timestamp.sec).ok()?);
    let micros = Duration::from_micros(u64::try_from(timestamp.usec).ok()?);
    Some(seconds + micros)
}

impl VideoSource for Camera {
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reader = &mut self.reader;
            match self.stream.newest(left, |filled| reader.read(&filled)) {
                Ok(Some(Some(frame))) => return Ok(Some(frame)),
                // A picture that cannot be used is none: a camera that sends nothing else has stalled.
                Ok(Some(None)) if Instant::now() < deadline => {}
                Ok(Some(None)) => {
                    return Err(CaptureError::Stalled(format!(
                        "{}: sends nothing but damaged pictures: try another cable or USB port",
                        self.name
                    )));
                }
                Ok(None) => {
                    return Err(CaptureError::Stalled(format!(
                        "{}: sent no picture for {:.1} s",
                        self.name,
                        self.patience.as_secs_f32()
                    )));
                }
                Err(error) => return Err(explain(&self.name, "be read", &error)),
            }
        }
    }
}

/// What the driver made of a request.
struct NegotiatedMode {
    format: Format,
    rate_hz: Option<f64>,
}

impl fmt::Display for NegotiatedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Format {
            width, height, fourcc, ..
        } = self.format;
        write!(f, "{} {width}×{height}", node::name(fourcc))?;
        match self.rate_hz {
            Some(rate) => write!(f, " at {} Hz", (rate * 10.0).round() / 10.0),
            None => write!(f, " at a rate it does not say"),
        }
    }
}

fn set(node: &Node, mode: &Mode, wish: &RequestedMode) -> io::Result<NegotiatedMode> {
    Ok(NegotiatedMode {
        format: node.set_format(mode.fourcc, mode.width, mode.height)?,
        rate_hz: node.set_rate(wish.rate_hz),
    })
}

/// Opens a node that captures pictures.
fn open_node(path: &Path) -> Result<(Node, Identity), CaptureError> {
    let name = path.display().to_string();
    let node = Node::open(path).map_err(|e| explain(&name, "be opened", &e))?;
    let identity = node.identity().map_err(|e| explain(&name, "be asked what it is", &e))?;
    if identity.captures {
        Ok((node, identity))
    } else if identity.captures_planes {
        Err(unusable(
            &name,
            "hands pictures over in several planes, which affectd does not read",
        ))
    } else if identity.outputs || identity.driver == "v4l2 loopback" {
        // v4l2loopback is an output, or nothing at all, until somebody feeds it.
        Err(CaptureError::Lost(format!(
            "{name}: nobody feeds this loopback camera yet"
        )))
    } else {
        Err(unusable(
            &name,
            "does not capture pictures, other nodes of the same camera may",
        ))
    }
}

fn unusable(name: &str, reason: &str) -> CaptureError {
    CaptureError::Unusable(format!(
        "{name}: {reason}: `affectd devices` lists the cameras there are"
    ))
}

/// What an error of the driver means to somebody who wants a picture.
fn explain(name: &str, doing: &str, error: &io::Error) -> CaptureError {
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "not connected".into(),
        Some(libc::EBUSY) => "in use by another program: end it (`fuser -v` names it)".into(),
        Some(libc::EACCES | libc::EPERM) => {
            "permission denied: let the user that runs affectd use cameras (usermod -aG video)".into()
        }
        Some(libc::ENOSPC) => {
            "too little USB bandwidth left: connect it to another USB port, or ask for smaller or fewer pictures".into()
        }
        Some(libc::ENOTTY | libc::EISDIR) => return unusable(name, "is no camera"),
        _ => format!("cannot {doing} ({error})"),
    };
    CaptureError::Lost(format!("{name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::monotonic::clock;
    use v4l::buffer::Metadata;

    fn reader() -> Reader {
        let layout = Layout {
            encoding: Encoding::Grey,
            width: 2,
            height: 1,
            stride: 2,
        };
        let now = Instant::now();
        Reader {
            layout,
            epoch: now - Duration::from_secs(10),
            started: now - Duration::from_secs(5),
            faults: CameraCounters::default(),
            last: None,
        }
    }

    /// A picture captured `ago` milliseconds ago.
    fn read(reader: &mut Reader, sequence: u32, ago: u64, passed_over: u32) -> Option<Duration> {
        let metadata = Metadata {
            sequence,
            timestamp: (clock() - Duration::from_millis(ago)).into(),
            ..Metadata::default()
        };
        let filled = Filled {
            bytes: &[1, 2],
            capacity: 2,
            metadata,
            passed_over,
        };
        reader.read(&filled).map(|frame| frame.at)
    }

    fn counts(reader: &Reader) -> (u64, u64) {
        let CameraCounters {
            malformed: lied,
            missed,
            ..
        } = &reader.faults;
        (lied.load(Ordering::Relaxed), missed.load(Ordering::Relaxed))
    }

    #[test]
    fn pictures_carry_the_kernels_time_since_the_epoch_and_never_go_back() {
        let mut reader = reader();
        let first = read(&mut reader, 1, 4000, 0).unwrap();
        assert!(
            first.abs_diff(Duration::from_secs(6)) < Duration::from_millis(500),
            "{first:?}"
        );
        assert_eq!(read(&mut reader, 2, 4100, 0), Some(first));
    }

    #[test]
    fn a_picture_from_before_the_start_is_left_over_and_none() {
        let mut reader = reader();
        assert_eq!(read(&mut reader, 1, 7000, 0), None);
        assert!(read(&mut reader, 2, 100, 0).is_some());
        assert_eq!(counts(&reader), (0, 0));
    }

    #[test]
    fn gaps_in_the_sequence_are_pictures_missed_and_wild_jumps_are_lies() {
        let mut reader = reader();
        read(&mut reader, 1, 400, 0);
        read(&mut reader, 4, 300, 0);
        assert_eq!(counts(&reader), (0, 2));
        // Three that were there but not the newest were not missed.
        read(&mut reader, 8, 200, 3);
        assert_eq!(counts(&reader), (0, 2));
        read(&mut reader, 0, 100, 0);
        assert_eq!(counts(&reader), (1, 2));
    }
}
