//! The fusion stage: takes observations of face and voice, and gives one [`Estimate`] per tick.

use std::time::{Duration, Instant};

use crate::face::FaceObservation;
use crate::model::{Bundle, GraphName, ModelError};
use crate::voice::VoiceObservation;

use super::baseline::{Baseline, BaselineMode};
use super::estimator::{Affect, Estimator};
use super::smoothing::Smoother;
use super::timeline::Timeline;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusionSettings {
    /// Time from one estimate to the next. The network's step must be a multiple of it.
    pub period: Duration,
    /// Time constant of the smoothing.
    pub time_constant: Duration,
    pub baseline: BaselineMode,
}

/// The estimate at one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Counts ticks from 1. A gap means that estimates were left out or lost.
    pub seq: u64,
    /// The time of the tick on the source's clock.
    pub at: Duration,
    /// `None` with neither face nor voice.
    pub affect: Option<Affect>,
    /// The newest step of the network's window contains a face.
    pub from_face: bool,
    /// The newest step of the network's window contains a voice.
    pub from_voice: bool,
    pub face: Option<FaceObservation>,
    pub voice: Option<VoiceObservation>,
    /// The devices are closed on request. There is neither face nor voice.
    pub paused: bool,
}

impl Estimate {
    /// The estimate of a tick during a pause.
    pub fn paused(seq: u64, at: Duration) -> Estimate {
        Estimate {
            seq,
            at,
            affect: None,
            from_face: false,
            from_voice: false,
            face: None,
            voice: None,
            paused: true,
        }
    }

    /// The time from the newest capture that the estimate uses until `now`. `None` if it uses neither face nor voice.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        let voice = self.voice.as_ref().map(|voice| voice.captured);
        let newest = self.face.map(|face| face.captured).max(voice)?;
        Some(now.saturating_duration_since(newest))
    }
}

pub struct FusionStage {
    timeline: Timeline,
    estimator: Estimator,
    baseline: Baseline,
    smoother: Smoother,
    /// The id of the last face.
    person: Option<u32>,
    period: Duration,
}

impl FusionStage {
    pub fn load(bundle: &Bundle, settings: FusionSettings) -> Result<FusionStage, ModelError> {
        let estimator = Estimator::load(bundle)?;
        let step = estimator.step();
        let ticks_per_step = ticks_in(step, settings.period).ok_or_else(|| ModelError::Unusable {
            graph: GraphName::Fusion,
            reason: format!(
                "its step of {step:?} is not a multiple of the period of {:?}",
                settings.period
            ),
        })?;
        Ok(FusionStage {
            timeline: Timeline::new(step, ticks_per_step),
            estimator,
            baseline: Baseline::new(settings.baseline),
            smoother: Smoother::new(settings.time_constant),
            person: None,
            period: settings.period,
        })
    }

    /// Starts a neutral calibration at `at`.
    pub fn start_baseline(&mut self, at: Duration) {
        self.baseline.start(at);
    }

    /// Forgets the people seen and heard so far, and their neutral state.
    pub fn forget(&mut self) {
        self.timeline.clear();
        self.baseline.forget();
        self.smoother.restart();
        self.person = None;
    }

    /// Adds a face. Faces must come in the order of their time.
    pub fn add_face(&mut self, face: FaceObservation) {
        self.timeline.add_face(face);
    }

    /// Time from one tick to the next.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The time of a tick. Ticks count from 1.
    pub fn time_of(&self, tick: u64) -> Duration {
        let period_us = u64::try_from(self.period.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(period_us.saturating_mul(tick))
    }

    /// The estimate at `tick`, from `voice`, which is the voice stage's observation at that tick, and the faces added so far.
    pub fn estimate(&mut self, tick: u64, voice: Option<VoiceObservation>) -> Result<Estimate, ModelError> {
        let at = self.time_of(tick);
        if let Some(embedding) = voice.as_ref().and_then(|v| v.embedding) {
            self.timeline.add_voice(tick, embedding);
        }
        let window = self.timeline.window(tick, at);
        let (from_face, from_voice) = (window.face_now, window.voice_now);
        let fresh = if from_face || from_voice {
            Some(self.estimator.estimate(&window)?)
        } else {
            None
        };
        let face = self.timeline.newest_face(at).copied();
        if let Some(face) = &face
            && self.person.replace(face.id).is_some_and(|before| before != face.id)
        {
            self.smoother.restart();
        }
        let fresh = fresh.map(|raw| self.baseline.apply(at, self.period, face.map(|f| f.id), raw));
        Ok(Estimate {
            seq: tick,
            at,
            affect: self.smoother.next(at, self.period, fresh),
            from_face,
            from_voice,
            face,
            voice,
            paused: false,
        })
    }
}

/// How many ticks one step has. `None` unless that is a whole number.
fn ticks_in(step: Duration, period: Duration) -> Option<u64> {
    let (step, period) = (step.as_micros(), period.as_micros());
    let ticks = step.checked_div(period).filter(|ticks| ticks * period == step)?;
    u64::try_from(ticks).ok()
}
