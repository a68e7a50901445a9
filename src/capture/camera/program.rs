//! A camera behind a program: `rpicam-vid` for ribbon cameras, `ffmpeg` for network cameras, or any command of the user.
//!
//! The program writes JPEG images, YUV4MPEG or raw luma to its standard output. A frame has no time of its own: it counts as captured
//! when its last byte arrives, less a delay that the user may configure.

use std::io::{self, BufReader, Read};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::negotiate::{Encoding, RequestedMode};
use super::y4m::{self, Header, Y4mError};
use crate::capture::clip::JpegSplitter;
use crate::capture::error::{Reason, RequiredProgram, SourceKind};
use crate::capture::program::{CommandLine, ProgramOutput, is_installed};
use crate::capture::{CaptureError, FramePayload, Luma, VideoFrame};
use crate::health::CameraCounters;

/// Network cameras need some seconds until their first frame.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// A program that writes nothing for this long is started again.
const PATIENCE: Duration = Duration::from_secs(4);
/// The bytes that tell what a program writes.
const MAGIC_BYTES: usize = 9;

/// A camera whose frames a program writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraProgram {
    pub command: CommandLine,
    /// How long before its arrival a frame was captured.
    pub delay: Duration,
}

/// A running program.
pub struct ProgramCamera<'a> {
    name: String,
    description: String,
    stream: FrameStream<'a>,
    epoch: Instant,
    delay: Duration,
    counters: CameraCounters,
    last: Duration,
    /// The frame that the start waited for.
    first: Option<VideoFrame>,
}

/// What the program writes.
enum FrameStream<'a> {
    Jpeg(JpegSplitter<ProgramOutput<'a>>),
    Y4m(Header, BufReader<ProgramOutput<'a>>),
    Luma(RequestedMode, BufReader<ProgramOutput<'a>>),
}

const RPICAM: RequiredProgram = RequiredProgram {
    program: "rpicam-vid",
    install: "sudo apt-get install rpicam-apps-lite",
};
const LIBCAMERA: RequiredProgram = RequiredProgram {
    program: "libcamera-vid",
    ..RPICAM
};

impl CommandLine {
    /// The command line of a camera device in the configuration: `command:…`, `libcamera:` or a `rtsp://…` address. `None` for other
    /// devices.
    pub fn of_camera(device: &str, mode: &RequestedMode) -> Option<CommandLine> {
        let RequestedMode {
            width, height, rate_hz, ..
        } = mode;
        if let Some(command) = device.strip_prefix("command:") {
            return Some(CommandLine::of_user(command));
        }
        if let Some(options) = device.strip_prefix("libcamera:") {
            // The programs had another name until Raspberry Pi OS 12.
            let required = match is_installed(RPICAM.program) || !is_installed(LIBCAMERA.program) {
                true => &RPICAM,
                false => &LIBCAMERA,
            };
            let program = required.program;
            return Some(CommandLine {
                name: device.to_owned(),
                shell_command: format!(
                    "exec {program} --nopreview --timeout 0 --codec mjpeg --width {width} --height {height} \
                     --framerate {rate_hz} --output - {options}"
                ),
                requires: Some(required),
                password: None,
            });
        }
        // Luma at the size that is needed: a second JPEG would cost time and quality.
        let scale = format!("fps={rate_hz},scale=w=min({width}\\,iw):h=-2,format=gray");
        CommandLine::of_network(device, &format!("-an -vf '{scale}' -f yuv4mpegpipe -strict -1 -"))
    }
}

impl<'a> ProgramCamera<'a> {
    /// Starts the program and waits for its first frame. Frame times count from `epoch`.
    pub fn start(
        program: &CameraProgram,
        mode: &RequestedMode,
        epoch: Instant,
        counters: &CameraCounters,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<ProgramCamera<'a>, CaptureError> {
        let CameraProgram { command, delay } = program;
        let error = |reason| CaptureError::camera(&command.name, reason);
        let mut output = command.start(SourceKind::Camera, START_PATIENCE, stop)?;
        output.begin_unit();
        let mut magic = [0; MAGIC_BYTES];
        output.read_exact(&mut magic).map_err(|e| error(output.reason(&e)))?;
        let (stream, what) = FrameStream::of(magic, output, *mode).map_err(error)?;
        let mut camera = ProgramCamera {
            description: format!("{}, {what}", command.name),
            name: command.name.clone(),
            stream,
            epoch,
            delay: *delay,
            counters: counters.clone(),
            last: Duration::ZERO,
            first: None,
        };
        camera.first = camera.next_frame()?;
        camera.stream.output().patience = PATIENCE;
        Ok(camera)
    }

    /// One line: `command:rpicam-vid, JPEG images`.
    pub fn description(&self) -> &str {
        &self.description
    }

    pub fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        self.stream.output().begin_unit();
        let payload = match self.stream.next() {
            Ok(payload) => payload,
            Err(StreamError::Io(error)) => {
                let reason = self.stream.output().reason(&error);
                return Err(CaptureError::camera(&self.name, reason));
            }
            Err(StreamError::Invalid(what)) => {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                return Err(CaptureError::camera(&self.name, Reason::UnknownStream(what)));
            }
        };
        let now = Instant::now();
        let captured = now.checked_sub(self.delay).unwrap_or(now);
        let at = captured.saturating_duration_since(self.epoch).max(self.last);
        self.last = at;
        Ok(Some(VideoFrame { at, captured, payload }))
    }
}

enum StreamError {
    Io(io::Error),
    Invalid(String),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> StreamError {
        StreamError::Io(error)
    }
}

impl From<Y4mError> for StreamError {
    fn from(error: Y4mError) -> StreamError {
        match error {
            Y4mError::Io(error) => StreamError::Io(error),
            other => StreamError::Invalid(other.to_string()),
        }
    }
}

impl<'a> FrameStream<'a> {
    /// The stream that begins with `magic`, and what it is.
    fn of(
        magic: [u8; MAGIC_BYTES],
        output: ProgramOutput<'a>,
        mode: RequestedMode,
    ) -> Result<(FrameStream<'a>, String), Reason> {
        if mode.format.and_then(Encoding::of) == Some(Encoding::Grey) {
            let what = format!("raw luma {}×{}", mode.width, mode.height);
            let input = BufReader::with_capacity(1 << 16, output.preceded_by(&magic));
            return Ok((FrameStream::Luma(mode, input), what));
        }
        if magic.starts_with(&[0xFF, 0xD8, 0xFF]) {
            let splitter = JpegSplitter::new(output.preceded_by(&magic));
            return Ok((FrameStream::Jpeg(splitter), "JPEG images".into()));
        }
        if magic.starts_with(y4m::MAGIC) {
            let mut input = BufReader::with_capacity(1 << 16, output.preceded_by(&magic));
            let header = match Header::read(&mut input) {
                Ok(header) => header,
                Err(Y4mError::Io(error)) => return Err(input.get_mut().reason(&error)),
                Err(other) => return Err(Reason::UnknownStream(other.to_string())),
            };
            let what = format!("YUV4MPEG {}×{}", header.width, header.height);
            return Ok((FrameStream::Y4m(header, input), what));
        }
        Err(Reason::UnknownStream(match magic {
            [0, 0, 0, 1, ..] | [0, 0, 1, ..] => "writes H.264 or H.265".into(),
            [b'R', b'I', b'F', b'F', ..] => "writes AVI or WAV".into(),
            text if text.iter().all(|byte| (b' '..=b'~').contains(byte)) => {
                "writes text, as gst-launch-1.0 does without -q".into()
            }
            _ => "writes neither JPEG images nor YUV4MPEG".into(),
        }))
    }

    fn next(&mut self) -> Result<FramePayload, StreamError> {
        match self {
            FrameStream::Jpeg(splitter) => {
                let image = splitter.next()?;
                Ok(FramePayload::Jpeg(
                    image.ok_or(io::ErrorKind::UnexpectedEof).map_err(io::Error::from)?,
                ))
            }
            FrameStream::Y4m(header, input) => Ok(FramePayload::Luma(header.frame(input)?)),
            FrameStream::Luma(mode, input) => {
                let mut data = vec![0; mode.width as usize * mode.height as usize];
                input.read_exact(&mut data)?;
                let luma = Luma::new(mode.width, mode.height, data);
                luma.map(FramePayload::Luma)
                    .ok_or_else(|| StreamError::Invalid("has frames without pixels".into()))
            }
        }
    }

    fn output(&mut self) -> &mut ProgramOutput<'a> {
        match self {
            FrameStream::Jpeg(splitter) => splitter.input_mut(),
            FrameStream::Y4m(_, input) | FrameStream::Luma(_, input) => input.get_mut(),
        }
    }
}
