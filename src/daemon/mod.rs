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
//!
//! The main thread starts the others, and then looks after them: it tells systemd that they move, and on SIGHUP changes what
//! the configuration changed and leaves the rest as it is.

pub mod device_supervisor;
pub mod error;
mod fault;
pub mod feed;
pub mod load_shedder;
pub mod outlets;
pub mod pipeline;
pub mod sources;
pub mod stages;
pub mod stall;

pub mod systemd;
pub mod thread_group;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use log::{error, info};

use crate::config::{Config, ConfigError, DeviceSettings, Pace, Source};
pub use error::DaemonError;

use crate::health::Health;
use crate::model::ModelError;
use crate::output::OutputError;
use crate::queue::{WhenFull, queue};
use device_supervisor::IfUnusable;
use feed::Feed;
use outlets::{Outlets, Running};
use pipeline::Pipeline;
use sources::{Pictures, Sound, Sources};
use stages::Stages;
use stall::StallDetector;
use systemd::Systemd;
use thread_group::{ExitSignal, ThreadGroup};

/// Pictures on their way to the `face` thread when nothing may be lost. By the clock it is one: the newest.
const FRAMES_AHEAD: usize = 4;
/// Runs of samples on their way to the `fusion` thread: more than a second.
const AUDIO_BLOCKS_AHEAD: usize = 64;
const SEEN_AHEAD: usize = 16;
/// How often the main thread looks after the others.
const ROUND: Duration = Duration::from_millis(250);

/// What signals set.
#[derive(Debug, Default)]
pub struct Signals {
    pub stop: Arc<AtomicBool>,
    pub reload: Arc<AtomicBool>,
}

/// Runs until the source ends, every reader has gone, or it is told to stop. Told to reload, it takes the configuration
/// from `reread`.
pub fn run(
    config: Config,
    signals: &Signals,
    reread: impl Fn() -> Result<Config, ConfigError>,
) -> Result<(), DaemonError> {
    let started = Instant::now();
    let (sources, pace) = Sources::of(&config.source)?;
    let stages = Stages::load(&config, sources.pictures.is_some())?;
    let health = Health::default();
    let when_full = match pace {
        Pace::Replay => WhenFull::Wait,
        Pace::Realtime => WhenFull::DropOldest,
    };
    let outlets = Outlets::open(&config.outputs, config.fusion.period, when_full, &health)?;
    let pipeline = Pipeline {
        epoch: Instant::now(),
        pace,
        health: &health,
        stop: &signals.stop,
        frames: Default::default(),
        chunks: Default::default(),
        seq: AtomicU64::new(0),
    };
    let threads = ThreadGroup::new(&signals.stop);
    thread::scope(|scope| {
        let outputs = outlets.start(scope, &threads, &health);
        let mut daemon = Daemon {
            scope,
            pipeline: &pipeline,
            threads: &threads,
            when_full,
            config,
            camera: None,
            microphone: None,
            fusion: None,
            outputs,
        };
        daemon.start_stages(stages, sources.sound.is_some());
        daemon.camera = sources
            .pictures
            .map(|pictures| daemon.start_camera(pictures, IfUnusable::Fail));
        daemon.microphone = sources
            .sound
            .map(|sound| daemon.start_microphone(sound, IfUnusable::Fail));
        daemon.look_after(signals, &reread);
    });
    info!("{health}; took {:.2} s", started.elapsed().as_secs_f32());
    threads.outcome()
}

/// Why a reload is rejected. affectd then keeps running as before.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("a clip is replayed to its end: restart affectd to use another source")]
    Clip,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Everything that runs, and how it was configured.
struct Daemon<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    pipeline: &'scope Pipeline<'scope>,
    threads: &'scope ThreadGroup<'scope>,
    when_full: WhenFull,
    config: Config,
    camera: Option<SourceThread>,
    microphone: Option<SourceThread>,
    fusion: Option<ExitSignal>,
    outputs: Running<'scope, 'env>,
}

/// A source's thread.
struct SourceThread {
    retired: Arc<AtomicBool>,
    ended: ExitSignal,
}

impl SourceThread {
    /// Lets the device go.
    fn retire(self) {
        self.retired.store(true, Ordering::Relaxed);
        self.ended.wait();
    }
}

impl Daemon<'_, '_> {
    /// Starts the stages on new queues. The ones before, if there are any, use up theirs first.
    fn start_stages(&mut self, stages: Stages, with_sound: bool) {
        let (pipeline, health) = (self.pipeline, self.pipeline.health);
        let looking = stages.face.map(|stage| {
            let ahead = match pipeline.pace {
                Pace::Replay => FRAMES_AHEAD,
                Pace::Realtime => 1,
            };
            let (frames, to_face) = queue(ahead, self.when_full, &health.frames_skipped);
            let (seen, from_face) = queue(SEEN_AHEAD, WhenFull::Wait, &Default::default());
            pipeline.frames.connect(frames);
            (stage, to_face, seen, from_face)
        });
        let heard = with_sound.then(|| {
            let (chunks, heard) = queue(AUDIO_BLOCKS_AHEAD, self.when_full, &health.audio_blocks_lost);
            pipeline.chunks.connect(chunks);
            heard
        });
        if looking.is_none() {
            pipeline.frames.disconnect();
        }
        if heard.is_none() {
            pipeline.chunks.disconnect();
        }
        if let Some(before) = self.fusion.take() {
            before.wait();
        }
        let seen = looking.map(|(stage, to_face, seen, from_face)| {
            self.threads
                .start(self.scope, "face", move || pipeline.face(stage, to_face, seen));
            from_face
        });
        let (feed, taps, controls) = (Feed::new(seen, heard), self.outputs.taps(), self.outputs.controls());
        let fusion = stages.fusion;
        let work = move || pipeline.fusion(fusion, feed, taps, controls);
        self.fusion = Some(self.threads.start(self.scope, "fusion", work));
    }

    fn start_camera(&self, pictures: Pictures, if_unusable: IfUnusable) -> SourceThread {
        let (pipeline, retired) = (self.pipeline, Arc::<AtomicBool>::default());
        let told = Arc::clone(&retired);
        let work = move || pipeline.camera(pictures, &told, if_unusable);
        let ended = self.threads.start(self.scope, "camera", work);
        SourceThread { retired, ended }
    }

    fn start_microphone(&self, sound: Sound, if_unusable: IfUnusable) -> SourceThread {
        let (pipeline, retired) = (self.pipeline, Arc::<AtomicBool>::default());
        let told = Arc::clone(&retired);
        let work = move || pipeline.microphone(sound, &told, if_unusable);
        let ended = self.threads.start(self.scope, "microphone", work);
        SourceThread { retired, ended }
    }

    /// Until the fusion stage ends: it is the last to know that there is nothing more.
    fn look_after(&mut self, signals: &Signals, reread: &impl Fn() -> Result<Config, ConfigError>) {
        let health = self.pipeline.health;
        let mut systemd = Systemd::from_environment();
        let mut stall = StallDetector::new(Instant::now());
        let mut hanging = None;
        let mut ready = false;
        while self.fusion.as_ref().is_some_and(|fusion| !fusion.wait_for(ROUND)) {
            let now = Instant::now();
            if signals.stop.load(Ordering::Relaxed) {
                break;
            }
            if !ready && health.estimates.load(Ordering::Relaxed) > 0 {
                systemd.ready();
                ready = true;
            }
            if signals.reload.swap(false, Ordering::Relaxed) {
                systemd.reloading();
                match reread()
                    .map_err(ReloadError::from)
                    .and_then(|config| self.reload(config))
                {
                    Ok(()) => {}
                    Err(why) => error!("reload refused, everything goes on as it was: {why}"),
                }
                systemd.ready();
                stall = StallDetector::new(Instant::now());
            }
            let hangs = match self.pipeline.pace {
                // Whoever reads a replay may take as long as they like.
                Pace::Replay => None,
                Pace::Realtime => stall.find(health, now),
            };
            if hangs != hanging {
                match hangs {
                    Some(stage) => error!("{stage}: stands still; systemd is no longer told that all is well"),
                    None => info!("everything moves again"),
                }
                hanging = hangs;
            }
            if hanging.is_none() {
                systemd.feed(now);
            }
            systemd.status(format!(
                "camera {}, microphone {}",
                health.camera.get(),
                health.microphone.get()
            ));
        }
        // The outputs still write what they have.
        systemd.stopping();
    }

    /// Changes what `config` changes and leaves the rest as it is. If that cannot be, all is as before.
    fn reload(&mut self, config: Config) -> Result<(), ReloadError> {
        let (Source::Devices(old), Source::Devices(new)) = (self.config.source.clone(), config.source.clone()) else {
            return Err(ReloadError::Clip);
        };
        if config == self.config {
            info!("reload: nothing has changed");
            return Ok(());
        }
        let stages_change =
            (&config.models, config.face, config.fusion) != (&self.config.models, self.config.face, self.config.fusion);
        let sources_change =
            (new.camera.is_some(), new.microphone.is_some()) != (old.camera.is_some(), old.microphone.is_some());
        let stages = (stages_change || sources_change)
            .then(|| Stages::load(&config, new.camera.is_some()))
            .transpose()?;
        self.outputs.change(&config.outputs, config.fusion.period)?;
        self.config = config;
        // From here on nothing can fail: a device that is not there is waited for.
        let DeviceSettings { camera, microphone } = new;
        let (new_camera, new_microphone) = (camera != old.camera, microphone != old.microphone);
        if new_camera && let Some(thread) = self.camera.take() {
            thread.retire();
        }
        if new_microphone && let Some(thread) = self.microphone.take() {
            thread.retire();
        }
        if let Some(stages) = stages {
            self.start_stages(stages, microphone.is_some());
        }
        if new_camera {
            self.camera = camera.map(|settings| self.start_camera(Pictures::Camera(settings), IfUnusable::Retry));
        }
        if new_microphone {
            self.microphone =
                microphone.map(|settings| self.start_microphone(Sound::Microphone(settings), IfUnusable::Retry));
        }
        info!("reload: the changed configuration is in force");
        Ok(())
    }
}
