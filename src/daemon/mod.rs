//! The threads, and the arrows between them.
//!
//! ```text
//! camera ─▶ face ──┐
//!                  ├─▶ fusion ─▶ output-*
//! microphone ──────┘
//! ```
//!
//! A clip that is replayed as fast as it can goes through queues that wait, so nothing is left out and the same clip gives
//! the same lines. By the clock, queues drop the oldest and count it, so nothing ever falls behind.

pub mod control;
pub mod crew;
pub mod feed;
pub mod health;
pub mod latency;
pub mod outlets;
pub mod pressure;
pub mod queue;
pub mod supervise;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::{info, warn};

use crate::capture::camera::{Camera, CameraSettings};
use crate::capture::clip::Clip;
use crate::capture::microphone::{Microphone, MicrophoneSettings};
use crate::capture::paced::Paced;
use crate::capture::{AudioChunk, AudioSource, CaptureError, VideoFrame, VideoSource};
use crate::config::{Config, Pace, Source};
use crate::face::{FaceStage, Look};
use crate::failure::Failure;
use crate::fusion::FusionStage;
use crate::model::{Bundle, ModelError};

use control::Control;
use crew::Crew;
use feed::{Event, Feed, Seen};
use health::{Health, SourceHealth, SourceState, count, temperature_c};
use outlets::{Outlets, Taps};
use pressure::Pressure;
use queue::{Gone, QueueReader, QueueWriter, WhenFull, queue};
use supervise::Keeper;

/// Pictures on their way to the `face` thread when nothing may be lost. By the clock it is one: the newest.
const PICTURES_AHEAD: usize = 4;
/// Runs of samples on their way to the `fusion` thread: more than a second.
const CHUNKS_AHEAD: usize = 64;
const SEEN_AHEAD: usize = 16;
/// By the clock, a tick waits this long for what was captured just before it: a period of sound and the work on a picture.
const LAG: Duration = Duration::from_millis(40);
/// Ticks later than this are left out: after the process stood still, nobody wants to hear what it missed.
const LATEST: Duration = Duration::from_secs(1);

/// Runs until the source ends, every reader has gone, or `stop` is set.
pub fn run(config: &Config, stop: &AtomicBool) -> Result<(), Failure> {
    let started = Instant::now();
    let bundle = Bundle::open(config.models.as_deref())?;
    let (sources, pace) = Sources::of(&config.source)?;
    let (face, fusion) = load(config, &bundle, sources.pictures.is_some())?;
    info!(
        "models: {} {} from {}, loaded in {} ms",
        bundle.manifest().name,
        bundle.manifest().version,
        bundle.folder().display(),
        started.elapsed().as_millis()
    );

    let health = Health::default();
    let outlets = Outlets::open(&config.outputs, config.fusion.period, when_full(pace), &health)?;
    let pipeline = Pipeline {
        epoch: Instant::now(),
        pace,
        health: &health,
        stop,
    };
    let outcome = pipeline.run(outlets, sources, face, fusion);
    info!("{health}; took {:.2} s", started.elapsed().as_secs_f32());
    outcome
}

/// Where pictures and sound come from; `None` for what there is none of.
struct Sources {
    pictures: Option<Pictures>,
    sound: Option<Sound>,
}

enum Pictures {
    Clip(Box<dyn VideoSource>),
    Camera(CameraSettings),
}

enum Sound {
    Clip(Box<dyn AudioSource>),
    Microphone(MicrophoneSettings),
}

impl Sources {
    /// Opens a clip. Devices are opened by the threads that own them, which also wait for them.
    fn of(source: &Source) -> Result<(Sources, Pace), Failure> {
        match source {
            Source::Clip { path, pace } => {
                let clip = Clip::open(path).map_err(|e| Failure::Source(e.to_string()))?;
                info!("{}", clip.description);
                let sources = Sources {
                    pictures: clip.video.map(Pictures::Clip),
                    sound: clip.audio.map(Sound::Clip),
                };
                Ok((sources, *pace))
            }
            Source::Devices(devices) => {
                let sources = Sources {
                    pictures: devices.camera.clone().map(Pictures::Camera),
                    sound: devices.microphone.clone().map(Sound::Microphone),
                };
                Ok((sources, Pace::Realtime))
            }
        }
    }
}

/// Loads the stages side by side: they are what a start waits for.
fn load(config: &Config, bundle: &Bundle, with_face: bool) -> Result<(Option<FaceStage>, FusionStage), ModelError> {
    thread::scope(|scope| {
        let face = with_face.then(|| scope.spawn(|| FaceStage::load(bundle, config.face)));
        let fusion = FusionStage::load(bundle, config.fusion)?;
        let face = face
            .map(|loading| loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .transpose()?;
        Ok((face, fusion))
    })
}

fn when_full(pace: Pace) -> WhenFull {
    match pace {
        Pace::Replay => WhenFull::Wait,
        Pace::Realtime => WhenFull::DropOldest,
    }
}

/// What all threads of one run share.
struct Pipeline<'a> {
    /// The source's zero.
    epoch: Instant,
    pace: Pace,
    health: &'a Health,
    stop: &'a AtomicBool,
}

impl Pipeline<'_> {
    fn run(
        &self,
        outlets: Outlets,
        sources: Sources,
        face: Option<FaceStage>,
        fusion: FusionStage,
    ) -> Result<(), Failure> {
        let crew = Crew::new(self.stop);
        let health = self.health;
        thread::scope(|scope| {
            let mut feed = (None, None);
            if let (Some(source), Some(stage)) = (sources.pictures, face) {
                let ahead = match self.pace {
                    Pace::Replay => PICTURES_AHEAD,
                    Pace::Realtime => 1,
                };
                let (frames, to_face) = queue(ahead, when_full(self.pace), &health.pictures_skipped);
                let (seen, from_face) = queue(SEEN_AHEAD, WhenFull::Wait, &Default::default());
                crew.start(scope, "camera", move || self.camera(source, frames));
                crew.start(scope, "face", move || self.face(stage, to_face, seen));
                feed.0 = Some(from_face);
            }
            if let Some(source) = sources.sound {
                let (chunks, heard) = queue(CHUNKS_AHEAD, when_full(self.pace), &health.chunks_lost);
                crew.start(scope, "microphone", move || self.microphone(source, chunks));
                feed.1 = Some(heard);
            }
            let (taps, controls) = outlets.start(scope, &crew, health);
            let feed = Feed::new(feed.0, feed.1);
            crew.start(scope, "fusion", move || self.fusion(fusion, feed, taps, controls));
        });
        crew.outcome()
    }

    fn video(&self, source: Box<dyn VideoSource>) -> Box<dyn VideoSource> {
        match self.pace {
            Pace::Replay => source,
            Pace::Realtime => Box::new(Paced::new(source, self.epoch)),
        }
    }

    fn audio(&self, source: Box<dyn AudioSource>) -> Box<dyn AudioSource> {
        match self.pace {
            Pace::Replay => source,
            Pace::Realtime => Box::new(Paced::new(source, self.epoch)),
        }
    }

    fn camera(&self, source: Pictures, frames: QueueWriter<VideoFrame>) -> Result<(), Failure> {
        let put = |frame| {
            count(&self.health.pictures);
            frames.put(frame)
        };
        match source {
            Pictures::Clip(source) => {
                let mut source = self.video(source);
                self.play(&self.health.camera, || source.next_frame(), put)
            }
            Pictures::Camera(settings) => {
                let open = || Camera::open(&settings, self.epoch, &self.health.camera_faults);
                self.keeper("camera", &self.health.camera)
                    .keep(open, Camera::description, Camera::next_frame, put)
            }
        }
    }

    fn microphone(&self, source: Sound, chunks: QueueWriter<AudioChunk>) -> Result<(), Failure> {
        let put = |chunk| {
            count(&self.health.chunks);
            chunks.put(chunk)
        };
        match source {
            Sound::Clip(source) => {
                let mut source = self.audio(source);
                self.play(&self.health.microphone, || source.next_chunk(), put)
            }
            Sound::Microphone(settings) => {
                let open = || Microphone::open(&settings, self.epoch, &self.health.microphone_faults);
                self.keeper("microphone", &self.health.microphone).keep(
                    open,
                    Microphone::description,
                    Microphone::next_chunk,
                    put,
                )
            }
        }
    }

    fn keeper<'a>(&'a self, what: &'static str, state: &'a SourceHealth) -> Keeper<'a> {
        Keeper {
            what,
            state,
            stop: self.stop,
        }
    }

    /// Plays a track of a clip to its end.
    fn play<T>(
        &self,
        state: &SourceHealth,
        mut next: impl FnMut() -> Result<Option<T>, CaptureError>,
        put: impl Fn(T) -> Result<(), Gone>,
    ) -> Result<(), Failure> {
        state.set(SourceState::Running, None);
        while let Some(item) = self.next(next())? {
            if put(item) == Err(Gone) {
                break;
            }
        }
        state.set(SourceState::Off, None);
        Ok(())
    }

    /// What a source gave; `None` when it is over, for whatever reason.
    fn next<T>(&self, item: Result<Option<T>, CaptureError>) -> Result<Option<T>, Failure> {
        match item {
            Ok(_) if self.stop.load(Ordering::Relaxed) => Ok(None),
            Ok(item) => Ok(item),
            Err(CaptureError::CutShort(why)) => {
                warn!("{why}");
                Ok(None)
            }
            Err(CaptureError::Unusable(why) | CaptureError::Lost(why) | CaptureError::Stalled(why)) => {
                Err(Failure::Source(why))
            }
        }
    }

    fn face(
        &self,
        mut stage: FaceStage,
        frames: QueueReader<VideoFrame>,
        seen: QueueWriter<Seen>,
    ) -> Result<(), Failure> {
        let rate_hz = stage.rate_hz();
        let mut pressure = Pressure::new(Instant::now());
        let set = |rate_hz: f32| {
            self.health
                .face_rate_mhz
                .store((rate_hz * 1000.0) as u64, Ordering::Relaxed)
        };
        set(rate_hz);
        for frame in frames.iter() {
            let (at, began) = (frame.at, Instant::now());
            let look = stage.look(frame)?;
            let now = Instant::now();
            // A replayed clip is meant to keep the stage busy.
            if self.pace == Pace::Realtime
                && let Some(change) = pressure.worked(now - began, now, temperature_c)
            {
                let rate_hz = (rate_hz * change.share).max(1.0);
                warn!("face: looks at {rate_hz} pictures a second from now on, {}", change.why);
                stage.set_rate_hz(rate_hz);
                set(rate_hz);
            }
            match &look {
                Look::PassedOver => count(&self.health.pictures_passed_over),
                Look::Broken(why) => {
                    count(&self.health.pictures_broken);
                    warn_sparingly(&self.health.pictures_broken, || {
                        format!("picture at {:.3} s skipped: {why}", at.as_secs_f32())
                    });
                }
                Look::NoFace => count(&self.health.looks),
                Look::Face(_) => {
                    count(&self.health.looks);
                    count(&self.health.faces);
                }
            }
            self.health.detections.store(stage.detections(), Ordering::Relaxed);
            let face = match look {
                Look::Face(observation) => Some(observation),
                _ => None,
            };
            if seen.put(Seen { at, face }) == Err(Gone) {
                break;
            }
        }
        Ok(())
    }

    fn fusion(
        &self,
        mut stage: FusionStage,
        mut feed: Feed,
        taps: Taps,
        controls: Receiver<Control>,
    ) -> Result<(), Failure> {
        let mut tick = 0;
        loop {
            tick = self.tick_after(tick, &stage);
            let time = stage.time_of(tick);
            while let Some(event) = match self.pace {
                Pace::Replay => feed.next_up_to(time),
                Pace::Realtime => feed.next_before(self.epoch + time + LAG),
            } {
                match event {
                    Event::Seen(Seen { face, .. }) => face.into_iter().for_each(|f| stage.see(f)),
                    Event::Heard(chunk) => stage.hear(&chunk),
                }
            }
            if feed.end().is_some_and(|end| end < time) {
                break;
            }
            for control in controls.try_iter() {
                match control {
                    Control::Baseline { begun } => {
                        stage.start_baseline(time);
                        // Whoever asked may have gone since.
                        let _ = begun.try_send(());
                    }
                }
            }
            let estimate = stage.estimate(tick)?;
            count(&self.health.estimates);
            if taps.estimate(estimate) == Err(Gone) {
                break;
            }
        }
        Ok(())
    }

    /// The next tick; by the clock, the next that is worth it.
    fn tick_after(&self, tick: u64, stage: &FusionStage) -> u64 {
        let next = tick + 1;
        let due = self.epoch + stage.time_of(next) + LAG;
        let late = Instant::now().saturating_duration_since(due);
        if self.pace == Pace::Replay || late <= LATEST {
            return next;
        }
        let missed = (late.as_secs_f64() / stage.time_of(1).as_secs_f64()) as u64;
        self.health.ticks_missed.fetch_add(missed, Ordering::Relaxed);
        warn!(
            "stood still for {:.1} s: {missed} estimates are left out",
            late.as_secs_f32()
        );
        next + missed
    }
}

/// Warns of the 1st, 2nd, 4th, 8th … time: a camera that sends rubbish all night must not fill the journal.
fn warn_sparingly(counter: &std::sync::atomic::AtomicU64, message: impl FnOnce() -> String) {
    let times = counter.load(Ordering::Relaxed);
    if times.is_power_of_two() {
        warn!("{} ({times} so far)", message());
    }
}
