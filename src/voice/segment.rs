//! Audio without gaps, analysed as it arrives.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::capture::{AUDIO_RATE_HZ, AudioBlock, duration_of, samples_in};

use super::activity::Activity;
use super::mel::LogMel;

/// A block that deviates from the expected time by less continues without a gap, because clocks and containers round.
const TOLERANCE: Duration = Duration::from_millis(40);
/// Samples kept for the level: one second.
const LEVEL_SAMPLES: usize = AUDIO_RATE_HZ as usize;

/// A contiguous segment of audio. Samples are counted from its start.
pub struct SpeechSegment {
    /// Time of the first sample on the source's clock.
    origin: Duration,
    samples: u64,
    /// When the newest sample was captured.
    captured: Instant,
    activity: Activity,
    mel: LogMel,
    /// The newest samples, oldest first.
    recent: VecDeque<f32>,
}

impl SpeechSegment {
    pub fn starting(origin: Duration, captured: Instant) -> SpeechSegment {
        SpeechSegment {
            origin,
            samples: 0,
            captured,
            activity: Activity::default(),
            mel: LogMel::default(),
            recent: VecDeque::with_capacity(LEVEL_SAMPLES),
        }
    }

    /// The time just after the newest sample, on the source's clock.
    pub fn end(&self) -> Duration {
        self.origin + duration_of(self.samples, AUDIO_RATE_HZ)
    }

    /// When the newest sample was captured.
    pub fn captured(&self) -> Instant {
        self.captured
    }

    /// How many samples there are up to the time `at`.
    pub fn samples_at(&self, at: Duration) -> u64 {
        samples_in(at.saturating_sub(self.origin), AUDIO_RATE_HZ).min(self.samples)
    }

    /// The share of speech, 0..1, between two sample counts.
    pub fn speech_share(&self, from: u64, to: u64) -> f32 {
        self.activity.share(from, to)
    }

    /// The encoder's input for the window that ends at sample `end`.
    pub fn log_mel_window(&self, end: u64) -> Vec<f32> {
        self.mel.window(end)
    }

    /// Adds a block at its own time. A gap before it is filled with silence. Samples that overlap earlier ones are dropped.
    pub fn push(&mut self, block: &AudioBlock) {
        self.captured = block.captured;
        let end = self.end();
        let count = |time: Duration| usize::try_from(samples_in(time, AUDIO_RATE_HZ)).unwrap_or(usize::MAX);
        if block.at > end + TOLERANCE {
            self.append(&vec![0.0; count(block.at - end)]);
            self.append(&block.samples);
        } else if block.at + TOLERANCE < end {
            let known = count(end - block.at).min(block.samples.len());
            self.append(&block.samples[known..]);
        } else {
            self.append(&block.samples);
        }
    }

    fn append(&mut self, samples: &[f32]) {
        self.activity.push(samples);
        self.mel.push(samples);
        self.recent.extend(samples);
        let excess = self.recent.len().saturating_sub(LEVEL_SAMPLES);
        self.recent.drain(..excess);
        self.samples += samples.len() as u64;
    }

    /// The root mean square level between two sample counts, in dB relative to full scale, without a constant offset. `None` for
    /// digital silence.
    pub fn level_db(&self, from: u64, to: u64) -> Option<f32> {
        let oldest = self.samples - self.recent.len() as u64;
        let index = |sample: u64| usize::try_from(sample.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let (from, to) = (index(from), index(to));
        let count = (to - from).max(1) as f64;
        let samples = || self.recent.range(from..to).map(|v| f64::from(*v));
        let offset = samples().sum::<f64>() / count;
        let mean = samples().map(|v| (v - offset).powi(2)).sum::<f64>() / count;
        // This is below the quantization noise of 24-bit samples.
        const SILENCE: f64 = 1e-15;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a level needs no more precision than f32"
        )]
        let level = (10.0 * mean.log10()) as f32;
        (mean > SILENCE).then_some(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(at_ms: u64, samples: usize) -> AudioBlock {
        AudioBlock {
            at: Duration::from_millis(at_ms),
            captured: Instant::now(),
            // A tone of 8 kHz with an offset.
            samples: (0..samples).map(|n| if n % 2 == 0 { 0.75 } else { -0.25 }).collect(),
        }
    }

    #[test]
    fn a_gap_becomes_silence_of_its_length() {
        let mut segment = SpeechSegment::starting(Duration::ZERO, Instant::now());
        segment.push(&block(0, 1600));
        segment.push(&block(300, 1600));
        assert_eq!(segment.samples, 6400);
        assert_eq!(segment.end(), Duration::from_millis(400));
        assert_eq!(segment.level_db(1600, 4800), None);
        assert!((segment.level_db(0, 1600).unwrap() + 6.02).abs() < 0.01);
    }

    #[test]
    fn an_overlapping_block_adds_only_its_new_samples() {
        let mut segment = SpeechSegment::starting(Duration::ZERO, Instant::now());
        segment.push(&block(0, 3200));
        segment.push(&block(100, 3200));
        assert_eq!(segment.samples, 4800);
    }

    #[test]
    fn small_jitter_neither_adds_nor_drops_samples() {
        let mut segment = SpeechSegment::starting(Duration::from_millis(70), Instant::now());
        for (i, jitter) in [0u64, 12, 3, 30, 9].iter().enumerate() {
            segment.push(&block(70 + 20 * i as u64 + jitter, 320));
        }
        assert_eq!(segment.samples, 1600);
        assert_eq!(segment.samples_at(Duration::from_millis(100)), 480);
        assert_eq!(segment.samples_at(Duration::from_millis(50)), 0);
    }
}
