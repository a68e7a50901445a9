//! Voice activity: which frames of 16 ms contain speech. The detector is the `earshot` crate.

use std::collections::VecDeque;

use earshot::Detector;

/// Samples in one frame of the detector: 16 ms at 16 kHz.
pub const FRAME: usize = 256;
/// A frame with at least this score, 0..1, is speech.
const MIN_SCORE: f32 = 0.5;
/// Frames kept: four seconds, more than any window needs.
const FRAMES_KEPT: usize = 256;

/// Records for each frame whether it contains speech. Samples are counted from zero.
pub struct Activity {
    detector: Box<Detector>,
    pending: Vec<f32>,
    /// The newest frames, oldest first.
    voiced: VecDeque<bool>,
    frames: u64,
}

impl Default for Activity {
    fn default() -> Self {
        Activity {
            detector: Detector::default_boxed(),
            pending: Vec::with_capacity(FRAME),
            voiced: VecDeque::with_capacity(FRAMES_KEPT),
            frames: 0,
        }
    }
}

impl Activity {
    /// Adds samples in −1..1 at 16 kHz.
    pub fn push(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            let (now, rest) = samples.split_at(samples.len().min(FRAME - self.pending.len()));
            self.pending.extend_from_slice(now);
            samples = rest;
            if self.pending.len() == FRAME {
                if self.voiced.len() == FRAMES_KEPT {
                    self.voiced.pop_front();
                }
                let score = self.detector.predict_f32(&self.pending);
                self.voiced.push_back(score >= MIN_SCORE);
                self.frames += 1;
                self.pending.clear();
            }
        }
    }

    /// The share of speech, 0..1, among the frames that lie completely between two sample counts. 0 if there are none.
    pub fn share(&self, from: u64, to: u64) -> f32 {
        let first = from.div_ceil(FRAME as u64);
        let end = (to / FRAME as u64).min(self.frames);
        let oldest = self.frames - self.voiced.len() as u64;
        let first = first.max(oldest);
        if end <= first {
            return 0.0;
        }
        let frames = (oldest..).zip(&self.voiced);
        let speech = frames
            .filter(|(frame, voiced)| (first..end).contains(frame) && **voiced)
            .count();
        speech as f32 / (end - first) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_speech_for_any_block_size() {
        let mut activity = Activity::default();
        for block in [vec![0.0; 1000], vec![0.0; 1], vec![0.0; 7000]] {
            activity.push(&block);
        }
        assert_eq!(activity.frames, 8001 / 256);
        assert_eq!(activity.share(0, 8001), 0.0);
    }

    #[test]
    fn the_share_counts_only_complete_frames() {
        let activity = Activity {
            voiced: [true, false, true, true].into(),
            frames: 4,
            ..Activity::default()
        };
        assert_eq!(activity.share(0, 1024), 0.75);
        assert_eq!(activity.share(1, 1023), 0.5);
        assert_eq!(activity.share(0, 255), 0.0);
        assert_eq!(activity.share(512, 9999), 1.0);
    }
}
