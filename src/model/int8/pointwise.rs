//! What is done to every value on its own, and to values in pairs.

use super::arithmetic::{Bounds, Quantization};
use super::kernels::{Family, Work};

/// A function of one s8 value, as a table.
#[derive(Clone, PartialEq)]
pub struct Table([i8; 256]);

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

impl Table {
    /// `function` of real numbers between two quantizations.
    pub fn of(input: Quantization, output: Quantization, function: impl Fn(f32) -> f32) -> Table {
        Table(std::array::from_fn(|i| {
            output.quantize(function(input.real(i as u8 as i8)))
        }))
    }

    /// Whether it changes nothing.
    pub fn is_identity(&self) -> bool {
        (0..=255u8).all(|i| self.0[i as usize] == i as i8)
    }

    #[inline(always)]
    pub fn at(&self, value: i8) -> i8 {
        self.0[value as u8 as usize]
    }

    pub fn run<F: Family>(&self, input: &[i8], out: &mut [i8]) {
        F::look_up(&self.0, input, out);
    }
}

/// A sum or product of two tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pairwise {
    pub operation: Operation,
    pub zero_points: [i32; 2],
    pub bounds: Bounds,
}

/// Factors bring both operands (or the product) to the output's scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    Add { factors: [f32; 2] },
    Multiply { factor: f32 },
}

impl Pairwise {
    /// Tensors of one shape; or `right` is one value for each channel, or one for all, and is repeated.
    pub fn run<F: Family>(&self, left: &[i8], right: &[i8], out: &mut [i8]) {
        let chunk = right.len();
        for (out, left) in out.chunks_mut(chunk).zip(left.chunks(chunk)) {
            F::pairwise(Pairs {
                pairwise: *self,
                left,
                right,
                out,
            });
        }
    }
}

/// An operation on as many values as there are of each.
pub struct Pairs<'a> {
    pub pairwise: Pairwise,
    pub left: &'a [i8],
    pub right: &'a [i8],
    pub out: &'a mut [i8],
}

impl Work for Pairs<'_> {
    #[inline(always)]
    fn run(self) {
        let Pairwise {
            operation,
            zero_points: [left_zero, right_zero],
            bounds,
        } = self.pairwise;
        // In 16 bits, twice as many at once.
        let centred = |q: i8, zero: i32| f32::from(i16::from(q) - zero as i16);
        match operation {
            Operation::Add { factors: [a, b] } => {
                for ((out, l), r) in self.out.iter_mut().zip(self.left).zip(self.right) {
                    let (l, r) = (centred(*l, left_zero), centred(*r, right_zero));
                    *out = bounds.round(l * a + r * b);
                }
            }
            Operation::Multiply { factor } => {
                for ((out, l), r) in self.out.iter_mut().zip(self.left).zip(self.right) {
                    let (l, r) = (centred(*l, left_zero), centred(*r, right_zero));
                    *out = bounds.round(l * r * factor);
                }
            }
        }
    }
}

/// f32 with channels first → s8 with channels last.
pub fn quantize<F: Family>(input: &[f32], channels: usize, to: Quantization, out: &mut [i8]) {
    F::compiled(Quantize {
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

impl Work for Quantize<'_> {
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
            // A division, as ONNX defines it: multiplying by the inverse may round otherwise.
            out.iter_mut()
                .zip(input)
                .for_each(|(out, x)| *out = bounds.round(x / to.scale));
            return;
        }
        let plane = input.len() / channels;
        // Rounded side by side first: spread out, values would be rounded one by one.
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

/// A function of one s8 value whose results are real numbers.
#[derive(Clone, PartialEq)]
pub struct RealTable([f32; 256]);

impl std::fmt::Debug for RealTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RealTable")
    }
}

impl RealTable {
    pub fn of(input: Quantization, function: impl Fn(f32) -> f32) -> RealTable {
        RealTable(std::array::from_fn(|i| function(input.real(i as u8 as i8))))
    }

    /// s8 with channels last → f32 with channels first.
    pub fn run(&self, input: &[i8], channels: usize, out: &mut [f32]) {
        let plane = out.len() / channels;
        for (c, out) in out.chunks_exact_mut(plane).enumerate() {
            for (out, q) in out.iter_mut().zip(input.iter().skip(c).step_by(channels)) {
                *out = self.0[usize::from(*q as u8)];
            }
        }
    }
}

/// s8 with channels last → f32 with channels first.
pub fn dequantize(input: &[i8], channels: usize, from: Quantization, out: &mut [f32]) {
    let plane = out.len() / channels;
    for (c, out) in out.chunks_exact_mut(plane).enumerate() {
        for (out, q) in out.iter_mut().zip(input.iter().skip(c).step_by(channels)) {
            *out = from.real(*q);
        }
    }
}
