//! A camera, through V4L2.
//!
//! In: a device and a [`RequestedMode`]. Out: frames as JPEG or luma, with the kernel's capture time.
//!
//! A [`Camera`] is valid until its first error. The caller then drops it and opens a new one, because nothing is known about
//! the state of a camera that was unplugged, starved or reset.

mod discover;
mod fallback;
mod format;
mod image;
pub mod list;
pub mod negotiate;
mod node;
mod opener;
mod planes;
pub mod program;
mod stream;
mod y4m;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use v4l::buffer::Flags;
use v4l::timestamp::Timestamp;

use super::error::{Operation, Reason};
use super::monotonic::moment;
use super::{CaptureError, VideoFrame};
use crate::health::CameraCounters;
use discover::{driver_error, open_node};
use format::Format;
use image::{Layout, ReadImage};
use negotiate::{Encoding, Mode, RequestedMode};
use node::Node;
pub use opener::{CameraOpener, LiveCamera};
use program::CameraProgram;
use stream::{FilledBuffer, Stream};

/// A camera that sends nothing for this long has stalled, unless its own frame interval is longer.
const STALL: Duration = Duration::from_secs(1);
/// The time until the first frame. Some cameras take a while to start.
const START: Duration = Duration::from_secs(2);
/// A larger jump means that the frame counter restarted, not that frames were dropped.
const MAX_SEQUENCE_JUMP: u32 = 1000;

/// Which camera to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The first camera that can capture.
    Auto,
    /// A device node, or a link to one as in /dev/v4l/by-id.
    Path(PathBuf),
    /// A program that writes the frames.
    Program(CameraProgram),
}

#[derive(Debug, Clone, PartialEq)]
pub struct CameraSettings {
    pub device: Choice,
    pub mode: RequestedMode,
}

/// A running V4L2 camera.
pub struct Camera<'a> {
    name: String,
    description: String,
    stream: Stream,
    reader: FrameReader,
    /// Without a frame for this long, the camera has stalled.
    timeout: Duration,
    /// Ends a wait early.
    stop: &'a dyn Fn() -> bool,
    /// The frame that the start waited for.
    first: Option<VideoFrame>,
}

/// Turns buffers into frames and counts what is wrong with them.
struct FrameReader {
    layout: Layout,
    epoch: Instant,
    /// Frames captured earlier are stale.
    started: Instant,
    counters: CameraCounters,
    /// Sequence number and time of the previous frame.
    last: Option<(u32, Duration)>,
}

/// What a buffer holds.
#[derive(Debug)]
enum BufferContent {
    Frame(VideoFrame),
    /// A frame that was captured before the start.
    Stale,
    /// Nothing, or nothing that is an image.
    Damaged,
}

impl<'a> Camera<'a> {
    /// Starts a camera in `mode` and waits for its first frame. `stop` ends every later wait early. Frame times count from `epoch`.
    fn start(
        path: &Path,
        mode: &Mode,
        requested: &RequestedMode,
        epoch: Instant,
        counters: &CameraCounters,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Camera<'a>, CaptureError> {
        let name = path.display().to_string();
        let (node, identity) = open_node(path)?;
        let negotiated =
            configure(&node, mode, requested).map_err(|e| driver_error(&name, Operation::Configure, &e))?;
        let Some(encoding) = Encoding::of(negotiated.format.fourcc) else {
            let reason = Reason::UnexpectedFormat {
                requested: mode.to_string(),
                actual: node::format_name(negotiated.format.fourcc),
            };
            return Err(CaptureError::camera(&name, reason));
        };
        let layout = Layout {
            encoding,
            width: negotiated.format.width,
            height: negotiated.format.height,
            stride: negotiated.format.stride,
        };
        let timeout = negotiated
            .rate_hz
            .map_or(STALL, |rate| STALL.max(Duration::from_secs_f64(3.0 / rate.max(0.1))));
        let stream = Stream::of(&node).map_err(|e| driver_error(&name, Operation::Start, &e))?;
        // When buffers are requested, v4l2loopback delivers its writer's last frame again, with the time of the request.
        let started = Instant::now();
        let mut camera = Camera {
            description: format!("{name} ({}), {negotiated}", identity.card),
            name,
            stream,
            reader: FrameReader {
                layout,
                epoch,
                started,
                counters: counters.clone(),
                last: None,
            },
            timeout,
            stop,
            first: None,
        };
        camera.first = Some(camera.wait_for_frame(timeout.max(START))?);
        Ok(camera)
    }

    /// One line with the negotiated mode: `/dev/video0 (HD Webcam), YUYV 640×480 at 30 Hz`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Waits for the next frame. Times never decrease.
    pub fn next_frame(&mut self) -> Result<VideoFrame, CaptureError> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => self.wait_for_frame(self.timeout),
        }
    }

    fn wait_for_frame(&mut self, timeout: Duration) -> Result<VideoFrame, CaptureError> {
        let Camera {
            stream, reader, stop, ..
        } = self;
        let newest = |left| stream.newest(left, stop, |buffer| reader.read(&buffer));
        wait_for_frame(timeout, newest).map_err(|why| match why {
            // In the words of a running camera: the log must not repeat them while a stalled camera is opened again and again.
            NoFrame::Silent => CaptureError::camera(&self.name, Reason::NoFrames(self.timeout)),
            NoFrame::OnlyDamaged => CaptureError::camera(&self.name, Reason::OnlyDamagedFrames),
            NoFrame::Failed(error) => driver_error(&self.name, Operation::Read, &error),
        })
    }
}

impl FrameReader {
    fn read(&mut self, buffer: &FilledBuffer) -> BufferContent {
        let FilledBuffer { metadata, skipped, .. } = buffer;
        self.counters.skipped.fetch_add((*skipped).into(), Ordering::Relaxed);
        let captured = timestamp(metadata.timestamp)
            .and_then(moment)
            .unwrap_or_else(Instant::now);
        if captured < self.started {
            return BufferContent::Stale;
        }
        let (jump, previous) = match self.last {
            Some((sequence, at)) => (metadata.sequence.wrapping_sub(sequence), at),
            None => (1, Duration::ZERO),
        };
        let restarted = jump == 0 || jump > MAX_SEQUENCE_JUMP;
        if !restarted {
            // Skipped buffers advance the sequence as well, but the driver did not miss them.
            let missed: u64 = (jump - 1).saturating_sub(*skipped).into();
            self.counters.missed.fetch_add(missed, Ordering::Relaxed);
        }
        let ReadImage { payload, malformed } = self.layout.read(buffer.bytes, buffer.capacity);
        if malformed || restarted || metadata.flags.contains(Flags::ERROR) {
            self.counters.malformed.fetch_add(1, Ordering::Relaxed);
        }
        // Times never decrease, even if the driver's do.
        let at = captured.saturating_duration_since(self.epoch).max(previous);
        self.last = Some((metadata.sequence, at));
        match payload {
            Some(payload) => BufferContent::Frame(VideoFrame { at, captured, payload }),
            None => BufferContent::Damaged,
        }
    }
}

/// When a buffer was filled. Some drivers use a clock other than CLOCK_MONOTONIC. Others, such as v4l2loopback, use
/// CLOCK_MONOTONIC but do not set its flag. [`moment`] therefore ignores the flag and checks the value.
fn timestamp(timestamp: Timestamp) -> Option<Duration> {
    let seconds = Duration::from_secs(u64::try_from(timestamp.sec).ok()?);
    let micros = Duration::from_micros(u64::try_from(timestamp.usec).ok()?);
    Some(seconds + micros)
}

/// Why a camera has no frame.
#[derive(Debug)]
enum NoFrame {
    /// It sent nothing.
    Silent,
    /// It sent something, but nothing usable.
    OnlyDamaged,
    Failed(io::Error),
}

/// Waits for a frame. `newest` waits for a buffer, and returns `None` if there is none in the given time.
fn wait_for_frame(
    timeout: Duration,
    mut newest: impl FnMut(Duration) -> io::Result<Option<BufferContent>>,
) -> Result<VideoFrame, NoFrame> {
    let deadline = Instant::now() + timeout;
    let mut no_frame = NoFrame::Silent;
    loop {
        // Unusable frames do not extend the deadline: a camera that sends only these has stalled.
        let left = deadline.saturating_duration_since(Instant::now());
        match newest(left).map_err(NoFrame::Failed)? {
            Some(BufferContent::Frame(frame)) => return Ok(frame),
            Some(BufferContent::Damaged) => no_frame = NoFrame::OnlyDamaged,
            Some(BufferContent::Stale) => {}
            None => return Err(no_frame),
        }
        if Instant::now() >= deadline {
            return Err(no_frame);
        }
    }
}

/// The mode that the driver chose.
struct NegotiatedMode {
    format: Format,
    rate_hz: Option<f64>,
}

impl fmt::Display for NegotiatedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Format {
            width, height, fourcc, ..
        } = self.format;
        write!(f, "{} {width}×{height}", node::format_name(fourcc))?;
        match self.rate_hz {
            Some(rate) => write!(f, " at {} Hz", (rate * 10.0).round() / 10.0),
            None => write!(f, " at an unknown rate"),
        }
    }
}

fn configure(node: &Node, mode: &Mode, requested: &RequestedMode) -> io::Result<NegotiatedMode> {
    Ok(NegotiatedMode {
        format: node.set_format(mode.fourcc, mode.width, mode.height)?,
        rate_hz: node.set_rate(requested.rate_hz),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureErrorKind;
    use crate::capture::monotonic::clock;
    use v4l::buffer::Metadata;

    fn reader() -> FrameReader {
        let layout = Layout {
            encoding: Encoding::Grey,
            width: 2,
            height: 1,
            stride: 2,
        };
        let now = Instant::now();
        FrameReader {
            layout,
            epoch: now - Duration::from_secs(10),
            started: now - Duration::from_secs(5),
            counters: CameraCounters::default(),
            last: None,
        }
    }

    /// Reads a frame captured `ago` milliseconds ago.
    fn read(reader: &mut FrameReader, sequence: u32, ago: u64, skipped: u32) -> Option<Duration> {
        match read_bytes(reader, &[1, 2], sequence, ago, skipped) {
            BufferContent::Frame(frame) => Some(frame.at),
            BufferContent::Stale | BufferContent::Damaged => None,
        }
    }

    fn read_bytes(reader: &mut FrameReader, bytes: &[u8], sequence: u32, ago: u64, skipped: u32) -> BufferContent {
        let metadata = Metadata {
            sequence,
            timestamp: (clock() - Duration::from_millis(ago)).into(),
            ..Metadata::default()
        };
        let buffer = FilledBuffer {
            bytes,
            capacity: 2,
            metadata,
            skipped,
        };
        reader.read(&buffer)
    }

    /// Malformed and missed frames.
    fn counts(reader: &FrameReader) -> (u64, u64) {
        let CameraCounters { malformed, missed, .. } = &reader.counters;
        (malformed.load(Ordering::Relaxed), missed.load(Ordering::Relaxed))
    }

    #[test]
    fn frame_times_count_from_the_epoch_and_never_decrease() {
        let mut reader = reader();
        let first = read(&mut reader, 1, 4000, 0).unwrap();
        assert!(
            first.abs_diff(Duration::from_secs(6)) < Duration::from_millis(500),
            "{first:?}"
        );
        assert_eq!(read(&mut reader, 2, 4100, 0), Some(first));
    }

    #[test]
    fn frames_captured_before_the_start_are_ignored() {
        let mut reader = reader();
        assert_eq!(read(&mut reader, 1, 7000, 0), None);
        assert!(read(&mut reader, 2, 100, 0).is_some());
        assert_eq!(counts(&reader), (0, 0));
    }

    #[test]
    fn sequence_gaps_count_as_missed_frames_and_restarts_as_malformed() {
        let mut reader = reader();
        read(&mut reader, 1, 400, 0);
        read(&mut reader, 4, 300, 0);
        assert_eq!(counts(&reader), (0, 2));
        // Three buffers were skipped because they were not the newest. The driver did not miss them.
        read(&mut reader, 8, 200, 3);
        assert_eq!(counts(&reader), (0, 2));
        read(&mut reader, 0, 100, 0);
        assert_eq!(counts(&reader), (1, 2));
    }

    #[test]
    fn the_sequence_number_wraps_without_a_fault() {
        let mut reader = reader();
        // At 30 Hz after 4.5 years.
        read(&mut reader, u32::MAX, 400, 0);
        read(&mut reader, 0, 300, 0);
        assert_eq!(counts(&reader), (0, 0));
        read(&mut reader, 1, 200, 0);
        read(&mut reader, 3, 100, 0);
        assert_eq!(counts(&reader), (0, 1));
    }

    /// What is said of a camera whose frames, captured so many milliseconds ago, have these bytes. It then sends nothing.
    fn reason(frames: &[(&'static [u8], u64)]) -> NoFrame {
        let (mut reader, mut frames, mut sequence) = (reader(), frames.iter(), 0);
        let newest = |_| {
            sequence += 1;
            Ok(frames
                .next()
                .map(|&(bytes, ago)| read_bytes(&mut reader, bytes, sequence, ago, 0)))
        };
        wait_for_frame(STALL, newest).unwrap_err()
    }

    #[test]
    fn a_camera_that_sends_only_damaged_or_empty_frames_is_not_called_silent() {
        assert!(matches!(
            reason(&[(&[], 90), (&[1], 60), (&[], 30)]),
            NoFrame::OnlyDamaged
        ));
        assert!(matches!(reason(&[]), NoFrame::Silent));
        // The last frame of the previous program that wrote to a loopback camera.
        assert!(matches!(reason(&[(&[1, 2], 7000)]), NoFrame::Silent));
        let error = CaptureError::camera("/dev/video0", Reason::OnlyDamagedFrames);
        assert_eq!(error.kind(), CaptureErrorKind::Stalled);
        insta::assert_snapshot!(error, @"/dev/video0: sends only damaged or empty frames: try another cable, USB port or power supply");
    }

    #[test]
    fn a_frame_after_damaged_ones_is_used() {
        let mut reader = reader();
        let mut buffers = [&[][..], &[1], &[1, 2]].into_iter().zip(1..);
        let newest = |_| {
            Ok(buffers
                .next()
                .map(|(bytes, sequence)| read_bytes(&mut reader, bytes, sequence, 9, 0)))
        };
        assert!(wait_for_frame(STALL, newest).is_ok());
        assert_eq!(counts(&reader), (2, 0));
    }

    #[test]
    fn damaged_frames_without_a_pause_do_not_extend_the_deadline() {
        let endless = |_| Ok(Some(BufferContent::Damaged));
        assert!(matches!(
            wait_for_frame(Duration::from_millis(10), endless),
            Err(NoFrame::OnlyDamaged)
        ));
    }
}
