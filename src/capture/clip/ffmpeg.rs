//! Every other container and codec, through the `ffmpeg` program: one process a track, writing Matroska with raw
//! pictures or PCM to a pipe. A full pipe makes it wait, so that memory stays bounded, and nothing touches the disk.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::matroska::{Matroska, Start};
use super::playback::{MatroskaAudio, MatroskaVideo};
use super::tracks::Content;
use crate::capture::{AudioSource, CaptureError, VideoSource};

/// Larger pictures are scaled down to this width: it is more than the face detector can use.
const WIDEST: u32 = 1280;

/// How much of what ffmpeg says we keep.
const LONGEST_COMPLAINT: usize = 4096;

/// The programs to run: names to look up in PATH, or paths.
pub struct Tools<'a> {
    pub ffmpeg: &'a Path,
    pub ffprobe: &'a Path,
}

/// The first track of each kind, described for the log.
#[derive(Debug, Default, PartialEq)]
pub struct Probe {
    pub video: Option<String>,
    pub audio: Option<String>,
}

/// Asks ffprobe what the file holds. `name` is how the messages call it.
pub fn probe(tools: &Tools, path: &Path, name: &str) -> Result<Probe, CaptureError> {
    let output = Command::new(tools.ffprobe)
        .args([
            "-v",
            "error",
            "-protocol_whitelist",
            "file",
            "-of",
            "compact=p=0",
            "-show_entries",
        ])
        .arg("stream=codec_type,codec_name,width,height,sample_rate,channels:stream_disposition=attached_pic")
        .arg(url(path))
        .stdin(Stdio::null())
        .output()
        .map_err(|err| cannot_start(name, &err))?;
    if !output.status.success() {
        let reason = last_line(&output.stderr, path);
        return Err(CaptureError::Unusable(format!(
            "{name}: damaged, or neither video nor sound: ffmpeg cannot read it ({reason}); try another clip"
        )));
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
        match value("codec_type") {
            // Cover art is a picture, but nobody's face in front of a camera.
            "video" if value("disposition:attached_pic") != "1" => {
                let described = format!("{} {}x{}", value("codec_name"), value("width"), value("height"));
                probe.video.get_or_insert(described);
            }
            "audio" => {
                let rate_hz = value("sample_rate");
                let channels = value("channels");
                let plural = if channels == "1" { "" } else { "s" };
                probe.audio.get_or_insert(format!(
                    "{} {rate_hz} Hz {channels} channel{plural}",
                    value("codec_name")
                ));
            }
            _ => {}
        }
    }
    probe
}

/// Starts on the first video track.
pub fn video(tools: &Tools, path: &Path, name: &str) -> Result<Box<dyn VideoSource>, CaptureError> {
    // Pixels need not be square; faces must be. The time base keeps a variable frame rate as it is.
    let scale = format!("scale=w='min({WIDEST},max(1,trunc(iw*sar)))':h='max(1,trunc(ow/dar))',format=gray");
    let args = [
        "-map",
        "0:V:0",
        "-vf",
        &scale,
        "-enc_time_base",
        "1:1000",
        "-c:v",
        "rawvideo",
    ];
    let matroska = start(tools, path, name, &args)?;
    let (number, content) = only_track(&matroska);
    match content {
        Some(Content::Video(codec)) => Ok(Box::new(MatroskaVideo::new(name, matroska, number, codec))),
        other => Err(unexpected(name, other)),
    }
}

/// Starts on the first audio track.
pub fn audio(tools: &Tools, path: &Path, name: &str) -> Result<Box<dyn AudioSource>, CaptureError> {
    let matroska = start(tools, path, name, &["-map", "0:a:0", "-c:a", "pcm_s16le"])?;
    let (number, content) = only_track(&matroska);
    match content {
        Some(Content::Audio(layout)) => Ok(Box::new(MatroskaAudio::new(name, matroska, number, layout))),
        other => Err(unexpected(name, other)),
    }
}

fn start(tools: &Tools, path: &Path, name: &str, args: &[&str]) -> Result<Matroska<Pipe>, CaptureError> {
    let mut command = Command::new(tools.ffmpeg);
    command
        .args(["-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i"])
        .arg(url(path))
        .args(args)
        .args(["-f", "matroska", "pipe:1"]);
    let pipe = Pipe::spawn(command, path, name).map_err(|err| cannot_start(name, &err))?;
    Matroska::open(pipe, Start::Zero)
        .map_err(|trouble| CaptureError::Unusable(format!("{name}: ffmpeg cannot convert it: {trouble}")))
}

fn only_track(matroska: &Matroska<Pipe>) -> (u64, Option<Content>) {
    let track = matroska.tracks().first();
    (
        track.map_or(0, |track| track.number),
        track.map(|track| track.content.clone()),
    )
}

fn unexpected(name: &str, content: Option<Content>) -> CaptureError {
    CaptureError::Unusable(format!("{name}: ffmpeg made something unexpected of it: {content:?}"))
}

/// Names the file such that no file name is taken for an option, a protocol or a pattern.
fn url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

fn cannot_start(name: &str, err: &std::io::Error) -> CaptureError {
    CaptureError::Unusable(if err.kind() == std::io::ErrorKind::NotFound {
        format!(
            "{name}: not Matroska with MJPEG and PCM, WAV or MJPEG, and ffmpeg, which could convert it, is not \
             installed: sudo apt-get install ffmpeg"
        )
    } else {
        format!("{name}: ffmpeg, which could convert it, cannot be started: {err}")
    })
}

/// The last thing a program complained of, less the name of the file.
fn last_line(complaint: &[u8], path: &Path) -> String {
    let text = String::from_utf8_lossy(complaint);
    let line = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("it does not say why");
    let name = format!("file:{}: ", path.display());
    line.strip_prefix(name.as_str()).unwrap_or(line).to_owned()
}

/// What an ffmpeg process writes. A failed process is an error at the end; dropping this ends the process.
struct Pipe {
    child: Child,
    output: ChildStdout,
    /// Reads what ffmpeg says; taken once the process is collected.
    complaint: Option<JoinHandle<Vec<u8>>>,
    name: String,
    path: PathBuf,
}

impl Pipe {
    fn spawn(mut command: Command, path: &Path, name: &str) -> std::io::Result<Pipe> {
        // In a group of its own, so that a Ctrl-C on the terminal ends us and not ffmpeg beneath us.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || std::io::Error::other("no pipe");
        let output = child.stdout.take().ok_or_else(missing)?;
        let mut errors = child.stderr.take().ok_or_else(missing)?;
        // Read all along, or ffmpeg would wait for ever once that pipe is full.
        let complaint = std::thread::Builder::new()
            .name("ffmpeg-stderr".to_owned())
            .spawn(move || {
                let (mut kept, mut part) = (Vec::new(), [0; 1024]);
                while let Ok(count @ 1..) = errors.read(&mut part) {
                    kept.extend_from_slice(&part[..count]);
                    let surplus = kept.len().saturating_sub(LONGEST_COMPLAINT);
                    kept.drain(..surplus);
                }
                kept
            })?;
        Ok(Pipe {
            child,
            output,
            complaint: Some(complaint),
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Collects the process at its end and says whether it is content.
    fn finish(&mut self) -> std::io::Result<()> {
        let Some(complaint) = self.complaint.take() else {
            return Ok(());
        };
        let complaint = complaint.join().unwrap_or_default();
        let status = self.child.wait()?;
        if !status.success() {
            let reason = last_line(&complaint, &self.path);
            return Err(std::io::Error::other(format!("ffmpeg ended with {status}: {reason}")));
        }
        if !complaint.is_empty() {
            log::warn!("{}: ffmpeg: {}", self.name, last_line(&complaint, &self.path));
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
        // Both fail where the process is gone already, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_track_of_each_kind_counts_and_cover_art_does_not() {
        let text = "codec_name=mjpeg|codec_type=video|width=300|height=300|disposition:attached_pic=1\n\
                    codec_name=aac|codec_type=audio|sample_rate=44100|channels=2|disposition:attached_pic=0\n\
                    codec_name=h264|codec_type=video|width=640|height=480|disposition:attached_pic=0\n\
                    codec_name=opus|codec_type=audio|sample_rate=48000|channels=1\n";
        let probe = parse_probe(text);
        assert_eq!(probe.video.as_deref(), Some("h264 640x480"));
        assert_eq!(probe.audio.as_deref(), Some("aac 44100 Hz 2 channels"));
        assert_eq!(parse_probe("side data\n\n"), Probe::default());
    }

    /// A process made of a shell script.
    fn script(body: &str) -> Pipe {
        let mut command = Command::new("sh");
        command.args(["-c", body]);
        Pipe::spawn(command, Path::new("a.mp4"), "a.mp4").unwrap()
    }

    #[test]
    fn without_ffmpeg_the_message_says_how_to_get_it() {
        let nowhere = Path::new("/nonexistent/ffprobe");
        let tools = Tools {
            ffmpeg: nowhere,
            ffprobe: nowhere,
        };
        let err = probe(&tools, Path::new("clip.mp4"), "clip.mp4")
            .unwrap_err()
            .to_string();
        assert_eq!(
            err,
            "clip.mp4: not Matroska with MJPEG and PCM, WAV or MJPEG, and ffmpeg, which could convert it, is not \
             installed: sudo apt-get install ffmpeg"
        );
    }

    #[test]
    fn what_a_failing_ffmpeg_says_is_passed_on() {
        let mut pipe = script("printf data; echo 'file:a.mp4: moov atom not found' >&2; exit 1");
        let mut data = Vec::new();
        let err = pipe.read_to_end(&mut data).unwrap_err().to_string();
        assert_eq!(err, "ffmpeg ended with exit status: 1: moov atom not found");
        assert_eq!(data, b"data");
        let (ffmpeg, ffprobe) = (Path::new("false"), Path::new("false"));
        let err = probe(&Tools { ffmpeg, ffprobe }, Path::new("a.mp4"), "a.mp4")
            .unwrap_err()
            .to_string();
        assert!(err.starts_with("a.mp4: damaged, or neither video nor sound"), "{err}");
    }

    #[test]
    fn a_dropped_pipe_leaves_no_process_behind() {
        let pipe = script("exec sleep 1000");
        let process = Path::new("/proc").join(pipe.child.id().to_string());
        assert!(process.exists());
        drop(pipe);
        assert!(!process.exists());
    }

    #[test]
    fn a_chatty_ffmpeg_neither_blocks_nor_fills_memory() {
        let mut pipe = script("head -c 1000000 /dev/zero >&2; echo >&2; echo last >&2; exit 3");
        let err = pipe.read(&mut [0; 16]).unwrap_err().to_string();
        assert!(err.ends_with(": last"), "{err}");
    }
}
