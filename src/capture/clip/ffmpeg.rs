//! All other containers and codecs, through the `ffmpeg` program.
//!
//! One ffmpeg process per track writes Matroska with uncompressed frames or PCM to a pipe. A full pipe blocks the process, so
//! memory stays bounded. Nothing is written to the disk.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::matroska::{Matroska, Start};
use super::playback::{MatroskaAudio, MatroskaVideo};
use super::tracks::Content;
use crate::capture::error::Reason;
use crate::capture::{AudioSource, CaptureError, VideoSource};

/// Wider frames are scaled down to this width, which is more than the face detector can use.
const MAX_WIDTH: u32 = 1280;

/// Formats that hold what they play. Others name further files: a playlist that somebody sends must not choose files of this computer.
const SELF_CONTAINED: &str = "aac,ac3,aiff,amr,apng,asf,au,avi,caf,dv,flac,flv,gif,h264,hevc,image2pipe,ivf,jpeg_pipe,m4v,matroska,mjpeg,\
    mov,mp3,mpeg,mpegts,mpegvideo,mpjpeg,mxf,nut,ogg,png_pipe,rm,voc,w64,wav,webp_pipe,wtv,yuv4mpegpipe";

/// How many bytes of ffmpeg's standard error are kept.
const MAX_STDERR: usize = 4096;

/// The programs to run: paths, or names to look up in PATH.
pub struct Tools<'a> {
    pub ffmpeg: &'a Path,
    pub ffprobe: &'a Path,
}

/// The tracks of each kind, the recorder's choice first.
#[derive(Debug, Default, PartialEq)]
pub struct Probe {
    pub video: Vec<ProbedTrack>,
    pub audio: Vec<ProbedTrack>,
    pub duration: Option<Duration>,
}

/// A track that ffprobe found.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbedTrack {
    /// Its number in the file, from 0.
    index: u32,
    is_default: bool,
    /// ffmpeg knows its format, so it can at least copy it.
    is_known: bool,
    /// Its codec and format, for the log.
    pub description: String,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    File,
    /// Numbered images: `a%02d.png` is a00.png, a01.png and so on.
    Images,
    /// A file that only this process has open.
    Descriptor,
}

impl Named {
    /// What `path` names. A file whose name looks like a pattern is a file.
    pub fn by(path: &Path) -> Named {
        let is_pattern = !path.exists() && first_images(path).any(|image| image.exists());
        if is_pattern { Named::Images } else { Named::File }
    }

    /// Options of ffmpeg and ffprobe that come before the input.
    fn restrictions(self) -> &'static [&'static str] {
        match self {
            Named::File | Named::Images => &[],
            Named::Descriptor => &["-format_whitelist", SELF_CONTAINED],
        }
    }

    /// Lets ffmpeg or ffprobe read `path`.
    fn give_to(self, command: &mut Command, path: &Path) -> std::io::Result<()> {
        let has_percent = path.as_os_str().as_bytes().contains(&b'%');
        // ffmpeg would take the name for a pattern.
        let is_misread = self == Named::File && has_percent;
        if is_misread || self == Named::Descriptor {
            command.arg("file:/proc/self/fd/0").stdin(File::open(path)?);
        } else {
            command.arg(url(path)).stdin(Stdio::null());
        }
        Ok(())
    }
}

/// The images of a pattern of which one must exist: ffmpeg starts with the first of these that does. None if `path` is no pattern.
fn first_images(path: &Path) -> impl Iterator<Item = PathBuf> {
    const START_RANGE: u32 = 5;
    let numbers = match parse_pattern(path.as_os_str().as_bytes()) {
        Some(_) => 0..START_RANGE,
        None => 0..0,
    };
    numbers.filter_map(move |number| {
        let (before, width, after) = parse_pattern(path.as_os_str().as_bytes())?;
        let image = [before, format!("{number:0width$}").as_bytes(), after].concat();
        Some(OsString::from_vec(image).into())
    })
}

/// Splits `a%02d.png` into `a`, 2 and `.png`.
fn parse_pattern(path: &[u8]) -> Option<(&[u8], usize, &[u8])> {
    let start = path.iter().position(|&byte| byte == b'%')?;
    let digits = path[start + 1..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let end = start + 1 + digits;
    if path.get(end) != Some(&b'd') || path[end..].contains(&b'%') || digits > 2 {
        return None;
    }
    let width = std::str::from_utf8(&path[start + 1..end]).ok()?.parse().unwrap_or(0);
    Some((&path[..start], width, &path[end + 1..]))
}

/// Asks ffprobe for the tracks of a clip. Error messages call it `name`.
pub fn probe(tools: &Tools, path: &Path, named: Named, name: &str) -> Result<Probe, CaptureError> {
    let mut command = Command::new(tools.ffprobe);
    command
        .args([
            "-v",
            "error",
            "-protocol_whitelist",
            "file",
            "-of",
            "compact=p=0",
            "-show_entries",
        ])
        .arg(
            "stream=index,codec_type,codec_name,width,height,sample_rate,channels:stream_disposition=default,attached_pic:format=duration",
        );
    command.args(named.restrictions());
    let output = named
        .give_to(&mut command, path)
        .and_then(|()| command.output())
        .map_err(|err| cannot_start(name, &err))?;
    if !output.status.success() {
        let reason = last_line(&output.stderr, path);
        return Err(CaptureError::clip(name, Reason::FfmpegFailed(reason)));
    }
    Ok(parse_probe(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_probe(text: &str) -> Probe {
    let mut probe = Probe::default();
    for line in text.lines() {
        let field = |key: &str| {
            line.split('|')
                .filter_map(|pair| pair.split_once('='))
                .find(|(k, _)| *k == key)
        };
        let value = |key| field(key).map_or("?", |(_, value)| value);
        if let Ok(seconds) = value("duration").parse() {
            probe.duration = Duration::try_from_secs_f64(seconds).ok();
        }
        let Ok(index) = value("index").parse() else {
            continue;
        };
        let track = |description| ProbedTrack {
            index,
            is_default: value("disposition:default") == "1",
            is_known: !matches!(value("codec_name"), "unknown" | "none" | "?") && value("width") != "0",
            description,
        };
        match value("codec_type") {
            // Cover art is not video.
            "video" if value("disposition:attached_pic") != "1" => {
                let described = format!("{} {}x{}", value("codec_name"), value("width"), value("height"));
                probe.video.push(track(described));
            }
            "audio" => {
                let rate_hz = value("sample_rate");
                let channels = value("channels");
                let plural = if channels == "1" { "" } else { "s" };
                let codec = value("codec_name");
                probe
                    .audio
                    .push(track(format!("{codec} {rate_hz} Hz {channels} channel{plural}")));
            }
            _ => {}
        }
    }
    for tracks in [&mut probe.video, &mut probe.audio] {
        tracks.sort_by_key(|track| !track.is_default);
    }
    probe
}

/// A clip that ffmpeg can read.
pub struct Input<'a> {
    pub tools: &'a Tools<'a>,
    pub path: &'a Path,
    pub named: Named,
    /// What error messages call it.
    pub name: &'a str,
    pub probe: &'a Probe,
}

impl Input<'_> {
    /// Opens a video track.
    pub fn video(&self, track: &ProbedTrack) -> Result<Box<dyn VideoSource>, CaptureError> {
        // Makes the pixels square, because faces must not be distorted. The time base preserves variable frame rates.
        let scale = format!("scale=w='min({MAX_WIDTH},max(1,trunc(iw*sar)))':h='max(1,trunc(ow/dar))',format=gray");
        let args = ["-vf", &scale, "-enc_time_base", "1:1000", "-c:v", "rawvideo"];
        let matroska = self.start(track, &args)?;
        let (number, content) = only_track(&matroska);
        match content {
            Some(Content::Video(codec)) => Ok(Box::new(MatroskaVideo::new(self.name, matroska, number, codec))),
            other => Err(unexpected(self.name, other)),
        }
    }

    /// Opens an audio track.
    pub fn audio(&self, track: &ProbedTrack) -> Result<Box<dyn AudioSource>, CaptureError> {
        let matroska = self.start(track, &["-c:a", "pcm_s16le"])?;
        let (number, content) = only_track(&matroska);
        match content {
            Some(Content::Audio(layout)) => Ok(Box::new(MatroskaAudio::new(self.name, matroska, number, layout))),
            other => Err(unexpected(self.name, other)),
        }
    }

    fn start(&self, track: &ProbedTrack, args: &[&str]) -> Result<Matroska<Pipe>, CaptureError> {
        let &Input {
            tools,
            path,
            named,
            name,
            ..
        } = self;
        let stream = |track: &ProbedTrack| format!("0:{}", track.index);
        let mut command = Command::new(tools.ffmpeg);
        command
            .args(["-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"])
            .args(named.restrictions())
            .arg("-i");
        named
            .give_to(&mut command, path)
            .map_err(|err| cannot_start(name, &err))?;
        command
            .args(["-map", &stream(track)])
            .args(args)
            .args(["-f", "matroska", "pipe:1"]);
        // ffmpeg counts time from the first of the streams that it uses. The second output has them all, so that the processes of
        // both tracks have one clock. ffmpeg does not decode it, and discards it.
        let all = || {
            self.probe
                .video
                .iter()
                .chain(&self.probe.audio)
                .filter(|track| track.is_known)
        };
        for track in all() {
            command.args(["-map", &stream(track)]);
        }
        if all().next().is_some() {
            command.args(["-c", "copy", "-f", "null", "-"]);
        }
        let pipe = Pipe::spawn(command, path, name).map_err(|err| cannot_start(name, &err))?;
        Matroska::open(pipe, Start::Zero)
            .map_err(|error| CaptureError::clip(name, Reason::FfmpegFailed(error.to_string())))
    }
}

fn only_track(matroska: &Matroska<Pipe>) -> (u64, Option<Content>) {
    let track = matroska.tracks().first();
    (
        track.map_or(0, |track| track.number),
        track.map(|track| track.content.clone()),
    )
}

fn unexpected(name: &str, content: Option<Content>) -> CaptureError {
    CaptureError::clip(name, Reason::FfmpegFailed(format!("unexpected output: {content:?}")))
}

/// Makes a URL of the path, so that ffmpeg never takes a file name for an option or a protocol.
fn url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

fn cannot_start(name: &str, err: &std::io::Error) -> CaptureError {
    let reason = match err.kind() {
        std::io::ErrorKind::NotFound => Reason::FfmpegMissing,
        _ => Reason::FfmpegNotStarted(err.to_string()),
    };
    CaptureError::clip(name, reason)
}

/// The last line of a program's standard error, without the name of the file.
fn last_line(stderr: &[u8], path: &Path) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("no error message");
    let names = [
        format!("file:{}: ", path.display()),
        "file:/proc/self/fd/0: ".to_owned(),
    ];
    let rest = names.iter().find_map(|name| line.strip_prefix(name.as_str()));
    rest.unwrap_or(line).to_owned()
}

/// The output of an ffmpeg process. If the process fails, the end of the output is an error. Dropping this kills the process.
struct Pipe {
    child: Child,
    output: ChildStdout,
    /// Reads standard error. `None` once the process has been waited for.
    stderr: Option<JoinHandle<Vec<u8>>>,
    name: String,
    path: PathBuf,
}

impl Pipe {
    fn spawn(mut command: Command, path: &Path, name: &str) -> std::io::Result<Pipe> {
        // A process group of its own, so that Ctrl-C on the terminal does not reach ffmpeg before affectd has stopped reading.
        let mut child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || std::io::Error::other("no pipe");
        let output = child.stdout.take().ok_or_else(missing)?;
        let mut stderr = child.stderr.take().ok_or_else(missing)?;
        // Read continuously, because ffmpeg blocks once this pipe is full.
        let stderr = std::thread::Builder::new()
            .name("ffmpeg-stderr".to_owned())
            .spawn(move || {
                let (mut kept, mut part) = (Vec::new(), [0; 1024]);
                while let Ok(count @ 1..) = stderr.read(&mut part) {
                    kept.extend_from_slice(&part[..count]);
                    let surplus = kept.len().saturating_sub(MAX_STDERR);
                    kept.drain(..surplus);
                }
                kept
            })?;
        Ok(Pipe {
            child,
            output,
            stderr: Some(stderr),
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Waits for the process, which has closed its output. Returns an error if the process failed.
    fn finish(&mut self) -> std::io::Result<()> {
        let Some(stderr) = self.stderr.take() else {
            return Ok(());
        };
        let stderr = stderr.join().unwrap_or_default();
        let status = self.child.wait()?;
        if !status.success() {
            let reason = last_line(&stderr, &self.path);
            return Err(std::io::Error::other(format!("ffmpeg ended with {status}: {reason}")));
        }
        if !stderr.is_empty() {
            log::warn!("{}: ffmpeg: {}", self.name, last_line(&stderr, &self.path));
        }
        Ok(())
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.output.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.finish()?;
        }
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Both calls fail if the process has already been waited for. That is harmless.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tracks_come_first_and_cover_art_is_ignored() {
        let text = "index=0|codec_name=mjpeg|codec_type=video|width=300|height=300|disposition:attached_pic=1\n\
                    index=1|codec_name=aac|codec_type=audio|sample_rate=44100|channels=2|disposition:default=0\n\
                    index=2|codec_name=h264|codec_type=video|width=640|height=480|disposition:attached_pic=0\n\
                    index=3|codec_name=opus|codec_type=audio|sample_rate=48000|channels=1|disposition:default=1\n";
        let probe = parse_probe(text);
        let described = |tracks: &[ProbedTrack]| -> Vec<(u32, String)> {
            tracks.iter().map(|t| (t.index, t.description.clone())).collect()
        };
        assert_eq!(described(&probe.video), [(2, "h264 640x480".into())]);
        let audio = [
            (3, "opus 48000 Hz 1 channel".into()),
            (1, "aac 44100 Hz 2 channels".into()),
        ];
        assert_eq!(described(&probe.audio), audio);
        assert_eq!(parse_probe("side data\n\n"), Probe::default());
    }

    #[test]
    fn a_pattern_has_one_number() {
        let parts = |pattern: &'static str| parse_pattern(pattern.as_bytes());
        assert_eq!(parts("/x/a%02d.png"), Some((&b"/x/a"[..], 2, &b".png"[..])));
        assert_eq!(parts("%d"), Some((&b""[..], 0, &b""[..])));
        for other in ["a.png", "a%", "a%%d", "a%2", "a%s", "%d%d", "100%.mp4", "%99999999999d"] {
            assert_eq!(parts(other), None, "{other}");
        }
        let images: Vec<_> = first_images(Path::new("a%02d.png")).collect();
        assert_eq!(images.first(), Some(&PathBuf::from("a00.png")));
        assert_eq!(images.last(), Some(&PathBuf::from("a04.png")));
    }

    /// A pipe from a shell script.
    fn script(body: &str) -> Pipe {
        let mut command = Command::new("sh");
        command.args(["-c", body]).stdin(Stdio::null());
        Pipe::spawn(command, Path::new("a.mp4"), "a.mp4").unwrap()
    }

    #[test]
    fn a_missing_ffmpeg_is_reported_with_the_command_to_install_it() {
        let nowhere = Path::new("/nonexistent/ffprobe");
        let tools = Tools {
            ffmpeg: nowhere,
            ffprobe: nowhere,
        };
        let error = probe(&tools, Path::new("clip.mp4"), Named::File, "clip.mp4").unwrap_err();
        insta::assert_snapshot!(error, @"clip.mp4: not Matroska with MJPEG and PCM, not WAV and not MJPEG, and ffmpeg, which could convert it, is not installed: sudo apt-get install ffmpeg");
    }

    #[test]
    fn the_error_of_a_failed_ffmpeg_is_reported() {
        let mut pipe = script("printf data; echo 'file:a.mp4: moov atom not found' >&2; exit 1");
        let mut data = Vec::new();
        let err = pipe.read_to_end(&mut data).unwrap_err().to_string();
        assert_eq!(err, "ffmpeg ended with exit status: 1: moov atom not found");
        assert_eq!(data, b"data");
        let (ffmpeg, ffprobe) = (Path::new("false"), Path::new("false"));
        let error = probe(&Tools { ffmpeg, ffprobe }, Path::new("a.mp4"), Named::File, "a.mp4").unwrap_err();
        insta::assert_snapshot!(error, @"a.mp4: ffmpeg cannot read it (no error message): the clip is damaged, or has neither video nor audio; try another clip");
    }

    #[test]
    fn dropping_a_pipe_ends_its_process() {
        let pipe = script("exec sleep 1000");
        let process = Path::new("/proc").join(pipe.child.id().to_string());
        assert!(process.exists());
        drop(pipe);
        assert!(!process.exists());
    }

    #[test]
    fn a_long_standard_error_neither_blocks_nor_fills_memory() {
        let mut pipe = script("head -c 1000000 /dev/zero >&2; echo >&2; echo last >&2; exit 3");
        let err = pipe.read(&mut [0; 16]).unwrap_err().to_string();
        assert!(err.ends_with(": last"), "{err}");
    }
}
