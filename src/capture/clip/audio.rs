//! From PCM bytes with block times to [`AudioBlock`]s.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::capture::mono::MonoMixer;
use crate::capture::pcm::PcmLayout;
use crate::capture::resample::Resampler;
use crate::capture::{AUDIO_RATE_HZ, AudioBlock, CaptureError, duration_of, samples_in};

/// 32 ms: two frames of the voice activity detector.
const BLOCK_SAMPLES: usize = 512;

/// Block times are rounded to milliseconds and drift with the recorder's clock. Deviations up to this are ignored, since the
/// sample count is more accurate.
const TOLERANCE: Duration = Duration::from_millis(40);

/// Turns PCM of any layout into blocks of mono at [`AUDIO_RATE_HZ`].
///
/// [`AudioBlock::at`] follows the sample count from the first block on. If a block is more than [`TOLERANCE`] later than the
/// count says, samples are missing: the samples so far are flushed, and `at` jumps to the block's time. If it is that much
/// earlier, the part that lies in the past is dropped.
pub struct ClipAudio {
    mixer: MonoMixer,
    resampler: Resampler,
    /// Time of the first sample since the last jump.
    start: Duration,
    /// Samples read since then, at the clip's rate.
    samples_read: u64,
    /// Samples put into blocks since then, at 16 kHz.
    samples_sent: u64,
    mono: Vec<f32>,
    resampled: Vec<f32>,
    ready: VecDeque<AudioBlock>,
    ended: bool,
    /// The error to report after the last block.
    error: Option<CaptureError>,
}

impl ClipAudio {
    /// `name` is what the log calls the clip.
    pub fn new(name: &str, layout: PcmLayout) -> ClipAudio {
        ClipAudio {
            mixer: MonoMixer::new(name, layout),
            resampler: Resampler::new(layout.rate_hz()),
            start: Duration::ZERO,
            samples_read: 0,
            samples_sent: 0,
            mono: Vec::new(),
            resampled: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
            error: None,
        }
    }

    /// The time just after the last sample read.
    pub fn position(&self) -> Duration {
        self.start + duration_of(self.samples_read, self.mixer.layout().rate_hz())
    }

    /// Adds PCM whose first sample was captured `at`.
    pub fn push(&mut self, at: Duration, bytes: &[u8]) {
        let due = self.position();
        let mut bytes = bytes;
        if self.samples_read == 0 {
            self.start = self.start.max(at);
        } else if at > due + TOLERANCE {
            self.flush();
            self.start = at;
        } else if at + TOLERANCE < due {
            let past = usize::try_from(samples_in(due - at, self.mixer.layout().rate_hz())).unwrap_or(usize::MAX);
            let past = past.saturating_mul(self.mixer.layout().frame_bytes());
            bytes = bytes.get(past..).unwrap_or_default();
        }
        self.push_next(bytes);
    }

    /// Adds PCM that follows the previous bytes without a gap.
    pub fn push_next(&mut self, bytes: &[u8]) {
        self.mono.clear();
        self.mixer.push(bytes, &mut self.mono);
        self.samples_read += self.mono.len() as u64;
        self.resampler.push(&self.mono, &mut self.resampled);
        let whole = self.resampled.len() / BLOCK_SAMPLES * BLOCK_SAMPLES;
        self.cut_blocks(whole);
    }

    /// Ends the track. `error` is reported after the last block.
    pub fn end(&mut self, error: Option<CaptureError>) {
        self.flush();
        (self.ended, self.error) = (true, error);
    }

    /// Whether [`ClipAudio::next_block`] needs more input, or [`ClipAudio::end`].
    pub fn needs_input(&self) -> bool {
        self.ready.is_empty() && !self.ended
    }

    /// The next complete block. At the end of the track its error, once, and then `None`.
    pub fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        match self.ready.pop_front() {
            Some(block) => Ok(Some(block)),
            None => self.error.take().map_or(Ok(None), Err),
        }
    }

    /// Puts all samples read so far into blocks. The next samples may start later.
    fn flush(&mut self) {
        self.resampler.finish(&mut self.resampled);
        self.cut_blocks(self.resampled.len());
        self.start = self.position();
        (self.samples_read, self.samples_sent) = (0, 0);
    }

    fn cut_blocks(&mut self, samples: usize) {
        let captured = Instant::now();
        for part in self.resampled[..samples].chunks(BLOCK_SAMPLES) {
            let at = self.start + duration_of(self.samples_sent, AUDIO_RATE_HZ);
            self.ready.push_back(AudioBlock {
                at,
                captured,
                samples: part.to_vec(),
            });
            self.samples_sent += part.len() as u64;
        }
        self.resampled.drain(..samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::pcm::SampleFormat;

    fn audio(rate_hz: u32) -> ClipAudio {
        ClipAudio::new("test", PcmLayout::new(SampleFormat::S16, 1, rate_hz.into()).unwrap())
    }

    /// Time in microseconds and number of samples of each block.
    fn drain(audio: &mut ClipAudio) -> Vec<(u128, usize)> {
        audio.end(None);
        std::iter::from_fn(|| audio.next_block().unwrap())
            .map(|block| (block.at.as_micros(), block.samples.len()))
            .collect()
    }

    #[test]
    fn block_times_follow_the_sample_count() {
        let mut audio = audio(48_000);
        for (at, count) in [(0, 1008), (21, 1008), (42, 1008), (63, 1776)] {
            audio.push(Duration::from_millis(at), &vec![0; count * 2]);
        }
        assert_eq!(
            drain(&mut audio),
            [(0, 512), (32_000, 512), (64_000, 512), (96_000, 64)]
        );
    }

    #[test]
    fn a_gap_advances_the_time_and_loses_nothing() {
        let mut audio = audio(16_000);
        audio.push(Duration::from_millis(500), &[0; 1600]);
        audio.push(Duration::from_millis(650), &[0; 320]);
        assert_eq!(drain(&mut audio), [(500_000, 512), (532_000, 288), (650_000, 160)]);
    }

    #[test]
    fn a_small_deviation_is_ignored() {
        let mut audio = audio(16_000);
        audio.push(Duration::ZERO, &[0; 1600]);
        audio.push(Duration::from_millis(85), &[0; 320]);
        assert_eq!(drain(&mut audio), [(0, 512), (32_000, 448)]);
    }

    #[test]
    fn times_never_decrease_after_a_block_from_the_past() {
        let mut audio = audio(16_000);
        audio.push(Duration::from_millis(1000), &[0; 3200]);
        audio.push(Duration::from_millis(1050), &[0; 3200]);
        audio.push(Duration::ZERO, &[0; 3200]);
        let blocks = drain(&mut audio);
        assert_eq!(blocks.iter().map(|(_, samples)| samples).sum::<usize>(), 1600 + 800);
        assert!(blocks.is_sorted());
    }
}
