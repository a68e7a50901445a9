//! From the bytes of a live source to audio blocks with times.

use std::time::{Duration, Instant};

use super::drift::DriftCompensator;
use super::offset::OffsetRemover;
use super::sample_clock::SampleClock;
use crate::capture::mono::MonoMixer;
use crate::capture::pcm::PcmLayout;
use crate::capture::resample::Resampler;
use crate::capture::{AUDIO_RATE_HZ, AudioBlock};

/// Turns PCM into blocks of mono at [`AUDIO_RATE_HZ`], whose times follow the capture times that the source observes.
pub struct LiveAudio {
    mixer: MonoMixer,
    offset: OffsetRemover,
    resampler: Resampler,
    clock: SampleClock,
    drift: DriftCompensator,
    /// Frames added since the start.
    frames: u64,
    /// Samples at [`AUDIO_RATE_HZ`] that these frames became.
    samples: u64,
    mono: Vec<f32>,
    epoch: Instant,
    /// Time of the previous block.
    last: Duration,
}

impl LiveAudio {
    /// Block times count from `epoch`.
    pub fn new(mixer: MonoMixer, epoch: Instant) -> LiveAudio {
        let layout = mixer.layout();
        LiveAudio {
            offset: OffsetRemover::new(layout.rate_hz()),
            resampler: Resampler::new(layout.rate_hz()),
            clock: SampleClock::new(layout.rate_hz()),
            drift: DriftCompensator::default(),
            mixer,
            frames: 0,
            samples: 0,
            mono: Vec::new(),
            epoch,
            last: Duration::ZERO,
        }
    }

    pub fn layout(&self) -> &PcmLayout {
        self.mixer.layout()
    }

    /// Starts again after samples were lost. Times go on.
    pub fn restart(&mut self) {
        self.resampler = Resampler::new(self.layout().rate_hz());
        self.clock = SampleClock::new(self.layout().rate_hz());
        (self.frames, self.samples) = (0, 0);
    }

    /// The frame that will be added after `ahead` others was captured at `at`.
    pub fn captured(&mut self, ahead: usize, at: Instant) {
        let at = at.saturating_duration_since(self.epoch);
        self.clock.observe(self.frames + ahead as u64, at);
    }

    /// The frame that will be added after `ahead` others was captured at `at` or before.
    pub fn captured_by(&mut self, ahead: usize, at: Instant) {
        let latest = at.saturating_duration_since(self.epoch);
        if self
            .clock
            .at(self.frames + ahead as u64)
            .is_some_and(|expected| expected > latest)
        {
            self.captured(ahead, at);
        }
    }

    /// Adds whole frames. `None` if there are none, if they do not fill a sample, or if no capture time is known yet.
    pub fn add(&mut self, bytes: &[u8]) -> Option<AudioBlock> {
        self.mono.clear();
        self.mixer.push(bytes, &mut self.mono);
        self.offset.remove(&mut self.mono);
        self.frames += self.mono.len() as u64;
        let mut samples = Vec::with_capacity(self.mono.len());
        self.resampler.push(&self.mono, &mut samples);
        if samples.is_empty() {
            return None;
        }
        let first = self.samples * u64::from(self.layout().rate_hz()) / u64::from(AUDIO_RATE_HZ);
        self.samples += samples.len() as u64;
        let at = self.clock.at(first)?;
        let at = self.drift.compensate(at, &mut samples, AUDIO_RATE_HZ).max(self.last);
        self.last = at;
        let mut block = AudioBlock {
            at,
            captured: self.epoch,
            samples,
        };
        block.captured += block.end();
        Some(block)
    }
}
