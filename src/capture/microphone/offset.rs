//! Removes a constant offset, which cheap sound cards add.
//!
//! It would count as sound: with an offset of 0.1, silence has a level of −20 dB.

/// Sound below this frequency is removed, too. It is far below any voice.
const CORNER_HZ: f32 = 10.0;

/// A high-pass filter of first order.
pub struct OffsetRemover {
    /// How much of the last output remains after one sample.
    decay: f32,
    /// The last sample before and after the filter; `None` before the first.
    last: Option<(f32, f32)>,
}

impl OffsetRemover {
    pub fn new(rate_hz: u32) -> OffsetRemover {
        OffsetRemover {
            decay: (-std::f32::consts::TAU * CORNER_HZ / rate_hz as f32).exp(),
            last: None,
        }
    }

    pub fn remove(&mut self, samples: &mut [f32]) {
        for sample in samples {
            // The first sample gives 0, so that a constant offset makes no click at the start.
            let (input, output) = self.last.unwrap_or((*sample, 0.0));
            let filtered = *sample - input + self.decay * output;
            self.last = Some((*sample, filtered));
            *sample = filtered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root mean square of the second second.
    fn level(rate_hz: u32, signal: impl Fn(f32) -> f32) -> f32 {
        let mut remover = OffsetRemover::new(rate_hz);
        let mut samples: Vec<f32> = (0..2 * rate_hz).map(|n| signal(n as f32 / rate_hz as f32)).collect();
        for block in samples.chunks_mut(320) {
            remover.remove(block);
        }
        let second = &samples[rate_hz as usize..];
        (second.iter().map(|v| v * v).sum::<f32>() / second.len() as f32).sqrt()
    }

    #[test]
    fn an_offset_is_removed_and_a_voice_is_not() {
        for rate_hz in [8000, 16_000, 48_000, 192_000] {
            assert!(level(rate_hz, |_| 0.1) < 1e-6);
            let tone = |t: f32| 0.5 * (std::f32::consts::TAU * 100.0 * t).sin();
            let expected = 0.5 / std::f32::consts::SQRT_2;
            assert!(
                (level(rate_hz, |t| 0.1 + tone(t)) / expected - 1.0).abs() < 0.01,
                "{rate_hz}"
            );
        }
    }

    #[test]
    fn the_first_samples_of_an_offset_are_no_step() {
        let mut samples = [0.25; 4];
        OffsetRemover::new(16_000).remove(&mut samples);
        assert_eq!(samples, [0.0; 4]);
    }
}
