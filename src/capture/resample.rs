//! Converts any sample rate to [`AUDIO_RATE_HZ`] without a delay.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use super::AUDIO_RATE_HZ;

/// Resamples one mono stream. Sample 0 of the output has the time of sample 0 of the input, and the output lasts as long as
/// the input. A stream at [`AUDIO_RATE_HZ`] passes through unchanged.
pub struct Resampler {
    rate_hz: u32,
    /// `None` for a stream at [`AUDIO_RATE_HZ`].
    fft: Option<Box<Fft<f32>>>,
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Output samples still to be dropped, because of the filter's delay.
    skip: usize,
    input_samples: u64,
    output_samples: u64,
}

impl Resampler {
    /// For input at `rate_hz`, which must not be 0.
    pub fn new(rate_hz: u32) -> Resampler {
        let fft = (rate_hz != AUDIO_RATE_HZ).then(|| {
            // Blocks of about 20 ms allow a steep filter at a low delay. The number of samples must be even. Otherwise the
            // centre of the filter lies between two samples and shifts the output.
            let Ratio { from, to } = Ratio::of(rate_hz);
            let block = from * (rate_hz / 50).div_ceil(from).next_multiple_of(2);
            let fft = Fft::new(from as usize, to as usize, block as usize, 1, FixedSync::Both);
            Box::new(fft.expect("the rates are not zero"))
        });
        let mut resampler = Resampler {
            rate_hz,
            fft,
            pending: Vec::new(),
            block: Vec::new(),
            skip: 0,
            input_samples: 0,
            output_samples: 0,
        };
        resampler.reset();
        resampler
    }

    fn reset(&mut self) {
        self.pending.clear();
        (self.input_samples, self.output_samples) = (0, 0);
        if let Some(fft) = &mut self.fft {
            fft.reset();
            self.skip = fft.output_delay();
            self.block.resize(fft.output_frames_max(), 0.0);
        }
    }

    /// Adds `input`, and appends the output that is ready.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        self.input_samples += input.len() as u64;
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
            self.output_samples += (made - skip) as u64;
            // The filter overshoots full scale at steps.
            output.extend(self.block[skip..made].iter().map(|s| s.clamp(-1.0, 1.0)));
        }
        self.pending.drain(..whole);
    }

    /// Appends the remaining output, so that it lasts as long as the input, and resets the resampler.
    pub fn finish(&mut self, output: &mut Vec<f32>) {
        if let Some(size) = self.fft.as_ref().map(|fft| fft.input_frames_next()) {
            let length =
                |samples: u64, from: u32, to: u32| (samples * u64::from(to) + u64::from(from) / 2) / u64::from(from);
            let due = length(self.input_samples, self.rate_hz, AUDIO_RATE_HZ);
            while self.output_samples < due {
                self.push(&vec![0.0; size - self.pending.len()], output);
            }
            let surplus = usize::try_from(self.output_samples - due).expect("less than a block");
            output.truncate(output.len() - surplus);
        }
        self.reset();
    }
}

/// `from` samples of the input become `to` samples at [`AUDIO_RATE_HZ`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ratio {
    from: u32,
    to: u32,
}

impl Ratio {
    /// The ratio of a rate. Only damaged or hostile files have rates such as 191 999 Hz, whose exact ratio would need blocks of
    /// seconds. They get a near ratio with blocks of at most half a second, which is off by at most 63 parts per million, as sound cards are.
    fn of(rate_hz: u32) -> Ratio {
        let longest = rate_hz / 2;
        // The convergents of the continued fraction of the ratio. The last one is exact.
        let (mut before, mut ratio) = (Ratio { from: 0, to: 1 }, Ratio { from: 1, to: 0 });
        let (mut dividend, mut divisor) = (rate_hz, AUDIO_RATE_HZ);
        while divisor > 0 {
            let quotient = dividend / divisor;
            let next = Ratio {
                from: quotient * ratio.from + before.from,
                to: quotient * ratio.to + before.to,
            };
            if next.from > longest {
                break;
            }
            (before, ratio) = (ratio, next);
            (dividend, divisor) = (divisor, dividend % divisor);
        }
        ratio
    }
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
    fn sixteen_kilohertz_passes_unchanged() {
        let input = tone(16_000, 997.0, 0.3);
        assert_eq!(resample(16_000, &input, 100), input);
    }

    #[test]
    fn a_tone_keeps_its_phase_length_and_level_at_every_rate() {
        for rate_hz in [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000, 44_056] {
            let output = resample(rate_hz, &tone(rate_hz, 440.0, 1.0), 333);
            let expected = tone(16_000, 440.0, 1.0);
            assert_eq!(output.len(), expected.len(), "{rate_hz} Hz");
            // Skips the edges, where the start and the end of the tone ring.
            let worst = output
                .iter()
                .zip(&expected)
                .skip(800)
                .take(14_400)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 2e-3, "{rate_hz} Hz: off by {worst}");
        }
    }

    #[test]
    fn every_rate_has_short_blocks_and_a_ratio_that_is_exact_or_nearly_so() {
        let ratio = |rate_hz| {
            let Ratio { from, to } = Ratio::of(rate_hz);
            (from, to)
        };
        assert_eq!(ratio(48_000), (3, 1));
        assert_eq!(ratio(44_100), (441, 160));
        assert_eq!(ratio(191_999), (12, 1));
        for rate_hz in 8_000..=192_000 {
            let Ratio { from, to } = Ratio::of(rate_hz);
            assert!(from <= rate_hz / 2, "{rate_hz}");
            let exact = f64::from(rate_hz) / f64::from(AUDIO_RATE_HZ);
            let error = (f64::from(from) / f64::from(to) / exact - 1.0).abs();
            assert!(error < 63e-6, "{rate_hz}: {error}");
        }
    }

    #[test]
    fn frequencies_above_the_output_band_are_removed() {
        let output = resample(48_000, &tone(48_000, 11_000.0, 0.5), 480);
        let peak = output[800..7200].iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
        assert!(peak < 1e-3, "an 11 kHz tone remains with amplitude {peak}");
    }

    #[test]
    fn finish_loses_no_samples_and_resets_the_resampler() {
        let mut resampler = Resampler::new(48_000);
        for count in [1, 2, 3, 100, 959, 960, 961] {
            let mut output = Vec::new();
            resampler.push(&vec![0.25; count], &mut output);
            resampler.finish(&mut output);
            assert_eq!(output.len(), (count + 1) / 3, "{count} samples");
        }
    }
}
