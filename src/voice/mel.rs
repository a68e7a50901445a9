//! The log-mel spectrogram: the input of the voice encoder.
//!
//! In: samples in −1..1 at 16 kHz. Out: windows of [`BANDS`] × [`FRAMES`] values in −1..1. The mel scale is HTK's,
//! 2595 log10(1 + f / 700).
//!
//! `models/training/preprocessing/log_mel.py` computes the same in Python. A test compares the two on the same samples.

use std::collections::VecDeque;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use serde::Deserialize;

use crate::capture::AUDIO_RATE_HZ;

/// Mel bands, low to high.
pub const BANDS: usize = 64;
/// Frames in one window of the encoder.
pub const FRAMES: usize = 96;
/// Samples from one frame to the next, 10 ms.
pub const HOP: usize = 160;
/// Samples in one frame, 25 ms.
const WINDOW: usize = 400;
const FFT: usize = 512;
/// Samples under one window, 0.975 s.
pub const SPAN: u64 = ((FRAMES - 1) * HOP + WINDOW) as u64;

const F_MIN_HZ: f64 = 60.0;
const F_MAX_HZ: f64 = 7600.0;
const LOG_FLOOR: f32 = 1e-9;
/// The mean of this many loudest frames is the level of a window.
const LOUDEST: usize = FRAMES / 2;
/// Log powers relative to the level are clamped to ± this, and then scaled to −1..1.
const CLAMP: f32 = 8.0;
/// Frames kept: more than one window, because a tick may be earlier than the newest samples.
const FRAMES_KEPT: usize = 2 * FRAMES;

/// The spectrogram that a voice encoder was trained on, from the manifest. This module computes only one kind.
#[derive(Debug, Deserialize)]
pub struct Spec {
    rate_hz: u32,
    hop: usize,
    window: usize,
    fft: usize,
    bands: usize,
    f_min: f64,
    f_max: f64,
    log_floor: f64,
    frames: usize,
    loudest: usize,
    clamp: f32,
}

impl Spec {
    /// Whether this module computes what the encoder was trained on.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the constant is compared at its own precision"
    )]
    pub fn is_supported(&self) -> bool {
        self.rate_hz == AUDIO_RATE_HZ
            && (self.hop, self.window, self.fft) == (HOP, WINDOW, FFT)
            && (self.bands, self.frames, self.loudest) == (BANDS, FRAMES, LOUDEST)
            && (self.f_min, self.f_max) == (F_MIN_HZ, F_MAX_HZ)
            && self.log_floor as f32 == LOG_FLOOR
            && self.clamp == CLAMP
    }
}

/// A running log-mel spectrogram. Frame f covers samples 160 f to 160 f + 400, counted from zero.
pub struct LogMel {
    transform: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    filters: Vec<Filter>,
    /// Samples of the next frame.
    pending: Vec<f32>,
    /// The newest frames, oldest first.
    frames: VecDeque<[f32; BANDS]>,
    count: u64,
    input: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    /// The power of each bin of the spectrum.
    powers: Vec<f32>,
}

/// One triangular band: weights of consecutive FFT bins.
struct Filter {
    first_bin: usize,
    weights: Vec<f32>,
}

impl Default for LogMel {
    fn default() -> Self {
        let transform = RealFftPlanner::new().plan_fft_forward(FFT);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the window is computed in f64 and stored as f32"
        )]
        let hann = (0..WINDOW)
            .map(|n| {
                let phase = std::f64::consts::TAU * n as f64 / WINDOW as f64;
                (0.5 - 0.5 * phase.cos()) as f32
            })
            .collect();
        LogMel {
            hann,
            filters: filters(),
            pending: Vec::with_capacity(WINDOW),
            frames: VecDeque::with_capacity(FRAMES_KEPT),
            count: 0,
            input: transform.make_input_vec(),
            spectrum: transform.make_output_vec(),
            scratch: transform.make_scratch_vec(),
            powers: vec![0.0; FFT / 2 + 1],
            transform,
        }
    }
}

impl LogMel {
    /// Adds samples in −1..1 at 16 kHz.
    pub fn push(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(WINDOW - self.pending.len()));
            self.pending.extend_from_slice(now);
            samples = later;
            if self.pending.len() == WINDOW {
                let frame = self.frame();
                if self.frames.len() == FRAMES_KEPT {
                    self.frames.pop_front();
                }
                self.frames.push_back(frame);
                self.count += 1;
                self.pending.drain(..HOP);
            }
        }
    }

    /// Natural logarithms of the band powers under the Hann window, relative to a full-scale constant.
    fn frame(&mut self) -> [f32; BANDS] {
        self.input.fill(0.0);
        for ((x, sample), w) in self.input.iter_mut().zip(&self.pending).zip(&self.hann) {
            *x = sample * w;
        }
        self.transform
            .process_with_scratch(&mut self.input, &mut self.spectrum, &mut self.scratch)
            .expect("the transform made these buffers");
        let gain: f32 = self.hann.iter().sum();
        let scale = 1.0 / (gain * gain);
        for (power, bin) in self.powers.iter_mut().zip(&self.spectrum) {
            *power = bin.norm_sqr();
        }
        std::array::from_fn(|band| {
            let filter = &self.filters[band];
            let powers = &self.powers[filter.first_bin..];
            let power: f32 = powers.iter().zip(&filter.weights).map(|(p, w)| p * w).sum();
            (power * scale + LOG_FLOOR).ln()
        })
    }

    /// The encoder's input for the newest frames that end at or before sample `end`: [`BANDS`] rows of [`FRAMES`] values in
    /// −1..1. Frames before the start count as silence.
    pub fn window(&self, end: u64) -> Vec<f32> {
        let last = match end.checked_sub(WINDOW as u64) {
            Some(start) => (start / HOP as u64 + 1).min(self.count),
            None => 0,
        };
        let oldest = self.count - self.frames.len() as u64;
        let silent = [LOG_FLOOR.ln(); BANDS];
        let frame = |column: usize| {
            (last + column as u64)
                .checked_sub(FRAMES as u64)
                .and_then(|f| f.checked_sub(oldest))
                .and_then(|f| self.frames.get(usize::try_from(f).ok()?))
                .unwrap_or(&silent)
        };
        let columns: Vec<&[f32; BANDS]> = (0..FRAMES).map(frame).collect();
        let level = loudest_half(&columns);
        let mut window = vec![0.0; BANDS * FRAMES];
        for (x, frame) in columns.iter().enumerate() {
            for (y, value) in frame.iter().enumerate() {
                window[y * FRAMES + x] = (value - level).clamp(-CLAMP, CLAMP) / CLAMP;
            }
        }
        window
    }
}

/// The mean level of the loudest half of the frames. Subtracting it removes the microphone's gain from a window.
fn loudest_half(columns: &[&[f32; BANDS]]) -> f32 {
    let mut levels: Vec<f32> = columns
        .iter()
        .map(|frame| frame.iter().sum::<f32>() / BANDS as f32)
        .collect();
    levels.sort_by(|a, b| b.total_cmp(a));
    levels[..LOUDEST].iter().sum::<f32>() / LOUDEST as f32
}

/// Triangles of height one, equally spaced on the HTK mel scale, evaluated at the FFT's bins.
fn filters() -> Vec<Filter> {
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let hz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
    let (low, high) = (mel(F_MIN_HZ), mel(F_MAX_HZ));
    let corner = |i: usize| hz(low + (high - low) * i as f64 / (BANDS + 1) as f64);
    (0..BANDS)
        .map(|band| {
            let (left, peak, right) = (corner(band), corner(band + 1), corner(band + 2));
            #[expect(
                clippy::cast_possible_truncation,
                reason = "weights are computed in f64 and stored as f32"
            )]
            let weight = |bin: usize| {
                let f = bin as f64 * f64::from(AUDIO_RATE_HZ) / FFT as f64;
                ((f - left) / (peak - left)).min((right - f) / (right - peak)) as f32
            };
            let bins: Vec<usize> = (0..=FFT / 2).filter(|&bin| weight(bin) > 0.0).collect();
            Filter {
                first_bin: bins.first().copied().unwrap_or(0),
                weights: bins.iter().map(|&bin| weight(bin)).collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, amplitude: f32, samples: usize) -> Vec<f32> {
        (0..samples)
            .map(|n| amplitude * (std::f32::consts::TAU * hz * n as f32 / 16_000.0).sin())
            .collect()
    }

    #[test]
    fn a_tone_is_loudest_in_its_own_band() {
        let mut mel = LogMel::default();
        mel.push(&tone(1000.0, 0.5, 16_000));
        let frame = mel.frames.back().unwrap();
        let loudest = (0..BANDS).max_by(|a, b| frame[*a].total_cmp(&frame[*b])).unwrap();
        // 1000 Hz is 1000 mel; the bands' peaks are 41.4 mel apart, the first at 134.
        assert_eq!(loudest, 21);
    }

    #[test]
    fn a_window_does_not_depend_on_the_gain_of_the_microphone() {
        let (mut loud, mut soft) = (LogMel::default(), LogMel::default());
        // Noise, because bands near the floor of the logarithm do not follow the gain.
        let noise = |gain: f32| -> Vec<f32> {
            let mut state = 1u32;
            (0..16_000)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    gain * ((state >> 16) as f32 / 65_536.0 - 0.5)
                })
                .collect()
        };
        loud.push(&noise(1.0));
        soft.push(&noise(0.25));
        let worst = loud
            .window(16_000)
            .iter()
            .zip(soft.window(16_000))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 0.05, "differs by {worst}");
    }

    #[test]
    fn a_window_does_not_depend_on_later_samples() {
        let (mut all, mut part) = (LogMel::default(), LogMel::default());
        let samples = tone(440.0, 0.3, 32_000);
        all.push(&samples);
        part.push(&samples[..17_600]);
        assert_eq!(all.window(17_600), part.window(17_600));
    }

    #[test]
    fn frames_before_the_start_are_silence() {
        let mel = LogMel::default();
        assert!(mel.window(0).iter().all(|v| v.abs() < 1e-6));
        let mut mel = LogMel::default();
        mel.push(&tone(440.0, 0.3, 400));
        let window = mel.window(400);
        // The tone is in band 10, and in the last frame only.
        assert_eq!(window[10 * FRAMES + FRAMES - 1], 1.0);
        assert!(window[10 * FRAMES..][..FRAMES - 1].iter().all(|v| *v < 0.0));
        assert_eq!(mel.count, 1);
    }
}
