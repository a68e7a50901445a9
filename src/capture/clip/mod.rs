//! Clips: recordings in files, played like a camera and a microphone.
//!
//! | file | read by |
//! | --- | --- |
//! | Matroska or WebM with MJPEG or uncompressed video and PCM sound | [`matroska`] |
//! | RIFF WAV | [`wav`] |
//! | a bare stream of JPEG pictures | [`mjpeg`] |
//! | anything else | [`ffmpeg`], if that program is installed |
//!
//! What a file is shows in its first bytes; its name plays no part. Video and sound read the file each on their own, so
//! that neither thread waits for the other, and share the clock of the file.

mod ebml;
mod ffmpeg;
mod matroska;
mod mjpeg;
mod playback;
mod sound;
mod tracks;
mod wav;
pub mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use matroska::{Matroska, Start};
use playback::{MatroskaAudio, MatroskaVideo};
use tracks::{Content, Track};

use super::{AudioSource, CaptureError, VideoSource};

/// A clip, opened and ready to be pulled.
pub struct Clip {
    /// `None` if the clip has no pictures.
    pub video: Option<Box<dyn VideoSource>>,
    /// `None` if the clip has no sound.
    pub audio: Option<Box<dyn AudioSource>>,
    /// One line for the log, such as `demo.mkv: Matroska, MJPEG 640x480, PCM 48000 Hz 2 channels`.
    pub description: String,
}

impl Clip {
    /// Opens the clip at `path`, which has pictures, sound or both. Fails with one line that names the file, the reason
    /// and the mend.
    pub fn open(path: &Path) -> Result<Clip, CaptureError> {
        let tools = ffmpeg::Tools {
            ffmpeg: Path::new("ffmpeg"),
            ffprobe: Path::new("ffprobe"),
        };
        open_with(&tools, path)
    }
}

fn open_with(tools: &ffmpeg::Tools, path: &Path) -> Result<Clip, CaptureError> {
    let name = path.display().to_string();
    let short = path
        .file_name()
        .map_or(name.clone(), |file| file.to_string_lossy().into_owned());
    let head = head(path, &name)?;
    if head.starts_with(&matroska::MAGIC) {
        open_matroska(tools, path, &name, &short)
    } else if wav::is_wav(&head) {
        match wav::open(&name, file(path, &name)?) {
            wav::Opened::Wav(wav) => {
                let description = format!("{short}: WAV, {}", wav.layout);
                Ok(Clip {
                    video: None,
                    audio: Some(wav),
                    description,
                })
            }
            wav::Opened::Foreign => open_ffmpeg(tools, path, &name, &short),
            wav::Opened::Absurd(reason) => Err(damaged(&name, &format!("not a usable WAV file: {reason}"))),
        }
    } else if mjpeg::is_mjpeg(&head) {
        let video = mjpeg::Mjpeg::new(&name, file(path, &name)?);
        let description = format!("{short}: MJPEG stream, taken to have 25 pictures a second");
        Ok(Clip {
            video: Some(Box::new(video)),
            audio: None,
            description,
        })
    } else {
        open_ffmpeg(tools, path, &name, &short)
    }
}

fn unusable(name: &str, reason: &str) -> CaptureError {
    CaptureError::Unusable(format!("{name}: {reason}"))
}

fn damaged(name: &str, reason: &str) -> CaptureError {
    unusable(
        name,
        &format!("{reason}: the clip is damaged; record or export it again"),
    )
}

/// The first bytes of the file.
fn head(path: &Path, name: &str) -> Result<Vec<u8>, CaptureError> {
    // Looked at before it is opened: opening a named pipe waits for its writer.
    let metadata = std::fs::metadata(path).map_err(|err| cannot_open(name, &err))?;
    if metadata.is_dir() {
        return Err(unusable(name, "is a directory: name a clip in it"));
    }
    if !metadata.is_file() {
        return Err(unusable(name, "is not a regular file: copy the clip to a file first"));
    }
    let mut head = Vec::new();
    file(path, name)?
        .take(64)
        .read_to_end(&mut head)
        .map_err(|err| cannot_open(name, &err))?;
    if head.is_empty() {
        return Err(unusable(name, "is empty: record or copy the clip again"));
    }
    Ok(head)
}

fn file(path: &Path, name: &str) -> Result<File, CaptureError> {
    File::open(path).map_err(|err| cannot_open(name, &err))
}

fn cannot_open(name: &str, err: &std::io::Error) -> CaptureError {
    match err.kind() {
        std::io::ErrorKind::NotFound => unusable(name, "no such file: check the path of the clip"),
        std::io::ErrorKind::PermissionDenied => unusable(
            name,
            "permission denied: let the user that runs affectd read it (chmod a+r)",
        ),
        _ => unusable(name, &format!("cannot be opened: {err}")),
    }
}

fn open_matroska(tools: &ffmpeg::Tools, path: &Path, name: &str, short: &str) -> Result<Clip, CaptureError> {
    let open = || {
        Matroska::open(file(path, name)?, Start::FirstCluster)
            .map_err(|trouble| damaged(name, &format!("not a usable Matroska file: {trouble}")))
    };
    let matroska = open()?;
    let tracks = matroska.tracks();
    let is_video = |track: &&Track| matches!(track.content, Content::Video(_) | Content::Foreign { video: true, .. });
    let is_audio = |track: &&Track| matches!(track.content, Content::Audio(_) | Content::Foreign { video: false, .. });
    let (video, audio) = (
        tracks.iter().find(is_video).cloned(),
        tracks.iter().find(is_audio).cloned(),
    );
    if let Some(reason) = tracks.iter().find_map(Track::absurdity) {
        return Err(damaged(name, reason));
    }
    let foreign = |track: &Option<Track>| {
        matches!(
            track,
            Some(Track {
                content: Content::Foreign { .. },
                ..
            })
        )
    };
    if foreign(&video) || foreign(&audio) {
        return open_ffmpeg(tools, path, name, short);
    }

    let mut clip = Clip {
        video: None,
        audio: None,
        description: format!("{short}: Matroska"),
    };
    if let Some(Track {
        number,
        content: Content::Video(codec),
        ..
    }) = video
    {
        clip.description += &format!(", {codec}");
        clip.video = Some(Box::new(MatroskaVideo::new(name, open()?, number, codec)));
    }
    if let Some(Track {
        number,
        content: Content::Audio(layout),
        ..
    }) = audio
    {
        clip.description += &format!(", {layout}");
        clip.audio = Some(Box::new(MatroskaAudio::new(name, open()?, number, layout)));
    }
    not_nothing(clip, name)
}

fn open_ffmpeg(tools: &ffmpeg::Tools, path: &Path, name: &str, short: &str) -> Result<Clip, CaptureError> {
    let probe = ffmpeg::probe(tools, path, name)?;
    let mut clip = Clip {
        video: None,
        audio: None,
        description: format!("{short}: through ffmpeg"),
    };
    if let Some(codec) = probe.video {
        clip.description += &format!(", {codec}");
        clip.video = Some(ffmpeg::video(tools, path, name)?);
    }
    if let Some(codec) = probe.audio {
        clip.description += &format!(", {codec}");
        clip.audio = Some(ffmpeg::audio(tools, path, name)?);
    }
    not_nothing(clip, name)
}

fn not_nothing(clip: Clip, name: &str) -> Result<Clip, CaptureError> {
    if clip.video.is_none() && clip.audio.is_none() {
        return Err(unusable(name, "has neither pictures nor sound: try another clip"));
    }
    Ok(clip)
}
