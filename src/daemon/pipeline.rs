//! The work of the camera, microphone, face and fusion threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::{Level, info, warn};

use crate::capture::camera::{CameraOpener, LiveCamera};
use crate::capture::microphone::LiveMicrophone;
use crate::capture::paced::Paced;
use crate::capture::{AudioBlock, AudioSource, CaptureError, CaptureErrorKind, VideoFrame, VideoSource};
use crate::config::Pace;
use crate::control::Control;
use crate::face::{FaceStage, FrameOutcome, FramePreview};
use crate::fusion::{Estimate, FusionStage};
use crate::health::{Health, SourceHealth, SourceState, count, temperature_c};
use crate::privacy::{CaptureLight, PauseSwitch};
use crate::queue::{Disconnected, QueueReceiver, QueueSender, SwappableSender};
use crate::rate_limited_log::RateLimitedLog;
use crate::voice::VoiceStage;

use super::device_supervisor::{DeviceSupervisor, IfUnusable};
use super::error::DaemonError;
use super::fault_injection::Fault;
use super::input_feed::{FaceResult, Input, InputFeed};
use super::load_shedder::LoadShedder;
use super::output_senders::OutputSenders;
use super::sources::{AudioInput, VideoInput};

/// In real time, an estimate waits this long for input that was captured just before it. This covers an audio period and the
/// processing of a frame.
const INPUT_DELAY: Duration = Duration::from_millis(40);
/// A later estimate is left out. This happens after the process was suspended, when old estimates are useless.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// In a replay, a gap of all tracks that is longer has no estimates. Damaged time stamps could claim years.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// The face rate never falls below this.
const MIN_FACE_RATE_HZ: f32 = 1.0;

/// What the threads share.
pub struct Pipeline<'a> {
    /// Time zero of the source's clock.
    pub epoch: Instant,
    pub pace: Pace,
    pub health: &'a Health,
    pub stop: &'a AtomicBool,
    /// A reader requested a restart.
    pub restart: AtomicBool,
    pub fault: Option<Fault>,
    pub pause: &'a PauseSwitch,
    /// Shows that a device is open.
    pub light: CaptureLight,
    /// The queue from the source to the current face stage.
    pub frames: SwappableSender<VideoFrame>,
    /// The queue from the source to the current fusion stage.
    pub audio: SwappableSender<AudioBlock>,
    /// The sequence number of the newest estimate.
    pub last_seq: AtomicU64,
    /// The id of the newest face. A face stage that a reload starts continues after it.
    pub last_face_id: AtomicU32,
    /// What the status page may show of the camera.
    pub preview: Arc<FramePreview>,
}

impl Pipeline<'_> {
    /// Runs until the source ends, affectd stops, or `retired` is set.
    pub fn camera(&self, input: VideoInput, retired: &AtomicBool, if_unusable: IfUnusable) -> Result<(), DaemonError> {
        let health = &self.health.camera;
        let deliver = |frame| {
            count(&self.health.frames);
            self.frames.send(frame)
        };
        let result = match input {
            VideoInput::Clip(source) => match self.pace {
                Pace::Replay => self.play(health, source, |source| source.next_frame(), deliver),
                Pace::Realtime => self.play(health, self.paced(source), Paced::next_frame, deliver),
            },
            VideoInput::Camera(settings) => {
                let stop = || self.is_stopping(retired);
                let interrupt = || stop() || self.pause.is_paused();
                let mut opener = CameraOpener::new(settings, self.epoch, self.health.camera_counters.clone());
                DeviceSupervisor {
                    name: "camera",
                    health,
                    stop: &stop,
                    pause: self.pause,
                    light: &self.light,
                    if_unusable,
                }
                .run(
                    || opener.open(&interrupt),
                    LiveCamera::description,
                    LiveCamera::next_frame,
                    deliver,
                )
            }
        };
        health.set(SourceState::Off, None);
        if !retired.load(Ordering::Relaxed) {
            self.frames.disconnect();
        }
        Ok(result?)
    }

    /// Runs until the source ends, affectd stops, or `retired` is set.
    pub fn microphone(
        &self,
        input: AudioInput,
        retired: &AtomicBool,
        if_unusable: IfUnusable,
    ) -> Result<(), DaemonError> {
        let health = &self.health.microphone;
        let deliver = |block| {
            count(&self.health.audio_blocks);
            self.audio.send(block)
        };
        let result = match input {
            AudioInput::Clip(source) => match self.pace {
                Pace::Replay => self.play(health, source, |source| source.next_block(), deliver),
                Pace::Realtime => self.play(health, self.paced(source), Paced::next_block, deliver),
            },
            AudioInput::Microphone(settings) => {
                let stop = || self.is_stopping(retired);
                let interrupt = || stop() || self.pause.is_paused();
                DeviceSupervisor {
                    name: "microphone",
                    health,
                    stop: &stop,
                    pause: self.pause,
                    light: &self.light,
                    if_unusable,
                }
                .run(
                    || LiveMicrophone::open(&settings, self.epoch, &self.health.microphone_counters, &interrupt),
                    LiveMicrophone::description,
                    LiveMicrophone::next_block,
                    deliver,
                )
            }
        };
        health.set(SourceState::Off, None);
        if !retired.load(Ordering::Relaxed) {
            self.audio.disconnect();
        }
        Ok(result?)
    }

    /// Whether affectd has paused since the last call with the same `pauses`.
    fn has_paused(&self, pauses: &mut u64) -> bool {
        let now = self.pause.pauses();
        std::mem::replace(pauses, now) != now
    }

    fn is_stopping(&self, retired: &AtomicBool) -> bool {
        self.stop.load(Ordering::Relaxed) || retired.load(Ordering::Relaxed)
    }

    fn paced<S>(&self, source: S) -> Paced<S> {
        Paced::new(source, self.epoch)
    }

    /// Plays one track of a clip to its end.
    fn play<S, T>(
        &self,
        health: &SourceHealth,
        mut source: S,
        next: impl Fn(&mut S) -> Result<Option<T>, CaptureError>,
        deliver: impl Fn(T) -> Result<(), Disconnected>,
    ) -> Result<(), CaptureError> {
        health.set(SourceState::Running, None);
        while !self.stop.load(Ordering::Relaxed) {
            match next(&mut source) {
                Ok(Some(item)) => {
                    if deliver(item) == Err(Disconnected) {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) if error.kind() == CaptureErrorKind::CutShort => {
                    warn!("{error}");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Runs until `frames` ends.
    pub fn face(
        &self,
        mut stage: FaceStage,
        frames: QueueReceiver<VideoFrame>,
        results: QueueSender<FaceResult>,
    ) -> Result<(), DaemonError> {
        let configured_hz = stage.rate_hz();
        let mut load_shedder = LoadShedder::new(Instant::now());
        let mut undecodable = RateLimitedLog::new();
        self.health.face_rate_hz.set(configured_hz);
        stage.continue_ids_after(self.last_face_id.load(Ordering::Relaxed));
        stage.show_to(Arc::clone(&self.preview));
        let mut pauses = self.pause.pauses();
        for frame in frames.iter() {
            if self.has_paused(&mut pauses) {
                stage.forget();
            }
            if !self.pause.admits(frame.captured) {
                continue;
            }
            let (at, started) = (frame.at, Instant::now());
            if let Some(fault) = self.fault {
                fault.before_frame(self.health);
            }
            let outcome = stage.process(frame)?;
            self.last_face_id.store(stage.last_face_id(), Ordering::Relaxed);
            let now = Instant::now();
            self.health.face_busy.add(now - started);
            // A replay keeps the stage busy on purpose.
            if self.pace == Pace::Realtime
                && let Some(change) = load_shedder.record(now - started, now, temperature_c)
            {
                let rate_hz = (configured_hz * change.share).max(MIN_FACE_RATE_HZ);
                warn!("face: analyzes at most {rate_hz} frames per second: {}", change.reason);
                stage.set_rate_hz(rate_hz);
                self.health.face_rate_hz.set(rate_hz);
            }
            let face = match outcome {
                FrameOutcome::NotDue => {
                    count(&self.health.frames_not_due);
                    None
                }
                FrameOutcome::Undecodable(why) => {
                    count(&self.health.frames_undecodable);
                    let times = self.health.frames_undecodable.load(Ordering::Relaxed);
                    let at = at.as_secs_f32();
                    let text = format_args!("frame at {at:.3} s skipped: {why} ({times} so far)");
                    undecodable.set(times.ilog2(), Level::Warn, text);
                    None
                }
                FrameOutcome::NoFace => {
                    count(&self.health.frames_analyzed);
                    None
                }
                FrameOutcome::Face(face) => {
                    count(&self.health.frames_analyzed);
                    count(&self.health.frames_with_face);
                    Some(face)
                }
            };
            undecodable.flush();
            self.health.detections.store(stage.detections(), Ordering::Relaxed);
            if results.send(FaceResult { at, face }) == Err(Disconnected) {
                break;
            }
        }
        Ok(())
    }

    /// Runs until the input ends or all outputs have ended.
    pub fn fusion(
        &self,
        mut voice: VoiceStage,
        mut stage: FusionStage,
        mut input: InputFeed,
        outputs: OutputSenders,
        controls: Receiver<Control>,
    ) -> Result<(), DaemonError> {
        // After a reload, this stage continues at the current time, and its sequence numbers continue without a gap.
        let last_seq = self.last_seq.load(Ordering::Relaxed);
        let mut tick = match last_seq {
            0 => 0,
            _ => whole_periods(self.epoch.elapsed().saturating_sub(INPUT_DELAY), &stage),
        };
        let seq_offset = last_seq.wrapping_sub(tick);
        let mut received = false;
        let mut pauses = self.pause.pauses();
        loop {
            tick = self.tick_after(tick, &stage);
            let time = stage.time_of(tick);
            while let Some(item) = match self.pace {
                Pace::Replay => input.next_up_to(time),
                Pace::Realtime => input.next_before(self.epoch + time + INPUT_DELAY),
            } {
                received = true;
                match item {
                    Input::Face(FaceResult { face, .. }) => face
                        .into_iter()
                        .filter(|face| self.pause.admits(face.captured))
                        .for_each(|face| stage.add_face(face)),
                    Input::Audio(block) if self.pause.admits(block.captured) => {
                        self.health.voice_busy.measure(|| voice.push(&block));
                    }
                    Input::Audio(_) => {}
                }
            }
            let ended = input.end().is_some_and(|end| end < time);
            // A single image is shorter than a period, and gets an estimate nevertheless.
            if ended && (tick > 1 || !received) {
                break;
            }
            if self.pace == Pace::Replay
                && let Some(gap) = input.gap_at(time)
                && gap > MAX_SILENCE
            {
                info!(
                    "the clip has a gap of {:.0} s at {:.1} s: it has no estimates",
                    gap.as_secs_f32(),
                    time.as_secs_f32()
                );
                // The next tick is the first that has the input after the gap.
                let skipped = whole_periods(gap - Duration::from_nanos(1), &stage);
                self.health.estimates_skipped.fetch_add(skipped, Ordering::Relaxed);
                tick += skipped;
                continue;
            }
            for control in controls.try_iter() {
                match control {
                    Control::StartBaseline { started } => {
                        stage.start_baseline(time);
                        // The reader may have disconnected since its request.
                        let _ = started.try_send(());
                    }
                    Control::Restart => {
                        info!("a reader requested a restart");
                        self.restart.store(true, Ordering::Relaxed);
                        self.stop.store(true, Ordering::Relaxed);
                    }
                }
            }
            // After the requests: a calibration that was requested just before a pause is not continued after it.
            if self.has_paused(&mut pauses) || self.pause.is_paused() {
                voice.forget();
                stage.forget();
            }
            let seq = tick.wrapping_add(seq_offset);
            let estimate = match self.pause.is_paused() {
                true => Estimate::paused(seq, time),
                false => {
                    let heard = self.health.voice_busy.measure(|| voice.observe(time, stage.period()))?;
                    let estimate = self.health.fusion_busy.measure(|| stage.estimate(tick, heard))?;
                    Estimate { seq, ..estimate }
                }
            };
            self.last_seq.store(estimate.seq, Ordering::Relaxed);
            count(&self.health.estimates);
            if outputs.send_estimate(estimate) == Err(Disconnected) || ended {
                break;
            }
        }
        Ok(())
    }

    /// The tick of the next estimate. In real time, ticks that are too late are left out.
    fn tick_after(&self, tick: u64, stage: &FusionStage) -> u64 {
        let next = tick + 1;
        let due = self.epoch + stage.time_of(next) + INPUT_DELAY;
        let delay = Instant::now().saturating_duration_since(due);
        if self.pace == Pace::Replay || delay <= MAX_DELAY {
            return next;
        }
        let skipped = whole_periods(delay, stage);
        self.health.estimates_skipped.fetch_add(skipped, Ordering::Relaxed);
        warn!(
            "the process was suspended for {:.1} s: {skipped} estimates are left out",
            delay.as_secs_f32()
        );
        next + skipped
    }
}

/// How many periods between two estimates `time` holds.
fn whole_periods(time: Duration, stage: &FusionStage) -> u64 {
    let period = stage.period();
    u64::try_from(time.as_nanos() / period.as_nanos()).unwrap_or(u64::MAX)
}
