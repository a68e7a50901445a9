//! Any sample rate to [`AUDIO_RATE_HZ`], without moving anything in time.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use super::AUDIO_RATE_HZ;

/// Resamples one mono stream. Sample 0 of the output is the same moment as sample 0 of the input, and the output is as
/// long as the input. A stream at [`AUDIO_RATE_HZ`] passes through bit by bit.
pub struct Resampler {
    rate_hz: u32,
    /// `None` where nothing is to be done.
    fft: Option<Box<Fft<f32>>>,
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Output still to be thrown away: the filter's delay.
    skip: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// For input at `rate_hz`, which must not be 0.
    pub fn new(rate_hz: u32) -> Resampler {
        let fft = (rate_hz != AUDIO_RATE_HZ).then(|| {
            // About 20 ms a block: long enough for a steep filter, short enough to wait for. An even number of
            // samples, or the filter's middle falls between two of them and shifts the sound.
            let unit = rate_hz / gcd(rate_hz, AUDIO_RATE_HZ);
            let block = unit * (rate_hz / 50).div_ceil(unit).next_multiple_of(2);
            let (from, to) = (rate_hz as usize, AUDIO_RATE_HZ as usize);
            let fft = Fft::new(from, to, block as usize, 1, FixedSync::Both);
            Box::new(fft.expect("the rates are not zero"))
        });
        let mut resampler = Resampler {
            rate_hz,
            fft,
            pending: Vec::new(),
            block: Vec::new(),
            skip: 0,
            taken: 0,
            given: 0,
        };
        resampler.restart();
        resampler
    }

    fn restart(&mut self) {
        self.pending.clear();
        (self.taken, self.given) = (0, 0);
        if let Some(fft) = &mut self.fft {
            fft.reset();
            self.skip = fft.output_delay();
            self.block.resize(fft.output_frames_max(), 0.0);
        }
    }

    /// Takes `input` and appends what is ready.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        self.taken += input.len() as u64;
        let Some(fft) = &mut self.fft else {
            output.extend_from_slice(input);
            return;
        };
        self.pending.extend_from_slice(input);
        let size = fft.input_frames_next();
        let whole = self.pending.len() / size * size;
        for frames in self.pending[..whole].chunks_exact(size) {
            let made = self.block.len();
            let source = InterleavedSlice::new(frames, 1, size).expect("one channel");
            let mut target = InterleavedSlice::new_mut(&mut self.block[..], 1, made).expect("one channel");
            let (_, made) = fft
                .process_into_buffer(&source, &mut target, None)
                .expect("buffers fit");
            let skip = self.skip.min(made);
            self.skip -= skip;
            self.given += (made - skip) as u64;
            // The filter rings above full scale at hard edges.
            output.extend(self.block[skip..made].iter().map(|s| s.clamp(-1.0, 1.0)));
        }
        self.pending.drain(..whole);
    }

    /// Appends the rest, so that the output is as long as the input, and starts afresh.
    pub fn finish(&mut self, output: &mut Vec<f32>) {
        if let Some(size) = self.fft.as_ref().map(|fft| fft.input_frames_next()) {
            let length =
                |samples: u64, from: u32, to: u32| (samples * u64::from(to) + u64::from(from) / 2) / u64::from(from);
            let due = length(self.taken, self.rate_hz, AUDIO_RATE_HZ);
            while self.given < due {
                self.push(&vec![0.0; size - self.pending.len()], output);
            }
            output.truncate(output.len() - (self.given - due) as usize);
        }
        self.restart();
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resample(rate_hz: u32, input: &[f32], step: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate_hz);
        let mut output = Vec::new();
        for part in input.chunks(step) {
            resampler.push(part, &mut output);
        }
        resampler.finish(&mut output);
        output
    }

    fn tone(rate_hz: u32, hz: f32, seconds: f32) -> Vec<f32> {
        let count = (rate_hz as f32 * seconds) as usize;
        (0..count)
            .map(|i| 0.5 * (std::f32::consts::TAU * hz * i as f32 / rate_hz as f32).sin())
            .collect()
    }

    #[test]
    fn sixteen_kilohertz_passes_untouched() {
        let input = tone(16_000, 997.0, 0.3);
        assert_eq!(resample(16_000, &input, 100), input);
    }

    #[test]
    fn a_tone_keeps_its_phase_length_and_level_at_every_rate() {
        for rate_hz in [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000, 44_056] {
            let output = resample(rate_hz, &tone(rate_hz, 440.0, 1.0), 333);
            let wanted = tone(16_000, 440.0, 1.0);
            assert_eq!(output.len(), wanted.len(), "{rate_hz} Hz");
            // The edges ring, since the tone starts and stops there.
            let worst = output
                .iter()
                .zip(&wanted)
                .skip(800)
                .take(14_400)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 2e-3, "{rate_hz} Hz: off by {worst}");
        }
    }

    #[test]
    fn what_sixteen_kilohertz_cannot_hold_is_removed() {
        let output = resample(48_000, &tone(48_000, 11_000.0, 0.5), 480);
        let peak = output[800..7200].iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
        assert!(peak < 1e-3, "an 11 kHz tone came through as {peak}");
    }

    #[test]
    fn short_runs_lose_nothing_and_a_resampler_starts_afresh_after_each() {
        let mut resampler = Resampler::new(48_000);
        for count in [1, 2, 3, 100, 959, 960, 961] {
            let mut output = Vec::new();
            resampler.push(&vec![0.25; count], &mut output);
            resampler.finish(&mut output);
            assert_eq!(output.len(), (count + 1) / 3, "{count} samples");
        }
    }
}
