//! What each thread does with what comes to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::warn;

use super::DaemonError;
use crate::capture::camera::Camera;
use crate::capture::microphone::Microphone;
use crate::capture::paced::Paced;
use crate::capture::{AudioBlock, AudioSource, CaptureError, VideoFrame, VideoSource};
use crate::config::Pace;
use crate::face::{FaceStage, Look};
use crate::fusion::FusionStage;

use super::device_supervisor::{DeviceSupervisor, IfUnusable};
use super::fault;
use super::feed::{Event, FaceResult, Feed};
use super::load_shedder::LoadShedder;
use super::outlets::Taps;
use super::sources::{Pictures, Sound};
use crate::control::Control;
use crate::health::{Health, SourceHealth, SourceState, count, temperature_c};
use crate::queue::{Gone, QueueReader, QueueWriter, SwappableSender};

/// By the clock, a tick waits this long for what was captured just before it: a period of sound and the work on a picture.
const LAG: Duration = Duration::from_millis(40);
/// Ticks later than this are left out: after the process stood still, nobody wants to hear what it missed.
const LATEST: Duration = Duration::from_secs(1);

/// What all threads share.
pub struct Pipeline<'a> {
    /// The source's zero.
    pub epoch: Instant,
    pub pace: Pace,
    pub health: &'a Health,
    pub stop: &'a AtomicBool,
    /// Pictures to whichever face stage is at work, sound to whichever fusion stage.
    pub frames: SwappableSender<VideoFrame>,
    pub chunks: SwappableSender<AudioBlock>,
    /// Of the newest estimate.
    pub seq: AtomicU64,
}

impl Pipeline<'_> {
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

    /// Until the source ends or is `retired`.
    pub fn camera(&self, source: Pictures, retired: &AtomicBool, if_unusable: IfUnusable) -> Result<(), DaemonError> {
        let put = |frame| {
            count(&self.health.frames);
            self.frames.put(frame)
        };
        let outcome = match source {
            Pictures::Clip(source) => {
                let mut source = self.video(source);
                self.play(&self.health.camera, || source.next_frame(), put)
            }
            Pictures::Camera(settings) => {
                let open = || Camera::open(&settings, self.epoch, &self.health.camera_counters);
                let supervisor = DeviceSupervisor {
                    name: "camera",
                    health: &self.health.camera,
                    stop: &|| self.over(retired),
                    if_unusable,
                };
                supervisor.run(open, Camera::description, Camera::next_frame, put)
            }
        };
        self.health.camera.set(SourceState::Off, None);
        if !retired.load(Ordering::Relaxed) {
            self.frames.disconnect();
        }
        Ok(outcome?)
    }

    /// Until the source ends or is `retired`.
    pub fn microphone(&self, source: Sound, retired: &AtomicBool, if_unusable: IfUnusable) -> Result<(), DaemonError> {
        let put = |chunk| {
            count(&self.health.audio_blocks);
            self.chunks.put(chunk)
        };
        let outcome = match source {
            Sound::Clip(source) => {
                let mut source = self.audio(source);
                self.play(&self.health.microphone, || source.next_block(), put)
            }
            Sound::Microphone(settings) => {
                let open = || Microphone::open(&settings, self.epoch, &self.health.microphone_counters);
                let supervisor = DeviceSupervisor {
                    name: "microphone",
                    health: &self.health.microphone,
                    stop: &|| self.over(retired),
                    if_unusable,
                };
                supervisor.run(open, Microphone::description, Microphone::next_block, put)
            }
        };
        self.health.microphone.set(SourceState::Off, None);
        if !retired.load(Ordering::Relaxed) {
            self.chunks.disconnect();
        }
        Ok(outcome?)
    }

    fn over(&self, retired: &AtomicBool) -> bool {
        self.stop.load(Ordering::Relaxed) || retired.load(Ordering::Relaxed)
    }

    /// Plays a track of a clip to its end.
    fn play<T>(
        &self,
        state: &SourceHealth,
        mut next: impl FnMut() -> Result<Option<T>, CaptureError>,
        put: impl Fn(T) -> Result<(), Gone>,
    ) -> Result<(), CaptureError> {
        state.set(SourceState::Running, None);
        while let Some(item) = self.next(next())? {
            if put(item) == Err(Gone) {
                break;
            }
        }
        Ok(())
    }

    /// What a source gave; `None` when it is over, for whatever reason.
    fn next<T>(&self, item: Result<Option<T>, CaptureError>) -> Result<Option<T>, CaptureError> {
        match item {
            Ok(_) if self.stop.load(Ordering::Relaxed) => Ok(None),
            Ok(item) => Ok(item),
            Err(CaptureError::CutShort(why)) => {
                warn!("{why}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub fn face(
        &self,
        mut stage: FaceStage,
        frames: QueueReader<VideoFrame>,
        seen: QueueWriter<FaceResult>,
    ) -> Result<(), DaemonError> {
        let rate_hz = stage.rate_hz();
        let mut pressure = LoadShedder::new(Instant::now());
        let set = |rate_hz: f32| {
            self.health
                .face_rate_mhz
                .store((rate_hz * 1000.0) as u64, Ordering::Relaxed)
        };
        set(rate_hz);
        for frame in frames.iter() {
            let (at, began) = (frame.at, Instant::now());
            fault::perhaps_hang(self.health);
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
                Look::NotDue => count(&self.health.frames_not_due),
                Look::Broken(why) => {
                    count(&self.health.frames_undecodable);
                    warn_sparingly(&self.health.frames_undecodable, || {
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
            if seen.put(FaceResult { at, face }) == Err(Gone) {
                break;
            }
        }
        Ok(())
    }

    pub fn fusion(
        &self,
        mut stage: FusionStage,
        mut feed: Feed,
        taps: Taps,
        controls: Receiver<Control>,
    ) -> Result<(), DaemonError> {
        // Goes on where the stage before it ended, after a reload: by the clock, then, and without a gap in the numbers.
        let said = self.seq.load(Ordering::Relaxed);
        let mut tick = match said {
            0 => 0,
            _ => (self.epoch.elapsed().saturating_sub(LAG).as_nanos() / stage.time_of(1).as_nanos()) as u64,
        };
        let ahead = said.wrapping_sub(tick);
        loop {
            tick = self.tick_after(tick, &stage);
            let time = stage.time_of(tick);
            while let Some(event) = match self.pace {
                Pace::Replay => feed.next_up_to(time),
                Pace::Realtime => feed.next_before(self.epoch + time + LAG),
            } {
                match event {
                    Event::FaceResult(FaceResult { face, .. }) => face.into_iter().for_each(|f| stage.see(f)),
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
            let mut estimate = stage.estimate(tick)?;
            estimate.seq = tick.wrapping_add(ahead);
            self.seq.store(estimate.seq, Ordering::Relaxed);
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
        self.health.estimates_skipped.fetch_add(missed, Ordering::Relaxed);
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
