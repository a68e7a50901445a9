//! Element-wise operators: functions of one value as tables, sums and products of two tensors, quantization and dequantization.

use super::arithmetic::{Bounds, Pairwise, Quantization};
use super::kernels::{Microkernels, PlainLoop};
use super::layout::PairwiseOperands;

/// A function of one s8 value, as a table of all its results.
#[derive(Clone, PartialEq)]
pub struct Table([i8; 256]);

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

impl Table {
    /// Applies `function` to the real numbers and quantizes its results with `output`.
    pub fn of(input: Quantization, output: Quantization, function: impl Fn(f32) -> f32) -> Table {
        Table(std::array::from_fn(|i| {
            output.quantize(function(input.real(i as u8 as i8)))
        }))
    }

    /// Quantizes the results of a function for all 256 values, in the order of the values as u8, after `clip`.
    pub fn of_results(results: &[f32; 256], output: Quantization, clip: impl Fn(f32) -> f32) -> Table {
        Table(results.map(|x| output.quantize(clip(x))))
    }

    /// Whether every result equals its argument.
    pub fn is_identity(&self) -> bool {
        (0..=255u8).all(|i| self.0[i as usize] == i as i8)
    }

    #[inline(always)]
    pub fn at(&self, value: i8) -> i8 {
        self.0[value as u8 as usize]
    }

    pub fn run<M: Microkernels>(&self, input: &[i8], out: &mut [i8]) {
        M::look_up(&self.0, input, out);
    }
}

impl Pairwise {
    /// Both tensors have the same shape. Or `right` is shorter, one value per channel or a single value, and is repeated.
    pub fn run<M: Microkernels>(&self, left: &[i8], right: &[i8], out: &mut [i8]) {
        let run = right.len();
        for (out, left) in out.chunks_mut(run).zip(left.chunks(run)) {
            M::pairwise(PairwiseOperands {
                operation: *self,
                left,
                right,
                out,
            });
        }
    }

    /// Replaces the left tensor by the results.
    pub fn run_in_place<M: Microkernels>(&self, left: &mut [i8], right: &[i8]) {
        const PART: usize = 1024;
        let mut copy = [0; PART];
        for run in left.chunks_mut(right.len()) {
            for (out, right) in run.chunks_mut(PART).zip(right.chunks(PART)) {
                let left = &mut copy[..out.len()];
                left.copy_from_slice(out);
                M::pairwise(PairwiseOperands {
                    operation: *self,
                    left,
                    right: &right[..out.len()],
                    out,
                });
            }
        }
    }
}

/// QuantizeLinear: from f32 with channels first to s8 with channels last.
pub fn quantize<M: Microkernels>(input: &[f32], channels: usize, to: Quantization, out: &mut [i8]) {
    M::vectorized(Quantize {
        input,
        channels,
        to,
        out,
    });
}

struct Quantize<'a> {
    input: &'a [f32],
    channels: usize,
    to: Quantization,
    out: &'a mut [i8],
}

impl PlainLoop for Quantize<'_> {
    #[inline(always)]
    fn run(self) {
        let Quantize {
            input,
            channels,
            to,
            out,
        } = self;
        let bounds = Bounds::of(to);
        if channels == 1 {
            // ONNX defines a division. Multiplying by the inverse may round differently.
            out.iter_mut()
                .zip(input)
                .for_each(|(out, x)| *out = bounds.round(x / to.scale));
            return;
        }
        let plane = input.len() / channels;
        // Runs are rounded into a buffer first, because a loop with strided stores would not be vectorized.
        const RUN: usize = 64;
        for (c, input) in input.chunks_exact(plane).enumerate() {
            for (input, out) in input.chunks(RUN).zip(out.chunks_mut(RUN * channels)) {
                let mut rounded = [0; RUN];
                let places = out.iter_mut().skip(c).step_by(channels);
                rounded
                    .iter_mut()
                    .zip(input)
                    .for_each(|(q, x)| *q = bounds.round(x / to.scale));
                places.zip(&rounded).for_each(|(out, q)| *out = *q);
            }
        }
    }
}

/// A function of one s8 value with real numbers as results, in the order of the values as u8.
#[derive(Clone, PartialEq)]
pub struct RealTable(pub [f32; 256]);

impl std::fmt::Debug for RealTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RealTable")
    }
}

impl RealTable {
    /// From s8 with channels last to f32 with channels first.
    pub fn run(&self, input: &[i8], channels: usize, out: &mut [f32]) {
        let plane = out.len() / channels;
        for (c, out) in out.chunks_exact_mut(plane).enumerate() {
            for (out, q) in out.iter_mut().zip(input.iter().skip(c).step_by(channels)) {
                *out = self.0[usize::from(*q as u8)];
            }
        }
    }
}

/// DequantizeLinear: from s8 with channels last to f32 with channels first.
pub fn dequantize(input: &[i8], channels: usize, from: Quantization, out: &mut [f32]) {
    let plane = out.len() / channels;
    for (c, out) in out.chunks_exact_mut(plane).enumerate() {
        for (out, q) in out.iter_mut().zip(input.iter().skip(c).step_by(channels)) {
            *out = from.real(*q);
        }
    }
}
