//! The `fusion` thread's work: observations in, one [`Estimate`] a tick out.

use std::time::{Duration, Instant};

use crate::capture::AudioBlock;
use crate::face::FaceObservation;
use crate::model::{Bundle, GraphName, ModelError};
use crate::voice::{VoiceObservation, VoiceStage};

use super::baseline::{Baseline, BaselineMode};
use super::estimator::{Affect, Estimator};
use super::smoothing::Smoother;
use super::timeline::Timeline;

/// When to estimate, and how steadily.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusionSettings {
    /// From one estimate to the next; a whole fraction of the network's step.
    pub period: Duration,
    pub time_constant: Duration,
    pub baseline: BaselineMode,
}

/// What was made of one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Counts from 1, without gaps at the source: a gap in what arrives is what got lost on the way.
    pub seq: u64,
    /// On the source's clock.
    pub at: Duration,
    /// `None` with neither face nor voice.
    pub affect: Option<Affect>,
    /// What the newest step of `affect` rests on.
    pub from_face: bool,
    pub from_voice: bool,
    pub face: Option<FaceObservation>,
    pub voice: Option<VoiceObservation>,
}

impl Estimate {
    /// When the newest of what it rests on was captured.
    pub fn captured(&self) -> Option<Instant> {
        let voice = self.voice.as_ref().map(|voice| voice.captured);
        self.face.map(|face| face.captured).max(voice)
    }
}

pub struct FusionStage {
    voice: VoiceStage,
    timeline: Timeline,
    estimator: Estimator,
    baseline: Baseline,
    smoother: Smoother,
    period: Duration,
}

impl FusionStage {
    pub fn load(bundle: &Bundle, settings: FusionSettings) -> Result<FusionStage, ModelError> {
        let estimator = Estimator::load(bundle)?;
        let step = estimator.step();
        let (step_us, period_us) = (step.as_micros(), settings.period.as_micros());
        if period_us == 0 || step_us % period_us != 0 {
            return Err(ModelError::Unfit {
                graph: GraphName::Fusion,
                reason: format!(
                    "its step of {step:?} is not a whole number of ticks of {:?}",
                    settings.period
                ),
            });
        }
        Ok(FusionStage {
            voice: VoiceStage::load(bundle)?,
            timeline: Timeline::new(step, (step_us / period_us) as u64),
            estimator,
            baseline: Baseline::new(settings.baseline),
            smoother: Smoother::new(settings.time_constant),
            period: settings.period,
        })
    }

    /// Takes the next ten seconds, from `at`, for the person's rest.
    pub fn start_baseline(&mut self, at: Duration) {
        self.baseline.start(at);
    }

    pub fn see(&mut self, face: FaceObservation) {
        self.timeline.add_face(face);
    }

    pub fn hear(&mut self, chunk: &AudioBlock) {
        self.voice.push(chunk);
    }

    /// The time of a tick. Ticks count from 1.
    pub fn time_of(&self, tick: u64) -> Duration {
        Duration::from_micros(self.period.as_micros() as u64 * tick)
    }

    /// What is to be said at `tick`, from what was captured up to then.
    pub fn estimate(&mut self, tick: u64) -> Result<Estimate, ModelError> {
        let at = self.time_of(tick);
        let voice = self.voice.observe(at, self.period)?;
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
        let fresh = fresh.map(|raw| self.baseline.apply(at, self.period, face.map(|f| f.id), raw));
        Ok(Estimate {
            seq: tick,
            at,
            affect: self.smoother.next(at, fresh),
            from_face,
            from_voice,
            face,
            voice,
        })
    }
}
