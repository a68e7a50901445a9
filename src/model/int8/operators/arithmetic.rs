//! The numbers: what a quantized value means, and how sums become 8-bit results.
//!
//! An s8 value q stands for the real number scale × (q − zero point). Products are summed exactly in 32 bits. The sum is
//! converted to f32 once, multiplied by one factor, limited, rounded to the nearest integer (ties to even, as in ONNX) and
//! the zero point is added. Every kernel does exactly this, so all kernels give the same bits.
//!
//! Unsigned activations are stored as signed ones, 128 lower, and so is their zero point: the real numbers are the same.

/// How a tensor of activations is quantized: one scale and one zero point for the whole tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    pub scale: f32,
    /// −128..=127.
    pub zero_point: i32,
}

impl Quantization {
    /// The real number that `q` stands for.
    pub fn real(self, q: i8) -> f32 {
        (i32::from(q) - self.zero_point) as f32 * self.scale
    }

    /// As ONNX QuantizeLinear.
    pub fn quantize(self, x: f32) -> i8 {
        Bounds::of(self).round(x / self.scale)
    }
}

/// The range of the results: 8 bits, narrowed by a fused activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub zero_point: i32,
    /// Smallest and largest result, −128..=127.
    pub low: i32,
    pub high: i32,
}

impl Bounds {
    pub fn of(quantization: Quantization) -> Bounds {
        Bounds {
            zero_point: quantization.zero_point,
            low: -128,
            high: 127,
        }
    }

    /// Narrows the range to the real numbers `low`..=`high`: (0, ∞) for ReLU, (0, 6) for ReLU6.
    pub fn clip(self, quantization: Quantization, low: f32, high: f32) -> Bounds {
        let edge = |x: f32| i32::from(quantization.quantize(x));
        Bounds {
            low: self.low.max(edge(low)),
            high: self.high.min(edge(high)),
            ..self
        }
    }

    /// Rounds `x`, in units of the output's scale, to s8. NaN becomes the lower limit.
    ///
    /// Limiting comes before rounding. The limits are integers, so the order does not change the result.
    #[inline(always)]
    pub fn round(self, x: f32) -> i8 {
        let low = (self.low - self.zero_point) as f32;
        let high = (self.high - self.zero_point) as f32;
        let limited = x.max(low).min(high);
        // An f32 between 2²³ and 2²⁴ has no fraction bits. Both limits are within ±255, so this sum lies there: the addition
        // rounds to an integer, ties to even, and its lowest eight bits are the result.
        let rounded = (limited + 1.5 * 8_388_608.0).to_bits();
        (rounded as u8).wrapping_add(self.zero_point as u8) as i8
    }
}

/// Multiplies a 32-bit sum of products to give units of the output's scale. All arguments are scales.
pub fn requantization_factor(input: f32, weight: f32, output: f32) -> f32 {
    input * weight / output
}

/// What is known about the values of an input tensor when weights are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputRange {
    pub zero_point: i8,
    /// A lower bound of the values.
    pub minimum: i8,
}

impl InputRange {
    /// Whether all values, and the padding, are 0..=127.
    pub fn is_non_negative(self) -> bool {
        self.minimum >= 0 && self.zero_point >= 0
    }
}

/// Moves the input's zero point z into the bias: Σ w (x − z) + b = Σ w x + (b − z Σ w). `weights` has one row per output.
pub fn fold_zero_point(weights: &[i8], bias: &[i32], zero_point: i8) -> Vec<i32> {
    let per_output = weights.len() / bias.len().max(1);
    bias.iter()
        .zip(weights.chunks_exact(per_output.max(1)))
        .map(|(b, w)| {
            let sum: i32 = w.iter().map(|w| i32::from(*w)).sum();
            b.wrapping_sub(i32::from(zero_point).wrapping_mul(sum))
        })
        .collect()
}

/// An element-wise sum or product of two tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pairwise {
    pub operation: Operation,
    /// Of the left and the right operand.
    pub zero_points: [i32; 2],
    pub bounds: Bounds,
}

/// The factors convert both operands, or their product, to units of the output's scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    Add { factors: [f32; 2] },
    Multiply { factor: f32 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Bounds = Bounds {
        zero_point: 0,
        low: -128,
        high: 127,
    };

    #[test]
    fn ties_round_to_even_and_large_values_saturate() {
        let rounded: Vec<i8> = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 1e30, -1e30, f32::NAN]
            .map(|x| PLAIN.round(x))
            .to_vec();
        assert_eq!(rounded, [0, 2, 2, 0, -2, 126, 127, 127, -128, -128]);
    }

    #[test]
    fn relu6_limits_results_to_zero_and_six() {
        let q = Quantization {
            scale: 0.05,
            zero_point: -10,
        };
        let bounds = Bounds::of(q).clip(q, 0.0, 6.0);
        assert_eq!((bounds.low, bounds.high), (-10, 110));
    }

    proptest! {
        #[test]
        fn quantize_inverts_real(q in any::<i8>(), scale in 1e-4f32..10.0, zero_point in -128i32..=127) {
            let quantization = Quantization { scale, zero_point };
            prop_assert_eq!(quantization.quantize(quantization.real(q)), q);
        }
    }
}
