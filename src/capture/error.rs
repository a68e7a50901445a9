//! Why a source cannot be used, or ended early.

use std::fmt;
use std::time::Duration;

use crate::secrets::masked_name;

/// EMFILE, as the standard library shows it.
const TOO_MANY_FILES: &str = "os error 24";

/// What a [`CaptureError`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    Camera,
    Microphone,
    Clip,
}

/// What a caller can do about a [`CaptureError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureErrorKind {
    /// The source can never be used as configured. Retrying does not help.
    Unusable,
    /// The device is absent, or cannot be opened at the moment. Retrying may help.
    Lost,
    /// The device is open and sends nothing useful. Reopening it may help.
    Stalled,
    /// A clip ended early. Everything delivered before is valid.
    CutShort,
}

/// An error of a camera, a microphone or a clip. Displays as one line: "name: reason: remedy".
#[derive(Debug, Clone, PartialEq)]
pub struct CaptureError {
    pub source_kind: SourceKind,
    /// The device or the file, as the user names it, without a password.
    pub name: String,
    pub reason: Reason,
}

/// The reason of a [`CaptureError`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reason {
    // Cameras and microphones.
    #[error("no such device is connected")]
    NoneConnected,
    #[error("not connected")]
    NotConnected,
    #[error("in use by another program")]
    Busy,
    #[error("permission denied")]
    PermissionDenied,
    /// The operating system refused an operation.
    #[error("{operation} ({error})")]
    Failed { operation: Operation, error: String },

    // Cameras.
    #[error("is not a camera")]
    NotACamera,
    #[error("captures no frames, but another node of the same camera may")]
    NotACaptureNode,
    #[error("no program writes to this loopback camera yet")]
    LoopbackIdle,
    /// The camera offers these formats.
    #[error("offers no format that affectd reads or that camera.format names, only {0}")]
    NoSupportedFormat(String),
    /// The driver chose a format that affectd does not read.
    #[error("was set to {requested}, but sends {actual}")]
    UnexpectedFormat { requested: String, actual: String },
    #[error("not enough USB bandwidth")]
    UsbBandwidth,
    /// No frame within this time.
    #[error("sent no frame for {:.1} s", .0.as_secs_f64())]
    NoFrames(Duration),
    #[error("sends only damaged or empty frames")]
    OnlyDamagedFrames,

    // Programs that deliver video or audio.
    #[error("{} is not installed", .0.program)]
    ProgramMissing(RequiredProgram),
    #[error("the program cannot be run ({0})")]
    ProgramNotStarted(String),
    /// `stderr` is its last line, or empty.
    #[error("the program ended ({status}{})", after_semicolon(.stderr))]
    ProgramEnded { status: String, stderr: String },
    #[error("the program wrote nothing for {:.1} s{}", .patience.as_secs_f64(), in_parentheses(.stderr))]
    ProgramSilent { patience: Duration, stderr: String },
    /// It writes, but its frame, header or block is not whole within this time.
    #[error("the program wrote nothing whole for {:.1} s{}", .patience.as_secs_f64(), in_parentheses(.stderr))]
    ProgramIncomplete { patience: Duration, stderr: String },
    /// The program writes something that affectd does not read; the text says what.
    #[error("the program {0}")]
    UnknownStream(String),
    #[error("writes sound faster than it can have been captured")]
    ProgramTooFast,

    // Microphones.
    #[error("ALSA knows no device of this name")]
    UnknownToAlsa,
    #[error("is a playback device")]
    PlaybackOnly,
    #[error("offers no interleaved samples of S16, S24, S32 or F32")]
    NoSupportedSampleFormat,
    #[error("has no channel {number}, only {channels}")]
    NoSuchChannel { number: u16, channels: u16 },
    /// The card insists on a layout that affectd does not read.
    #[error("delivers {0}")]
    UnsupportedLayout(String),
    /// It has no clock, like ALSA's `null`.
    #[error("is not a microphone: it returns samples as fast as they are read")]
    FasterThanSound,
    /// ALSA's `file` does this at the end of its input.
    #[error("has no more samples")]
    OutOfSamples,
    /// No samples within this time.
    #[error("sent no samples for {:.1} s", .0.as_secs_f64())]
    NoSamples(Duration),

    // Clips.
    #[error("no such file")]
    NotFound,
    #[error("is a terminal")]
    Terminal,
    #[error("is a live stream, which has no end")]
    LiveStream,
    #[error("is a directory")]
    IsDirectory,
    #[error("is not a regular file")]
    NotAFile,
    #[error("is empty")]
    Empty,
    #[error("has neither video nor audio")]
    NoTracks,
    /// The header of the clip is invalid; the text says how.
    #[error("{0}")]
    InvalidHeader(String),
    #[error(
        "not Matroska with MJPEG and PCM, not WAV and not MJPEG, and ffmpeg, which could convert it, is not installed"
    )]
    FfmpegMissing,
    #[error("ffmpeg, which could convert it, cannot be started ({0})")]
    FfmpegNotStarted(String),
    #[error("ffmpeg cannot read it ({0})")]
    FfmpegFailed(String),
    /// The clip ended early, `after` this time on its own clock.
    #[error("{cause} after {:.1} s", .after.as_secs_f64())]
    CutShort { after: Duration, cause: CutCause },
}

fn after_semicolon(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("; {text}"),
    }
}

fn in_parentheses(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(" ({text})"),
    }
}

/// A program, and how to install it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequiredProgram {
    pub program: &'static str,
    pub install: &'static str,
}

/// What affectd was doing when the operating system refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Operation {
    #[error("cannot be opened")]
    Open,
    #[error("cannot be identified")]
    Identify,
    #[error("cannot be configured")]
    Configure,
    #[error("cannot be copied to a temporary file")]
    Spool,
    #[error("cannot be started")]
    Start,
    #[error("cannot be read")]
    Read,
    #[error("does not report its state")]
    QueryState,
    #[error("cannot be restarted")]
    Restart,
}

/// Why a clip ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutCause {
    #[error("cut off")]
    Truncated,
    #[error("damaged ({0})")]
    Damaged(String),
    #[error("unreadable ({0})")]
    Io(String),
}

impl From<std::io::Error> for CutCause {
    fn from(error: std::io::Error) -> CutCause {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => CutCause::Truncated,
            _ => CutCause::Io(error.to_string()),
        }
    }
}

impl CaptureError {
    pub fn camera(name: &str, reason: Reason) -> CaptureError {
        CaptureError::new(SourceKind::Camera, name, reason)
    }

    pub fn microphone(name: &str, reason: Reason) -> CaptureError {
        CaptureError::new(SourceKind::Microphone, name, reason)
    }

    pub fn clip(name: &str, reason: Reason) -> CaptureError {
        CaptureError::new(SourceKind::Clip, name, reason)
    }

    pub(super) fn new(source_kind: SourceKind, name: &str, reason: Reason) -> CaptureError {
        CaptureError {
            source_kind,
            name: masked_name(name),
            reason,
        }
    }

    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    pub fn kind(&self) -> CaptureErrorKind {
        use CaptureErrorKind::*;
        match (&self.reason, self.source_kind) {
            (Reason::CutShort { .. }, _) => CutShort,
            // A file is opened once. A device may come back, and udev may not have set its permissions yet.
            (_, SourceKind::Clip) => Unusable,
            (
                Reason::NotACamera
                | Reason::NotACaptureNode
                | Reason::UnknownToAlsa
                | Reason::PlaybackOnly
                | Reason::NoSuchChannel { .. }
                | Reason::FasterThanSound,
                _,
            ) => Unusable,
            (
                Reason::ProgramSilent { .. }
                | Reason::ProgramIncomplete { .. }
                | Reason::NoFrames(_)
                | Reason::OnlyDamagedFrames
                | Reason::NoSamples(_)
                | Reason::OutOfSamples,
                _,
            ) => Stalled,
            _ => Lost,
        }
    }

    /// Whether a program should be started again only after a growing wait.
    pub fn is_of_program(&self) -> bool {
        matches!(
            self.reason,
            Reason::ProgramMissing(_)
                | Reason::ProgramNotStarted(_)
                | Reason::ProgramEnded { .. }
                | Reason::ProgramSilent { .. }
                | Reason::ProgramIncomplete { .. }
                | Reason::UnknownStream(_)
                | Reason::ProgramTooFast
        ) && self.kind() != CaptureErrorKind::Unusable
    }

    /// What the user can do, where that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        use SourceKind::*;
        Some(match (&self.reason, self.source_kind) {
            (Reason::Failed { error, .. } | Reason::ProgramNotStarted(error), _) if error.contains(TOO_MANY_FILES) => {
                "raise the limit of open files (ulimit -n, or LimitNOFILE= of the service)"
            }
            (Reason::Busy, Camera) => "stop that program (`fuser -v /dev/video*` finds it)",
            (Reason::Busy, Microphone) => "stop that program (`fuser -v /dev/snd/*` finds it)",
            (Reason::PermissionDenied, Camera) => {
                "add the user that runs affectd to the group video (sudo usermod -aG video USER)"
            }
            (Reason::PermissionDenied, Microphone) => {
                "add the user that runs affectd to the group audio (sudo usermod -aG audio USER)"
            }
            (Reason::PermissionDenied, Clip) => "let the user that runs affectd read it (chmod a+r)",
            (Reason::NotACamera | Reason::NotACaptureNode, _) => "`affectd devices` lists the cameras",
            (Reason::NoSupportedFormat(_) | Reason::UnexpectedFormat { .. }, _) => {
                "set camera.format to auto, or use another camera"
            }
            (Reason::NoSupportedSampleFormat | Reason::UnsupportedLayout(_), _) => "use another microphone",
            (Reason::NoSuchChannel { .. }, _) => "set microphone.channel to mix, or to a lower number",
            (Reason::ProgramMissing(required), _) => required.install,
            (Reason::ProgramIncomplete { .. }, Camera) => {
                "make it write whole JPEG images, YUV4MPEG or raw luma, at least one frame a second"
            }
            (Reason::ProgramIncomplete { .. }, _) => "make it write WAV, or raw 16-bit mono at 16 kHz, in real time",
            (Reason::ProgramEnded { .. } | Reason::ProgramSilent { .. }, Clip) => {
                "check the address, and that its server runs"
            }
            (Reason::ProgramEnded { .. } | Reason::ProgramSilent { .. }, _) if self.name.contains("://") => {
                "check the address, its login and that the camera runs; `ffplay ADDRESS` shows its image"
            }
            (Reason::ProgramEnded { .. } | Reason::ProgramSilent { .. }, _) if self.name.starts_with("libcamera:") => {
                "`rpicam-hello --list-cameras` must list the camera"
            }
            (Reason::ProgramEnded { .. } | Reason::ProgramSilent { .. }, _) => "run the command by hand to see why",
            (Reason::UnknownStream(_), Camera) => {
                "make it write JPEG images (rpicam-vid --codec mjpeg), YUV4MPEG (ffmpeg -f yuv4mpegpipe), or raw luma with camera.format = \"GREY\""
            }
            (Reason::UnknownStream(_), _) => "make it write WAV, or raw 16-bit mono at 16 kHz",
            (Reason::ProgramTooFast, _) => "make it write in real time, as ffmpeg does with -re",
            (Reason::UsbBandwidth, _) => "use another USB port, or request a smaller size or a lower rate",
            (Reason::OnlyDamagedFrames, _) => "try another cable, USB port or power supply",
            (Reason::UnknownToAlsa | Reason::PlaybackOnly, _) => "`affectd devices` lists the microphones",
            (Reason::FasterThanSound | Reason::OutOfSamples, _) => {
                "`affectd devices` lists the microphones, and `run --input CLIP --realtime` plays a file"
            }
            (Reason::NotFound, _) => "check the path of the clip",
            (Reason::Terminal, _) => "pipe a clip into affectd",
            (Reason::LiveStream, _) => "give the address as --camera, and as --microphone for its sound",
            (
                Reason::Failed {
                    operation: Operation::Spool,
                    ..
                },
                _,
            ) => "set TMPDIR to a folder with more room",
            (Reason::IsDirectory, _) => "give the path of a clip in it",
            (Reason::NotAFile, _) => "copy the clip to a file first",
            (Reason::Empty, _) => "record or copy the clip again",
            (Reason::NoTracks, _) => "try another clip",
            (Reason::InvalidHeader(_), _) => "the clip is damaged; record or export it again",
            (Reason::FfmpegMissing, _) => "sudo apt-get install ffmpeg",
            (Reason::FfmpegFailed(_), _) => "the clip is damaged, or has neither video nor audio; try another clip",
            (Reason::CutShort { .. }, _) => "everything before was used; copy or record the clip again for the rest",
            _ => return None,
        })
    }
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)?;
        match self.remedy() {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CaptureError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_displays_name_reason_and_remedy() {
        let denied = CaptureError::microphone("hw:0", Reason::PermissionDenied);
        insta::assert_snapshot!(denied, @"hw:0: permission denied: add the user that runs affectd to the group audio (sudo usermod -aG audio USER)");
        let failed = CaptureError::camera(
            "/dev/video0",
            Reason::Failed {
                operation: Operation::Configure,
                error: "Invalid argument".into(),
            },
        );
        insta::assert_snapshot!(failed, @"/dev/video0: cannot be configured (Invalid argument)");
    }

    #[test]
    fn the_remedy_for_too_many_open_files_names_the_limit() {
        let error = std::io::Error::from_raw_os_error(libc::EMFILE).to_string();
        let error = CaptureError::camera("command:x", Reason::ProgramNotStarted(error));
        assert!(
            error.to_string().ends_with("or LimitNOFILE= of the service)"),
            "{error}"
        );
    }

    #[test]
    fn the_name_of_a_source_has_no_password() {
        let error = CaptureError::camera("rtmp://li:hunter2@cam/x", Reason::NotConnected);
        assert_eq!(error.name, "rtmp://li:…@cam/x");
        assert_eq!(CaptureError::microphone("hw:1,0", Reason::Busy).name, "hw:1,0");
    }

    #[test]
    fn the_remedy_for_a_program_that_ended_fits_the_source() {
        let ended = |name| {
            let reason = Reason::ProgramEnded {
                status: "exit status: 1".into(),
                stderr: String::new(),
            };
            CaptureError::camera(name, reason).to_string()
        };
        assert!(ended("rtsp://cam.lan/live").ends_with("`ffplay ADDRESS` shows its image"));
        assert!(ended("libcamera:--vflip").ends_with("`rpicam-hello --list-cameras` must list the camera"));
        assert!(ended("command:gst-launch-1.0").ends_with("run the command by hand to see why"));
    }

    #[test]
    fn the_kind_follows_from_the_reason_and_the_source() {
        let kind = |error: CaptureError| error.kind();
        let after = Duration::from_secs(1);
        let cause = CutCause::Truncated;
        for (error, expected) in [
            (CaptureError::camera("a", Reason::NotConnected), CaptureErrorKind::Lost),
            (
                CaptureError::camera("a", Reason::PermissionDenied),
                CaptureErrorKind::Lost,
            ),
            (
                CaptureError::camera("a", Reason::NotACamera),
                CaptureErrorKind::Unusable,
            ),
            (
                CaptureError::microphone("a", Reason::NoSamples(after)),
                CaptureErrorKind::Stalled,
            ),
            (
                CaptureError::clip("a", Reason::PermissionDenied),
                CaptureErrorKind::Unusable,
            ),
            (
                CaptureError::clip("a", Reason::CutShort { after, cause }),
                CaptureErrorKind::CutShort,
            ),
        ] {
            assert_eq!(kind(error.clone()), expected, "{error}");
        }
    }
}
