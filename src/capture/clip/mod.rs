//! Clips: recordings in files, which play like a camera and a microphone.
//!
//! | file | reader |
//! | --- | --- |
//! | Matroska or WebM with MJPEG or uncompressed video and PCM audio | [`matroska`] |
//! | RIFF WAV | [`wav`] |
//! | a stream of JPEG images, bare or saved from HTTP | [`mjpeg`] |
//! | anything else, and numbered images (`a%02d.png`) | [`ffmpeg`], if that program is installed |
//!
//! Standard input (`-`), named pipes and addresses are copied to a file first, by [`spool`].
//!
//! The first bytes of a file decide, not its name. Video and audio each open the file separately, so that neither thread
//! waits for the other. Both use the clock of the clip.

mod audio;
pub(super) mod ebml;
mod extent;
mod ffmpeg;
mod matroska;
mod mjpeg;
mod playback;
mod spool;
mod tracks;
pub(in crate::capture) mod wav;
pub mod writer;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use log::warn;

use extent::{BytesRead, CountedFile};
use ffmpeg::Named;
use matroska::{Matroska, Start};
pub(in crate::capture) use mjpeg::JpegSplitter;
use mjpeg::{Mjpeg, StreamKind};
use playback::{MatroskaAudio, MatroskaVideo};
use spool::Once;
use tracks::{Content, Media, Track, VideoCodec};
use wav::{Wav, WavError};

pub use extent::Extent;

use super::error::{Operation, Reason};
use super::{AudioSource, CaptureError, VideoSource};

/// An open clip.
pub struct Clip {
    /// `None` if the clip has no video.
    pub video: Option<Box<dyn VideoSource>>,
    /// `None` if the clip has no audio.
    pub audio: Option<Box<dyn AudioSource>>,
    /// One line for the log, such as `demo.mkv: Matroska, MJPEG 640x480, PCM 48000 Hz 2 channels`.
    pub description: String,
    pub extent: Extent,
}

impl Clip {
    /// Opens the clip at `path`, which may also be `-` for standard input, a named pipe, or the address of a file. On success it has
    /// video, audio or both.
    pub fn open(path: &Path) -> Result<Clip, CaptureError> {
        let clip = Clip::open_unless_stopped(path, &|| false)?;
        clip.ok_or_else(|| CaptureError::clip(&path.display().to_string(), Reason::NoTracks))
    }

    /// Opens the clip at `path`. `None` if `stop` says so before all of standard input, a pipe or an address is read.
    pub fn open_unless_stopped(path: &Path, stop: &dyn Fn() -> bool) -> Result<Option<Clip>, CaptureError> {
        let tools = ffmpeg::Tools {
            ffmpeg: Path::new("ffmpeg"),
            ffprobe: Path::new("ffprobe"),
        };
        let Some(once) = Once::of(path)? else {
            return open_with(&tools, path).map(Some);
        };
        let Some(spool) = once.spool(stop)? else {
            return Ok(None);
        };
        let file = ClipFile {
            path: &spool.path(),
            name: once.name(),
            short_name: once.name(),
            named: Named::Descriptor,
            bytes: Arc::default(),
        };
        // Each reader of the clip opens the copy here, so it lives as long as they do.
        open_file(&tools, &file).map(Some)
    }
}

fn open_with(tools: &ffmpeg::Tools, path: &Path) -> Result<Clip, CaptureError> {
    let file = ClipFile {
        path,
        name: path.display().to_string(),
        short_name: path.file_name().map_or_else(
            || path.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        ),
        named: Named::by(path),
        bytes: Arc::default(),
    };
    match file.named {
        Named::Images => open_ffmpeg(tools, &file),
        _ => open_file(tools, &file),
    }
}

/// Opens anything but numbered images.
fn open_file(tools: &ffmpeg::Tools, file: &ClipFile) -> Result<Clip, CaptureError> {
    let head = file.head()?;
    if head.starts_with(&matroska::MAGIC) {
        open_matroska(tools, file)
    } else if wav::is_wav(&head) {
        open_wav(tools, file)
    } else if let Some(kind) = StreamKind::of(&head) {
        Ok(Clip {
            video: Some(Box::new(Mjpeg::new(&file.name, file.open()?))),
            audio: None,
            description: format!("{}: {kind}", file.short_name),
            extent: file.extent(),
        })
    } else {
        open_ffmpeg(tools, file)
    }
}

/// A file that may be a clip.
struct ClipFile<'a> {
    path: &'a Path,
    /// The path, for error messages.
    name: String,
    /// The file name, for the log.
    short_name: String,
    named: Named,
    /// Read so far.
    bytes: Arc<BytesRead>,
}

impl ClipFile<'_> {
    fn error(&self, reason: Reason) -> CaptureError {
        CaptureError::clip(&self.name, reason)
    }

    fn open(&self) -> Result<CountedFile, CaptureError> {
        let file = File::open(self.path).map_err(|error| self.cannot_open(&error))?;
        Ok(CountedFile::new(file, &self.bytes))
    }

    /// The extent of a file that affectd reads itself.
    fn extent(&self) -> Extent {
        Extent::Bytes(Arc::clone(&self.bytes))
    }

    /// The first bytes of the file.
    fn head(&self) -> Result<Vec<u8>, CaptureError> {
        // Checks the type first, because opening a named pipe blocks until there is a writer.
        let metadata = std::fs::metadata(self.path).map_err(|error| self.cannot_open(&error))?;
        if metadata.is_dir() {
            return Err(self.error(Reason::IsDirectory));
        }
        if !metadata.is_file() {
            return Err(self.error(Reason::NotAFile));
        }
        let mut head = Vec::new();
        self.open()?
            .take(512)
            .read_to_end(&mut head)
            .map_err(|error| self.cannot_open(&error))?;
        if head.is_empty() {
            return Err(self.error(Reason::Empty));
        }
        Ok(head)
    }

    fn cannot_open(&self, error: &std::io::Error) -> CaptureError {
        self.error(match error.kind() {
            std::io::ErrorKind::NotFound => Reason::NotFound,
            std::io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
            _ => Reason::Failed {
                operation: Operation::Open,
                error: error.to_string(),
            },
        })
    }
}

fn open_wav(tools: &ffmpeg::Tools, file: &ClipFile) -> Result<Clip, CaptureError> {
    match Wav::open(&file.name, file.open()?) {
        Ok(wav) => Ok(Clip {
            video: None,
            description: format!("{}: WAV, {}", file.short_name, wav.layout),
            audio: Some(Box::new(wav)),
            extent: file.extent(),
        }),
        Err(WavError::Compressed) => open_ffmpeg(tools, file),
        Err(error) => Err(file.error(Reason::InvalidHeader(format!("not a usable WAV file: {error}")))),
    }
}

fn open_matroska(tools: &ffmpeg::Tools, file: &ClipFile) -> Result<Clip, CaptureError> {
    let open = || {
        Matroska::open(file.open()?, Start::FirstCluster)
            .map_err(|error| file.error(Reason::InvalidHeader(format!("not a usable Matroska file: {error}"))))
    };
    let matroska = open()?;
    let tracks = matroska.tracks();
    if let Some(invalid) = tracks.iter().find_map(|track| match &track.content {
        Content::Invalid(invalid) => Some(invalid),
        _ => None,
    }) {
        return Err(file.error(Reason::InvalidHeader(invalid.to_string())));
    }
    let first = |media| {
        let of_kind = || tracks.iter().filter(|track| track.content.media() == Some(media));
        of_kind().find(|track| track.is_default).or_else(|| of_kind().next())
    };

    let mut clip = Clip {
        video: None,
        audio: None,
        description: format!("{}: Matroska", file.short_name),
        extent: file.extent(),
    };
    for Track { number, content, .. } in [first(Media::Video), first(Media::Audio)].into_iter().flatten() {
        match content {
            Content::Video(codec) if has_two_images(open()?, *number, *codec) => {
                return open_ffmpeg(tools, file);
            }
            Content::Video(codec) => {
                clip.description += &format!(", {codec}");
                clip.video = Some(Box::new(MatroskaVideo::new(&file.name, open()?, *number, *codec)));
            }
            Content::Audio(layout) => {
                clip.description += &format!(", {layout}");
                clip.audio = Some(Box::new(MatroskaAudio::new(&file.name, open()?, *number, *layout)));
            }
            Content::Unsupported { .. } | Content::Invalid(_) => return open_ffmpeg(tools, file),
        }
    }
    require_tracks(clip, file)
}

/// Whether a packet holds two JPEG images, the fields of an interlaced frame, which ffmpeg can join.
fn has_two_images(mut matroska: Matroska<CountedFile>, track: u64, codec: VideoCodec) -> bool {
    let VideoCodec::Mjpeg { .. } = codec else {
        return false;
    };
    // A damaged beginning is reported when the track is read.
    let Ok(Some(block)) = matroska.next_block(track) else {
        return false;
    };
    let first = block.frames().next().map_or(&[][..], |(_, bytes)| bytes);
    mjpeg::count_images(first).is_ok_and(|images| images > 1)
}

fn open_ffmpeg(tools: &ffmpeg::Tools, file: &ClipFile) -> Result<Clip, CaptureError> {
    let probe = ffmpeg::probe(tools, file.path, file.named, &file.name)?;
    let mut clip = Clip {
        video: None,
        audio: None,
        description: format!("{}: through ffmpeg", file.short_name),
        extent: probe.duration.map_or(Extent::Unknown, Extent::Duration),
    };
    let input = ffmpeg::Input {
        tools,
        path: file.path,
        named: file.named,
        name: &file.name,
        probe: &probe,
    };
    let mut failed = None;
    let video = first_readable(&probe.video, file, &mut failed, |track| input.video(track));
    let audio = first_readable(&probe.audio, file, &mut failed, |track| input.audio(track));
    if let Some((codec, source)) = video {
        clip.description += &format!(", {codec}");
        clip.video = Some(source);
    }
    if let Some((codec, source)) = audio {
        clip.description += &format!(", {codec}");
        clip.audio = Some(source);
    }
    match (require_tracks(clip, file), failed) {
        (Ok(clip), _) => Ok(clip),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(error),
    }
}

/// Opens the first track that can be read, and logs those that cannot. The last error goes to `failed`.
fn first_readable<S>(
    tracks: &[ffmpeg::ProbedTrack],
    file: &ClipFile,
    failed: &mut Option<CaptureError>,
    open: impl Fn(&ffmpeg::ProbedTrack) -> Result<S, CaptureError>,
) -> Option<(String, S)> {
    for track in tracks {
        match open(track) {
            Ok(source) => return Some((track.description.clone(), source)),
            Err(error) => {
                warn!(
                    "{}: the track {} is left out: {error}",
                    file.short_name, track.description
                );
                *failed = Some(error);
            }
        }
    }
    None
}

fn require_tracks(clip: Clip, file: &ClipFile) -> Result<Clip, CaptureError> {
    if clip.video.is_none() && clip.audio.is_none() {
        return Err(file.error(Reason::NoTracks));
    }
    Ok(clip)
}
