//! The voice stage: takes audio blocks, and gives one observation per tick.

use std::time::Duration;

use crate::capture::AudioBlock;
use crate::model::{Bundle, ModelError};

use super::encoder::Encoder;
use super::mel::SPAN;
use super::observation::VoiceObservation;
use super::segment::SpeechSegment;

/// The least share of speech in a window that is encoded.
const MIN_SPEECH: f32 = 0.25;
/// The least audio that is encoded: 0.4 s, in samples.
const MIN_SAMPLES: u64 = 6_400;
/// A longer gap is not filled with silence. A new segment starts.
const MAX_GAP: Duration = Duration::from_secs(2);

pub struct VoiceStage {
    encoder: Encoder,
    /// `None` before the first audio block.
    segment: Option<SpeechSegment>,
}

impl VoiceStage {
    pub fn load(bundle: &Bundle) -> Result<VoiceStage, ModelError> {
        Ok(VoiceStage {
            encoder: Encoder::load(bundle)?,
            segment: None,
        })
    }

    /// Forgets all audio.
    pub fn forget(&mut self) {
        self.segment = None;
    }

    /// Adds the next audio block.
    pub fn push(&mut self, block: &AudioBlock) {
        match &mut self.segment {
            Some(segment) if block.at < segment.end() + MAX_GAP => segment.push(block),
            _ => {
                let mut segment = SpeechSegment::starting(block.at, block.captured);
                segment.push(block);
                self.segment = Some(segment);
            }
        }
    }

    /// The voice at time `at`, from the audio up to then. `period` is the time since the previous tick. `None` if no audio has
    /// arrived since then. Audio later than `at` is kept for later ticks.
    pub fn observe(&mut self, at: Duration, period: Duration) -> Result<Option<VoiceObservation>, ModelError> {
        let Some(segment) = &self.segment else {
            return Ok(None);
        };
        let end = segment.samples_at(at);
        let from = segment.samples_at(at.saturating_sub(period));
        if end <= from {
            return Ok(None);
        }
        let speech = segment.speech_share(end.saturating_sub(SPAN), end);
        let embedding = if end >= MIN_SAMPLES && speech >= MIN_SPEECH {
            Some(self.encoder.encode(&segment.log_mel_window(end))?)
        } else {
            None
        };
        Ok(Some(VoiceObservation {
            captured: segment.captured(),
            active: segment.speech_share(from, end) > 0.0,
            level_db: segment.level_db(from, end),
            embedding,
        }))
    }
}
