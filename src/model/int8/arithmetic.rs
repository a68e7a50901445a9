//! The numbers: what a quantized value stands for and how results are brought back to eight bits.
//!
//! An s8 value q stands for the real number scale × (q − zero point). Products are summed exactly in 32 bits; the sum is
//! turned into f32 once, multiplied by one factor, rounded to the nearest integer, ties to even as ONNX says, and
//! saturated. Every kernel does just this, so all give the same bits.
//!
//! Unsigned activations are kept as signed ones, 128 lower, zero point included: the real numbers are the same.

/// How a tensor of activations is quantized; one scale and zero point for the whole of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    pub scale: f32,
    /// −128..=127.
    pub zero_point: i32,
}

impl Quantization {
    pub fn real(self, q: i8) -> f32 {
        (i32::from(q) - self.zero_point) as f32 * self.scale
    }

    /// ONNX QuantizeLinear.
    pub fn quantize(self, x: f32) -> i8 {
        Bounds::of(self).round(x / self.scale)
    }
}

/// Where results may lie: eight bits, and what a fused activation leaves of them.
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

    /// Narrowed to the real numbers `low`..=`high`, as ReLU (0, ∞) and ReLU6 (0, 6) do.
    pub fn clip(self, quantization: Quantization, low: f32, high: f32) -> Bounds {
        let edge = |x: f32| i32::from(quantization.quantize(x));
        Bounds {
            low: self.low.max(edge(low)),
            high: self.high.min(edge(high)),
            ..self
        }
    }

    /// `x` in units of the output's scale → s8. The limits come before the rounding: they are integers, so the result is
    /// the same. Not a number becomes the lower limit.
    #[inline(always)]
    pub fn round(self, x: f32) -> i8 {
        let low = (self.low - self.zero_point) as f32;
        let high = (self.high - self.zero_point) as f32;
        let limited = x.max(low).min(high);
        // From 2²³ to 2²⁴ an f32 has no bits for fractions. The sum lies there, both limits being within ±255; it is
        // rounded as every sum is, ties to even, and its lowest eight bits are those of the rounded integer.
        let rounded = (limited + 1.5 * 8_388_608.0).to_bits();
        (rounded as u8).wrapping_add(self.zero_point as u8) as i8
    }
}

/// What an accumulator is multiplied by to come out in units of the output's scale.
pub fn factor(input: f32, weight: f32, output: f32) -> f32 {
    input * weight / output
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
    fn ties_go_to_even_and_what_is_too_large_saturates() {
        let rounded: Vec<i8> = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 1e30, -1e30, f32::NAN]
            .map(|x| PLAIN.round(x))
            .to_vec();
        assert_eq!(rounded, [0, 2, 2, 0, -2, 126, 127, 127, -128, -128]);
    }

    #[test]
    fn relu6_bounds_are_zero_and_six() {
        let q = Quantization {
            scale: 0.05,
            zero_point: -10,
        };
        let bounds = Bounds::of(q).clip(q, 0.0, 6.0);
        assert_eq!((bounds.low, bounds.high), (-10, 110));
    }

    proptest! {
        #[test]
        fn quantizing_a_real_value_gives_it_back(q in any::<i8>(), scale in 1e-4f32..10.0, zero_point in -128i32..=127) {
            let quantization = Quantization { scale, zero_point };
            prop_assert_eq!(quantization.quantize(quantization.real(q)), q);
        }
    }
}
