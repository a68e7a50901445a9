//! PCM bytes with block times in, [`AudioBlock`]s out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::capture::pcm::PcmLayout;
use crate::capture::resample::Resampler;
use crate::capture::{AUDIO_RATE_HZ, AudioBlock};

/// 32 ms: two frames of the voice activity detector.
const CHUNK_SAMPLES: usize = 512;

/// Block times are rounded to milliseconds and wander with the recorder's clock. Up to this the sample count is the
/// better clock.
const TOLERANCE: Duration = Duration::from_millis(40);

/// Turns blocks of PCM into chunks of mono at [`AUDIO_RATE_HZ`].
///
/// Samples are counted from the first block on, and [`AudioBlock::at`] follows the count. Where a block comes more than
/// [`TOLERANCE`] later than the count says, samples are missing: the sound so far is flushed and `at` steps to the
/// block's time. Where it comes that much earlier, the part that lies in the past is left out.
pub struct Sound {
    layout: PcmLayout,
    resampler: Resampler,
    /// Time of the first sample since the last step.
    start: Duration,
    /// Samples taken since then, at the source's rate.
    taken: u64,
    /// Samples put in chunks since then, at 16 kHz.
    given: u64,
    mono: Vec<f32>,
    resampled: Vec<f32>,
    ready: VecDeque<AudioBlock>,
}

impl Sound {
    pub fn new(layout: PcmLayout) -> Sound {
        Sound {
            layout,
            resampler: Resampler::new(layout.rate_hz()),
            start: Duration::ZERO,
            taken: 0,
            given: 0,
            mono: Vec::new(),
            resampled: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Adds a block whose first sample was captured `at`.
    pub fn push(&mut self, at: Duration, bytes: &[u8]) {
        let due = self.start + samples(self.taken, self.layout.rate_hz());
        let mut bytes = bytes;
        if self.taken == 0 {
            self.start = self.start.max(at);
        } else if at > due + TOLERANCE {
            self.flush();
            self.start = at;
        } else if at + TOLERANCE < due {
            let past = (due - at).as_secs_f64() * f64::from(self.layout.rate_hz());
            let past = (past as usize).saturating_mul(self.layout.frame_bytes());
            bytes = bytes.get(past..).unwrap_or_default();
        }
        self.push_on(bytes);
    }

    /// Adds bytes that follow the last ones without a gap.
    pub fn push_on(&mut self, bytes: &[u8]) {
        self.mono.clear();
        self.layout.append_mono(bytes, &mut self.mono);
        self.taken += self.mono.len() as u64;
        self.resampler.push(&self.mono, &mut self.resampled);
        let whole = self.resampled.len() / CHUNK_SAMPLES * CHUNK_SAMPLES;
        self.cut(whole);
    }

    /// Makes chunks of everything taken so far. What comes next may start at another time, but not earlier.
    pub fn flush(&mut self) {
        self.resampler.finish(&mut self.resampled);
        self.cut(self.resampled.len());
        self.start += samples(self.taken, self.layout.rate_hz());
        (self.taken, self.given) = (0, 0);
    }

    /// The next chunk, if one is complete.
    pub fn pop(&mut self) -> Option<AudioBlock> {
        self.ready.pop_front()
    }

    fn cut(&mut self, count: usize) {
        let captured = Instant::now();
        for part in self.resampled[..count].chunks(CHUNK_SAMPLES) {
            let at = self.start + samples(self.given, AUDIO_RATE_HZ);
            self.ready.push_back(AudioBlock {
                at,
                captured,
                samples: part.to_vec(),
            });
            self.given += part.len() as u64;
        }
        self.resampled.drain(..count);
    }
}

/// How long `count` samples last.
fn samples(count: u64, rate_hz: u32) -> Duration {
    let rate = u64::from(rate_hz);
    Duration::new(count / rate, (count % rate * 1_000_000_000 / rate) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::pcm::SampleFormat;

    fn sound(rate_hz: u32) -> Sound {
        Sound::new(PcmLayout::new(SampleFormat::S16, 1, rate_hz.into()).unwrap())
    }

    fn drain(sound: &mut Sound) -> Vec<(u128, usize)> {
        sound.flush();
        std::iter::from_fn(|| sound.pop())
            .map(|chunk| (chunk.at.as_micros(), chunk.samples.len()))
            .collect()
    }

    #[test]
    fn chunks_follow_the_sample_count_despite_rounded_block_times() {
        let mut sound = sound(48_000);
        for (at, count) in [(0, 1008), (21, 1008), (42, 1008), (63, 1776)] {
            sound.push(Duration::from_millis(at), &vec![0; count * 2]);
        }
        assert_eq!(
            drain(&mut sound),
            [(0, 512), (32_000, 512), (64_000, 512), (96_000, 64)]
        );
    }

    #[test]
    fn a_gap_steps_the_time_and_loses_nothing() {
        let mut sound = sound(16_000);
        sound.push(Duration::from_millis(500), &[0; 1600]);
        sound.push(Duration::from_millis(650), &[0; 320]);
        assert_eq!(drain(&mut sound), [(500_000, 512), (532_000, 288), (650_000, 160)]);
    }

    #[test]
    fn a_small_lag_does_not_step_the_time() {
        let mut sound = sound(16_000);
        sound.push(Duration::ZERO, &[0; 1600]);
        sound.push(Duration::from_millis(85), &[0; 320]);
        assert_eq!(drain(&mut sound), [(0, 512), (32_000, 448)]);
    }

    #[test]
    fn a_block_from_the_past_never_turns_time_back() {
        let mut sound = sound(16_000);
        sound.push(Duration::from_millis(1000), &[0; 3200]);
        sound.push(Duration::from_millis(1050), &[0; 3200]);
        sound.push(Duration::ZERO, &[0; 3200]);
        let chunks = drain(&mut sound);
        assert_eq!(chunks.iter().map(|(_, samples)| samples).sum::<usize>(), 1600 + 800);
        assert!(chunks.is_sorted());
    }
}
