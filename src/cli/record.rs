//! `affectd record`: records the camera and the microphone to a clip.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{info, warn};

use super::level::{Level, Loudness};
use super::progress::{ProgressLine, clock};
use crate::capture::camera::CameraOpener;
use crate::capture::clip::writer::{ClipTracks, FrameResult, VideoFormat, Writer};
use crate::capture::microphone::LiveMicrophone;
use crate::capture::{AudioBlock, CaptureError, VideoFrame};
use crate::config::{Config, DeviceSettings, Source};
use crate::health::{CameraCounters, MicrophoneCounters};
use crate::named_thread::{self, ThreadRefused};

/// Frames and audio blocks that wait for the disk: about a second of both.
const QUEUE_LENGTH: usize = 100;
/// The first frame and the first audio block must come within this time.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a recording failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("record: input.clip is set, but only devices can be recorded: remove it from the configuration")]
    InputIsClip,
    #[error("{0}: exists already: name another file, or remove it")]
    FileExists(String),
    #[error("{file}: cannot be written ({error}): check the folder and the space on its disk")]
    NotWritten { file: String, error: io::Error },
    /// A device failed. The clip holds everything that came before.
    #[error(transparent)]
    Capture(CaptureError),
    #[error(transparent)]
    Thread(#[from] ThreadRefused),
    #[error(
        "record: nothing was captured within {} s: run `affectd check` to test camera and microphone",
        START_TIMEOUT.as_secs()
    )]
    NothingCaptured,
}

/// What a device thread sends.
enum Item {
    Frame(VideoFrame),
    Audio(AudioBlock),
    /// The device failed. Nothing follows.
    Failed(CaptureError),
}

/// Records until `stop` is set, until the clip has `max_mb` megabytes, or until a device fails. The clip is valid in any
/// case. With a camera, it starts with the first frame.
pub fn record(config: &Config, path: &Path, max_mb: u64, stop: &AtomicBool) -> Result<(), RecordError> {
    let Source::Devices(devices) = &config.source else {
        return Err(RecordError::InputIsClip);
    };
    let name = path.display();
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => RecordError::FileExists(name.to_string()),
        _ => RecordError::NotWritten {
            file: name.to_string(),
            error,
        },
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600) // the clip shows a person
        .open(path)
        .map_err(failed)?;
    let finished = AtomicBool::new(false);
    let recording = thread::scope(|scope| {
        let (items, incoming) = bounded(QUEUE_LENGTH);
        let recording = start_devices(scope, devices, items, &finished).map(|()| {
            let max_size = max_mb.saturating_mul(1_000_000);
            write(devices, &incoming, file, max_size, stop).map_err(failed)
        });
        finished.store(true, Ordering::Relaxed);
        // A thread that waits for space in the queue now gets an error, and ends.
        drop(incoming);
        recording
    });
    let Recording { size, device_error } = recording??;
    if size == 0 {
        let _ = std::fs::remove_file(path);
    } else {
        info!("{name}: {:.1} MB", size as f64 / 1e6);
    }
    match device_error {
        Some(error) => Err(RecordError::Capture(error)),
        None if size == 0 => Err(RecordError::NothingCaptured),
        None => Ok(()),
    }
}

/// Starts a thread for each device. It sends to `items` until `finished` is set.
fn start_devices<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    devices: &'scope DeviceSettings,
    items: Sender<Item>,
    finished: &'scope AtomicBool,
) -> Result<(), ThreadRefused> {
    let epoch = Instant::now();
    if let Some(settings) = &devices.camera {
        let items = items.clone();
        named_thread::spawn_scoped(scope, "camera", move || {
            let counters = CameraCounters::default();
            let stop = || finished.load(Ordering::Relaxed);
            send_all(&items, finished, || {
                let mut camera = CameraOpener::new(settings.clone(), epoch, counters).open(&stop)?;
                info!("camera: {}", camera.description());
                Ok(move || camera.next_frame().map(|frame| frame.map(Item::Frame)))
            });
        })?;
    }
    if let Some(settings) = &devices.microphone {
        named_thread::spawn_scoped(scope, "microphone", move || {
            let counters = MicrophoneCounters::default();
            let stop = || finished.load(Ordering::Relaxed);
            send_all(&items, finished, || {
                let mut microphone = LiveMicrophone::open(settings, epoch, &counters, &stop)?;
                info!("microphone: {}", microphone.description());
                Ok(move || microphone.next_block().map(|block| block.map(Item::Audio)))
            });
        })?;
    }
    Ok(())
}

/// Opens a device and sends everything that it delivers.
fn send_all<N>(items: &Sender<Item>, finished: &AtomicBool, open: impl FnOnce() -> Result<N, CaptureError>)
where
    N: FnMut() -> Result<Option<Item>, CaptureError>,
{
    let mut next = match open() {
        Ok(next) => next,
        Err(error) => {
            let _ = items.send(Item::Failed(error));
            return;
        }
    };
    while !finished.load(Ordering::Relaxed) {
        let item = match next() {
            Ok(Some(item)) => item,
            Ok(None) => return,
            Err(error) => Item::Failed(error),
        };
        let last = matches!(item, Item::Failed(_));
        if items.send(item).is_err() || last {
            return;
        }
    }
}

/// How a recording ended.
struct Recording {
    /// In bytes; 0 if nothing was captured.
    size: u64,
    device_error: Option<CaptureError>,
}

fn write(
    devices: &DeviceSettings,
    incoming: &Receiver<Item>,
    file: File,
    max_size: u64,
    stop: &AtomicBool,
) -> io::Result<Recording> {
    let mut file = Some(file);
    let mut writer: Option<Writer<File>> = None;
    let (mut wrong_format, mut device_error) = (0u64, None);
    let deadline = Instant::now() + START_TIMEOUT;
    let (mut line, mut level) = (
        ProgressLine::on_stderr(),
        devices.microphone.as_ref().map(|_| Level::default()),
    );
    while !stop.load(Ordering::Relaxed) {
        let item = match incoming.recv_timeout(Duration::from_millis(100)) {
            Ok(item) => item,
            Err(e) if e.is_timeout() && (writer.is_some() || Instant::now() < deadline) => continue,
            Err(_) => break,
        };
        if let Item::Failed(error) = item {
            device_error = Some(error);
            break;
        }
        if writer.is_none() {
            // The first frame decides the format of the clip.
            let video = match &item {
                Item::Frame(frame) => match VideoFormat::of(&frame.payload) {
                    Some(format) => Some(format),
                    None => continue,
                },
                _ if devices.camera.is_some() => continue,
                _ => None,
            };
            let tracks = ClipTracks {
                video,
                audio: devices.microphone.is_some(),
            };
            writer = file.take().map(|file| Writer::new(file, tracks)).transpose()?;
        }
        let Some(writer) = &mut writer else { break };
        if let (Item::Audio(block), Some(level)) = (&item, &mut level) {
            level.add(&block.samples);
        }
        match item {
            Item::Frame(frame) => match writer.add_frame(frame.at, &frame.payload)? {
                FrameResult::Added => {}
                FrameResult::WrongFormat => wrong_format += 1,
            },
            Item::Audio(block) => writer.add_audio(&block)?,
            Item::Failed(_) => {}
        }
        line.show(|elapsed| {
            let loudness = level.as_mut().map(|level| std::mem::take(level).loudness());
            progress_line(elapsed, writer.size(), loudness.as_ref())
        });
        if writer.size() >= max_size {
            info!("the clip has the size given with --max-mb");
            break;
        }
    }
    if wrong_format > 0 {
        warn!("{wrong_format} frames were left out: their format differs from that of the first frame");
    }
    let size = match &mut writer {
        Some(writer) => {
            writer.flush()?;
            writer.size()
        }
        None => 0,
    };
    Ok(Recording { size, device_error })
}

/// Time, size and level, and how to stop.
fn progress_line(elapsed: Duration, size: u64, loudness: Option<&Loudness>) -> String {
    let heard = loudness.map(|loudness| {
        let Loudness { level_db, .. } = loudness;
        let advice = loudness.advice().map_or(String::new(), |advice| format!(", {advice}"));
        format!("  [{}] {level_db:.0} dB{advice}", loudness.meter())
    });
    format!(
        "recording {}  {:.1} MB{}  Ctrl-C stops",
        clock(elapsed),
        size as f64 / 1e6,
        heard.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_time_size_and_level_and_how_to_stop() {
        let line = |samples: Option<&[f32]>| {
            let loudness = samples.map(|samples| {
                let mut level = Level::default();
                level.add(samples);
                level.loudness()
            });
            progress_line(Duration::from_secs(72), 3_400_000, loudness.as_ref())
        };
        insta::assert_snapshot!(line(Some(&[0.1, -0.1])), @"recording 1:12  3.4 MB  [############----] -20 dB  Ctrl-C stops");
        insta::assert_snapshot!(line(Some(&[1.0, -1.0])), @"recording 1:12  3.4 MB  [################] 0 dB, clipping: turn it down (alsamixer)  Ctrl-C stops");
        insta::assert_snapshot!(line(None), @"recording 1:12  3.4 MB  Ctrl-C stops");
    }
}
