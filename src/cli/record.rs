//! `affectd record`: camera and microphone to a clip.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{info, warn};

use crate::capture::camera::Camera;
use crate::capture::clip::writer::{ClipTracks, FrameResult, VideoFormat, Writer};
use crate::capture::microphone::Microphone;
use crate::capture::{AudioBlock, AudioSource, CaptureError, VideoFrame, VideoSource};
use crate::config::{Config, DeviceSettings, Source};
use crate::failure::Failure;
use crate::health::CameraCounters;
use crate::health::MicrophoneCounters;

/// Pictures and runs of samples on their way to the disk. A second of both.
const AHEAD: usize = 100;
/// The first picture and the first sound must come within this.
const START: Duration = Duration::from_secs(5);

enum Item {
    Frame(VideoFrame),
    Chunk(AudioBlock),
    /// A device gave up, for this reason.
    Over(CaptureError),
}

/// Records until `stop`, until the clip has `max_mb` megabytes, or until a device fails; what was recorded is good in any
/// case. With both devices on, it starts with the first picture.
pub fn record(config: &Config, file: &Path, max_mb: u64, stop: &AtomicBool) -> Result<(), Failure> {
    let Source::Devices(devices) = &config.source else {
        return Err(Failure::Source(
            "record: input.clip is set, and only devices are recorded: remove it from the configuration".into(),
        ));
    };
    let name = file.display();
    let failed = |error: std::io::Error| {
        Failure::Output(match error.kind() {
            ErrorKind::AlreadyExists => format!("{name}: exists already: name another file, or remove it"),
            _ => format!("{name}: cannot be written ({error}): check the folder and the space on its disk"),
        })
    };
    let mut output = Some(
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(file)
            .map_err(failed)?,
    );
    let over = AtomicBool::new(false);
    let wanted = || !over.load(Ordering::Relaxed);
    let end = thread::scope(|scope| {
        let (items, incoming) = bounded(AHEAD);
        spawn(scope, devices, items, &wanted);
        let end = write(devices, &incoming, || output.take(), max_mb * 1_000_000, stop);
        over.store(true, Ordering::Relaxed);
        // Threads that wait for room see that nobody listens any more.
        drop(incoming);
        end
    });
    let End { size, failure } = end.map_err(failed)?;
    if size == 0 {
        let _ = std::fs::remove_file(file);
    } else {
        info!("{name}: {:.1} MB", size as f64 / 1e6);
    }
    match failure {
        Some(error) => Err(Failure::Source(error.to_string())),
        None if size == 0 => Err(Failure::Source(format!(
            "record: nothing was captured: `affectd check` says whether camera and microphone work (waited {} s at most)",
            START.as_secs()
        ))),
        None => Ok(()),
    }
}

/// Starts a thread for each device, which pulls it into `items` while `wanted`.
fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    devices: &'scope DeviceSettings,
    items: Sender<Item>,
    wanted: &'scope (impl Fn() -> bool + Sync),
) {
    let epoch = Instant::now();
    if let Some(settings) = &devices.camera {
        let items = items.clone();
        scope.spawn(move || {
            let faults = CameraCounters::default();
            pull(&items, wanted, || {
                let mut camera = Camera::open(settings, epoch, &faults)?;
                info!("camera: {}", camera.description());
                Ok(move || camera.next_frame().map(|frame| frame.map(Item::Frame)))
            });
        });
    }
    if let Some(settings) = &devices.microphone {
        let items = items.clone();
        scope.spawn(move || {
            let faults = MicrophoneCounters::default();
            pull(&items, wanted, || {
                let mut microphone = Microphone::open(settings, epoch, &faults)?;
                info!("microphone: {}", microphone.description());
                Ok(move || microphone.next_block().map(|chunk| chunk.map(Item::Chunk)))
            });
        });
    }
}

fn pull<N>(items: &Sender<Item>, wanted: &impl Fn() -> bool, open: impl FnOnce() -> Result<N, CaptureError>)
where
    N: FnMut() -> Result<Option<Item>, CaptureError>,
{
    let mut next = match open() {
        Ok(next) => next,
        Err(error) => {
            let _ = items.send(Item::Over(error));
            return;
        }
    };
    while wanted() {
        let item = match next() {
            Ok(Some(item)) => item,
            Ok(None) => return,
            Err(error) => Item::Over(error),
        };
        let last = matches!(item, Item::Over(_));
        if items.send(item).is_err() || last {
            return;
        }
    }
}

/// How a recording ended.
struct End {
    size: u64,
    failure: Option<CaptureError>,
}

fn write<W: std::io::Write>(
    devices: &DeviceSettings,
    incoming: &Receiver<Item>,
    mut output: impl FnMut() -> Option<W>,
    most: u64,
    stop: &AtomicBool,
) -> std::io::Result<End> {
    let sound = devices.microphone.is_some();
    let mut writer: Option<Writer<W>> = None;
    let (mut odd, mut failure) = (0u64, None);
    let deadline = Instant::now() + START;
    while !stop.load(Ordering::Relaxed) {
        let item = match incoming.recv_timeout(Duration::from_millis(100)) {
            Ok(item) => item,
            Err(e) if e.is_timeout() && (writer.is_some() || Instant::now() < deadline) => continue,
            Err(_) => break,
        };
        if let Item::Over(error) = item {
            failure = Some(error);
            break;
        }
        if writer.is_none() {
            // What the pictures are, the first one tells.
            let video = match &item {
                Item::Frame(frame) => match VideoFormat::of(&frame.payload) {
                    Some(format) => Some(format),
                    None => continue,
                },
                _ if devices.camera.is_some() => continue,
                _ => None,
            };
            let tracks = ClipTracks { video, audio: sound };
            writer = output().map(|output| Writer::new(output, tracks)).transpose()?;
        }
        let Some(writer) = &mut writer else { break };
        match item {
            Item::Frame(frame) => match writer.add_frame(frame.at, &frame.payload)? {
                FrameResult::Added => {}
                FrameResult::WrongFormat => odd += 1,
            },
            Item::Chunk(chunk) => writer.add_audio(&chunk)?,
            Item::Over(_) => {}
        }
        if writer.size() >= most {
            info!("stops at the size given with --max-mb");
            break;
        }
    }
    if odd > 0 {
        warn!("{odd} pictures of another kind than the first were left out");
    }
    let size = match &mut writer {
        Some(writer) => {
            writer.flush()?;
            writer.size()
        }
        None => 0,
    };
    Ok(End { size, failure })
}
