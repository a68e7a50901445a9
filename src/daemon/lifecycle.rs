//! The running daemon: starts the stages, watches them, and applies a changed configuration.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use log::{error, info};

use crate::capture::clip::Extent;
use crate::config::{Config, ConfigError, DeviceSettings, Pace, Source};
use crate::model::Bundle;
use crate::output::OutputError;
use crate::privacy::PauseSwitch;
use crate::queue::{WhenFull, queue};
use crate::status::{ModelName, PreparedPage, StatusError, StatusPage};

use super::callbacks::{Callbacks, ReplayProgress};
use super::device_supervisor::IfUnusable;
use super::input_feed::InputFeed;
use super::off_hours_watch::OffHoursWatch;
use super::output_threads::OutputThreads;
use super::pipeline::Pipeline;
use super::sources::{AudioInput, InputKinds, Sources, VideoInput};
use super::stages::{LoadError, Stages};
use super::stall_detector::StallDetector;
use super::systemd::Systemd;
use super::thread_group::{ExitSignal, ThreadGroup};

/// Capacity of the queue of frames in a replay, where none may be lost. In real time it is one: the newest frame.
const REPLAY_FRAME_QUEUE: usize = 4;
/// Capacity of the queue of audio blocks: more than a second of audio.
const AUDIO_QUEUE: usize = 64;
const FACE_RESULT_QUEUE: usize = 16;
/// How often the main thread checks signals and stages.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// During a reload, the watchdog is fed for at most this long.
const MAX_RELOAD: Duration = Duration::from_secs(60);

/// What signal handlers set.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    pub stop: Arc<AtomicBool>,
    pub reload: Arc<AtomicBool>,
    pub pause: Arc<PauseSwitch>,
}

/// Why a reload is rejected. The old configuration then stays active.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("affectd cannot reload while it replays a clip, and cannot switch to one: restart it instead")]
    Clip,
    #[error("{0} cannot change during a reload: restart affectd instead")]
    Fixed(&'static str),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Status(#[from] StatusError),
}

/// All threads, and the configuration they run with.
pub struct Daemon<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    pipeline: &'scope Pipeline<'scope>,
    threads: &'scope ThreadGroup<'scope>,
    when_full: WhenFull,
    config: Config,
    /// That of the clip.
    extent: Option<Extent>,
    /// Tells apart the contents of the models folder.
    models: Option<String>,
    camera: Option<SourceThread>,
    microphone: Option<SourceThread>,
    fusion: Option<ExitSignal>,
    outputs: OutputThreads<'scope, 'env>,
    page: StatusPage,
    model: ModelName,
}

/// Those that get the estimates.
pub struct Readers<'scope, 'env> {
    pub outputs: OutputThreads<'scope, 'env>,
    pub page: StatusPage,
    /// The name of the models, which the page shows.
    pub model: ModelName,
}

/// The thread of a camera or microphone.
struct SourceThread {
    retired: Arc<AtomicBool>,
    exit: ExitSignal,
}

impl<'scope, 'env> Daemon<'scope, 'env> {
    /// Starts the sources and stages, with outputs that already run.
    pub fn start(
        scope: &'scope Scope<'scope, 'env>,
        pipeline: &'scope Pipeline<'scope>,
        threads: &'scope ThreadGroup<'_>,
        readers: Readers<'scope, 'env>,
        config: Config,
        sources: Sources,
        stages: Stages,
    ) -> Self {
        let mut daemon = Daemon {
            scope,
            pipeline,
            threads,
            when_full: when_full(pipeline.pace),
            models: Bundle::fingerprint(config.models.as_deref()),
            config,
            extent: sources.extent,
            camera: None,
            microphone: None,
            fusion: None,
            outputs: readers.outputs,
            page: readers.page,
            model: readers.model,
        };
        daemon.start_stages(stages, &mut || {});
        daemon.camera = sources.video.map(|video| daemon.start_camera(video, IfUnusable::Fail));
        daemon.microphone = sources
            .audio
            .map(|audio| daemon.start_microphone(audio, IfUnusable::Fail));
        daemon
    }

    /// Ends the thread of a source and closes its device.
    fn retire(&self, source: SourceThread, progress: &mut dyn FnMut()) {
        source.retired.store(true, Ordering::Relaxed);
        self.wait(&source.exit, progress);
    }

    /// Waits until a thread has ended, or until affectd stops: its end must not wait for a thread that is stuck.
    fn wait(&self, exit: &ExitSignal, progress: &mut dyn FnMut()) {
        while !exit.wait_timeout(CHECK_INTERVAL) && !self.threads.is_stopping() {
            progress();
        }
    }

    /// Starts the stages with new queues. Stages that already run first process the rest of their own queues.
    fn start_stages(&mut self, stages: Stages, progress: &mut dyn FnMut()) {
        let (pipeline, health) = (self.pipeline, self.pipeline.health);
        let face = stages.face.map(|stage| {
            let capacity = match pipeline.pace {
                Pace::Replay => REPLAY_FRAME_QUEUE,
                Pace::Realtime => 1,
            };
            let (sender, frames) = queue(capacity, self.when_full, &health.frames_skipped);
            pipeline.frames.connect(sender);
            (stage, frames)
        });
        if face.is_none() {
            pipeline.frames.disconnect();
        }
        let audio = stages.kinds.audio.then(|| {
            let (sender, blocks) = queue(AUDIO_QUEUE, self.when_full, &health.audio_blocks_lost);
            pipeline.audio.connect(sender);
            blocks
        });
        if audio.is_none() {
            pipeline.audio.disconnect();
        }
        if let Some(previous) = self.fusion.take() {
            self.wait(&previous, progress);
            if self.threads.is_stopping() {
                // It may still run, and two stages would give the same numbers to their estimates.
                pipeline.frames.disconnect();
                pipeline.audio.disconnect();
                return;
            }
        }
        let faces = face.map(|(stage, frames)| {
            let (sender, results) = queue(FACE_RESULT_QUEUE, WhenFull::Wait, &Default::default());
            let work = move || pipeline.face(stage, frames, sender);
            self.threads.start(self.scope, "face", work);
            results
        });
        let input = InputFeed::new(faces, audio);
        let (outputs, controls) = (self.outputs.senders(), self.outputs.controls());
        let work = move || pipeline.fusion(stages.voice, stages.fusion, input, outputs, controls);
        self.fusion = Some(self.threads.start(self.scope, "fusion", work));
    }

    fn start_camera(&self, input: VideoInput, if_unusable: IfUnusable) -> SourceThread {
        let (pipeline, retired) = (self.pipeline, Arc::<AtomicBool>::default());
        let seen_retired = Arc::clone(&retired);
        let work = move || pipeline.camera(input, &seen_retired, if_unusable);
        let exit = self.threads.start(self.scope, "camera", work);
        if exit.has_come() {
            // The system may have refused the thread, which would have ended the stream of frames.
            pipeline.frames.disconnect();
        }
        SourceThread { retired, exit }
    }

    fn start_microphone(&self, input: AudioInput, if_unusable: IfUnusable) -> SourceThread {
        let (pipeline, retired) = (self.pipeline, Arc::<AtomicBool>::default());
        let seen_retired = Arc::clone(&retired);
        let work = move || pipeline.microphone(input, &seen_retired, if_unusable);
        let exit = self.threads.start(self.scope, "microphone", work);
        if exit.has_come() {
            pipeline.audio.disconnect();
        }
        SourceThread { retired, exit }
    }

    /// Runs until the fusion stage ends, which is the last stage to end, or until a signal stops affectd. Outputs may then
    /// still write what is left.
    pub fn supervise(mut self, signals: &Signals, off_hours: OffHoursWatch, callbacks: &Callbacks) {
        let health = self.pipeline.health;
        let off_hours = RefCell::new(off_hours);
        let mut systemd = Systemd::from_environment();
        let mut stall_detector = StallDetector::new(Instant::now());
        let mut stalled = None;
        let mut is_ready = false;
        while self
            .fusion
            .as_ref()
            .is_some_and(|fusion| !fusion.wait_timeout(CHECK_INTERVAL))
        {
            let now = Instant::now();
            off_hours.borrow_mut().poll(&signals.pause);
            if let Some(progress) = self.progress() {
                (callbacks.show_progress)(progress);
            }
            if signals.stop.load(Ordering::Relaxed) {
                break;
            }
            if !is_ready && health.estimates.load(Ordering::Relaxed) > 0 {
                systemd.ready();
                is_ready = true;
            }
            if signals.reload.swap(false, Ordering::Relaxed) {
                // Before the first estimate, the service is still starting.
                if is_ready {
                    systemd.reloading();
                }
                let mut progress = || {
                    off_hours.borrow_mut().poll(&signals.pause);
                    if now.elapsed() < MAX_RELOAD {
                        systemd.feed_watchdog(Instant::now());
                    }
                };
                if let Err(error) = self.reload(callbacks.read_config, &off_hours, &mut progress) {
                    error!("reload rejected, the old configuration stays active: {error}");
                }
                if is_ready {
                    systemd.ready();
                }
                stall_detector = StallDetector::new(Instant::now());
            }
            let stage = match self.pipeline.pace {
                // A replay has no deadline: a slow reader may block it for any time.
                Pace::Replay => None,
                Pace::Realtime => stall_detector.find(health, now),
            };
            if stage != stalled {
                match stage {
                    Some(stage) => error!("{stage}: hangs: the systemd watchdog is no longer fed"),
                    None => info!("all stages make progress again"),
                }
                stalled = stage;
            }
            if stalled.is_none() {
                systemd.feed_watchdog(now);
            }
            systemd.status(format!(
                "camera {}, microphone {}",
                health.camera.get(),
                health.microphone.get()
            ));
        }
        systemd.stopping();
    }

    /// `None` if the source is not a clip.
    fn progress(&self) -> Option<ReplayProgress> {
        let extent = self.extent.as_ref()?;
        let estimates = self.pipeline.last_seq.load(Ordering::Relaxed);
        let periods = u32::try_from(estimates).unwrap_or(u32::MAX);
        let position = self.config.fusion.period.saturating_mul(periods);
        Some(ReplayProgress {
            position,
            fraction: extent.fraction(position),
        })
    }

    /// Applies what has changed in the configuration; the rest keeps running. On an error, everything keeps running. `progress`
    /// is called several times a second.
    fn reload(
        &mut self,
        read_config: &dyn Fn() -> Result<Config, ConfigError>,
        off_hours: &RefCell<OffHoursWatch>,
        progress: &mut dyn FnMut(),
    ) -> Result<(), ReloadError> {
        let config = read_config()?;
        let (Source::Devices(old), Source::Devices(new)) = (self.config.source.clone(), config.source.clone()) else {
            return Err(ReloadError::Clip);
        };
        if config.privacy.light != self.config.privacy.light {
            return Err(ReloadError::Fixed("privacy.light"));
        }
        if config.privacy.button != self.config.privacy.button {
            return Err(ReloadError::Fixed("privacy.button"));
        }
        let models = Bundle::fingerprint(config.models.as_deref());
        let models_change = models != self.models;
        // Each output compares its files itself: a password or a certificate may be new under the same name.
        self.outputs.senders().send_reload();
        let host = self.outputs.host();
        let page = PreparedPage::new(config.status.as_ref(), &host, Some(&self.page))?;
        if config == self.config && !models_change && page.is_unchanged() {
            info!("reload: the configuration and the models are unchanged");
            return Ok(());
        }
        let kinds = InputKinds::of(&new);
        let stages_change = models_change
            || config.models != self.config.models
            || config.face != self.config.face
            || config.fusion != self.config.fusion
            || kinds != InputKinds::of(&old);
        let stages = match stages_change {
            true => Some(Stages::load_until(self.pipeline.stop, &config, kinds, progress)?),
            false => None,
        };
        self.outputs.change(&config.outputs, config.fusion.period, progress)?;
        self.config = config;
        self.models = models;
        // Before a new device is opened.
        let mut hours = off_hours.borrow_mut();
        hours.set(self.config.privacy.off_hours.clone());
        hours.poll(self.pipeline.pause);
        drop(hours);
        if let Some(stages) = &stages {
            self.model.set(stages.model.clone());
        }
        if let Err(error) = self.page.change(page) {
            error!("{error}; there is no status page until the next reload");
        }
        // Nothing fails from here on: a device that is absent or unusable is waited for.
        let DeviceSettings { camera, microphone } = new;
        let (camera_changes, microphone_changes) = (camera != old.camera, microphone != old.microphone);
        if camera_changes && let Some(thread) = self.camera.take() {
            self.retire(thread, progress);
        }
        if microphone_changes && let Some(thread) = self.microphone.take() {
            self.retire(thread, progress);
        }
        if let Some(stages) = stages {
            self.start_stages(stages, progress);
        }
        if camera_changes {
            self.camera = camera.map(|settings| self.start_camera(VideoInput::Camera(settings), IfUnusable::Retry));
        }
        if microphone_changes {
            let start = |settings| self.start_microphone(AudioInput::Microphone(settings), IfUnusable::Retry);
            self.microphone = microphone.map(start);
        }
        info!("reload: the new configuration is active");
        Ok(())
    }
}

/// A replay waits, so that nothing is lost. In real time the oldest items are dropped, so that nothing falls behind.
pub fn when_full(pace: Pace) -> WhenFull {
    match pace {
        Pace::Replay => WhenFull::Wait,
        Pace::Realtime => WhenFull::DropOldest,
    }
}

#[cfg(test)]
mod tests;
