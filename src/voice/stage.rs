//! The voice half of the `fusion` thread's work, chunk by chunk and tick by tick.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::capture::{AUDIO_RATE_HZ, AudioBlock};
use crate::model::{Bundle, ModelError};

use super::activity::Activity;
use super::encoder::{Embedding, Encoder};
use super::mel::{LogMel, SPAN};

/// A window counts as voice from this share of speech on.
const MIN_SPEECH: f32 = 0.25;
/// Less sound than this (samples, 0.4 s) is not judged.
const MIN_SAMPLES: u64 = 6_400;
/// Chunks that lie this close to where they are expected follow on without a gap: clocks and containers round.
const SLACK: Duration = Duration::from_millis(40);
/// A longer gap is not filled with silence: the sound starts afresh.
const LONGEST_FILL: Duration = Duration::from_secs(2);
/// Samples kept for the level: one second.
const LEVEL_KEPT: usize = AUDIO_RATE_HZ as usize;

/// What was heard at one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceObservation {
    /// When the newest sample it rests on was captured.
    pub captured: Instant,
    /// Somebody spoke since the last tick.
    pub active: bool,
    /// Root mean square since the last tick, in dB of full scale; `None` for digital silence.
    pub level_db: Option<f32>,
    /// What the last second's voice carries; `None` without enough speech in it.
    pub embedding: Option<Embedding>,
}

pub struct VoiceStage {
    encoder: Encoder,
    sound: Option<Sound>,
}

/// A stretch of sound without gaps, its samples counted from `origin`.
struct Sound {
    origin: Duration,
    samples: u64,
    captured: Instant,
    activity: Activity,
    mel: LogMel,
    recent: VecDeque<f32>,
}

impl VoiceStage {
    pub fn load(bundle: &Bundle) -> Result<VoiceStage, ModelError> {
        Ok(VoiceStage {
            encoder: Encoder::load(bundle)?,
            sound: None,
        })
    }

    /// Takes in the next samples.
    pub fn push(&mut self, chunk: &AudioBlock) {
        let continues = self.sound.as_ref().is_some_and(|s| chunk.at < s.end() + LONGEST_FILL);
        if !continues {
            self.sound = Some(Sound::starting(chunk.at, chunk.captured));
        }
        if let Some(sound) = &mut self.sound {
            sound.push(chunk);
        }
    }

    /// What is heard at time `at`, given the sound up to then; `None` if none has come since the tick before, `period`
    /// ago. Sound that has come already but is later than `at` is left for later ticks.
    pub fn observe(&mut self, at: Duration, period: Duration) -> Result<Option<VoiceObservation>, ModelError> {
        let Some(sound) = &self.sound else {
            return Ok(None);
        };
        let end = sound.samples_at(at);
        let from = sound.samples_at(at.saturating_sub(period));
        if end <= from {
            return Ok(None);
        }
        let speech = sound.activity.share(end.saturating_sub(SPAN), end);
        let embedding = if end >= MIN_SAMPLES && speech >= MIN_SPEECH {
            Some(self.encoder.encode(&sound.mel.window(end))?)
        } else {
            None
        };
        Ok(Some(VoiceObservation {
            captured: sound.captured,
            active: sound.activity.share(from, end) > 0.0,
            level_db: sound.level_db(from, end),
            embedding,
        }))
    }
}

impl Sound {
    fn starting(origin: Duration, captured: Instant) -> Sound {
        Sound {
            origin,
            samples: 0,
            captured,
            activity: Activity::default(),
            mel: LogMel::default(),
            recent: VecDeque::with_capacity(LEVEL_KEPT),
        }
    }

    /// The time of the next sample.
    fn end(&self) -> Duration {
        self.origin + Duration::from_secs_f64(self.samples as f64 / f64::from(AUDIO_RATE_HZ))
    }

    /// How many of the samples that have come are no later than `at`.
    fn samples_at(&self, at: Duration) -> u64 {
        let since = at.saturating_sub(self.origin).as_secs_f64();
        ((since * f64::from(AUDIO_RATE_HZ)).round() as u64).min(self.samples)
    }

    /// Appends a chunk where its time says: a gap becomes silence, what was heard already is left out.
    fn push(&mut self, chunk: &AudioBlock) {
        self.captured = chunk.captured;
        let end = self.end();
        let count = |d: Duration| (d.as_secs_f64() * f64::from(AUDIO_RATE_HZ)).round() as usize;
        if chunk.at > end + SLACK {
            self.append(&vec![0.0; count(chunk.at - end)]);
            self.append(&chunk.samples);
        } else if chunk.at + SLACK < end {
            let heard = count(end - chunk.at).min(chunk.samples.len());
            self.append(&chunk.samples[heard..]);
        } else {
            self.append(&chunk.samples);
        }
    }

    fn append(&mut self, samples: &[f32]) {
        self.activity.push(samples);
        self.mel.push(samples);
        self.recent.extend(samples);
        let excess = self.recent.len().saturating_sub(LEVEL_KEPT);
        self.recent.drain(..excess);
        self.samples += samples.len() as u64;
    }

    fn level_db(&self, from: u64, to: u64) -> Option<f32> {
        let oldest = self.samples - self.recent.len() as u64;
        let place = |sample: u64| (sample.max(oldest) - oldest) as usize;
        let (from, to) = (place(from), place(to));
        let energy: f64 = self.recent.range(from..to).map(|v| f64::from(v * v)).sum();
        let mean = energy / (to - from).max(1) as f64;
        // Below 24-bit silence there is nothing to tell apart.
        (mean > 1e-15).then(|| (10.0 * mean.log10()) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(at_ms: u64, samples: usize) -> AudioBlock {
        AudioBlock {
            at: Duration::from_millis(at_ms),
            captured: Instant::now(),
            samples: vec![0.5; samples],
        }
    }

    #[test]
    fn a_gap_becomes_silence_of_its_length() {
        let mut sound = Sound::starting(Duration::ZERO, Instant::now());
        sound.push(&chunk(0, 1600));
        sound.push(&chunk(300, 1600));
        assert_eq!(sound.samples, 6400);
        assert_eq!(sound.end(), Duration::from_millis(400));
        assert_eq!(sound.level_db(1600, 4800), None);
        assert!((sound.level_db(0, 1600).unwrap() + 6.02).abs() < 0.01);
    }

    #[test]
    fn a_chunk_that_repeats_sound_adds_only_what_is_new() {
        let mut sound = Sound::starting(Duration::ZERO, Instant::now());
        sound.push(&chunk(0, 3200));
        sound.push(&chunk(100, 3200));
        assert_eq!(sound.samples, 4800);
    }

    #[test]
    fn small_jitter_neither_adds_nor_drops() {
        let mut sound = Sound::starting(Duration::from_millis(70), Instant::now());
        for (i, jitter) in [0u64, 12, 3, 30, 9].iter().enumerate() {
            sound.push(&chunk(70 + 20 * i as u64 + jitter, 320));
        }
        assert_eq!(sound.samples, 1600);
        assert_eq!(sound.samples_at(Duration::from_millis(100)), 480);
        assert_eq!(sound.samples_at(Duration::from_millis(50)), 0);
    }
}
