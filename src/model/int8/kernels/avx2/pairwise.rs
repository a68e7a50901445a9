//! Sums of two tensors, sixteen values at a time.

use std::arch::x86_64::*;

use super::super::super::pointwise::{Operation, Pairs, Pairwise};
use super::super::Family;
use super::requantize::Limits;
use super::{Avx2, NR};

pub fn run(pairs: Pairs) {
    let Pairs {
        pairwise,
        left,
        right,
        out,
    } = pairs;
    let Operation::Add { factors } = pairwise.operation else {
        return Avx2::compiled(Pairs {
            pairwise,
            left,
            right,
            out,
        });
    };
    let whole = out.len().min(left.len()).min(right.len()) / NR * NR;
    // SAFETY: AVX2 was detected before this family could be chosen; there are `whole` values of each.
    unsafe {
        add(
            &pairwise,
            factors,
            whole,
            left.as_ptr(),
            right.as_ptr(),
            out.as_mut_ptr(),
        )
    }
    Avx2::compiled(Pairs {
        pairwise,
        left: &left[whole..],
        right: &right[whole..],
        out: &mut out[whole..],
    });
}

/// # Safety
/// AVX2; `left`, `right` and `out` point to `count` values, a multiple of sixteen.
#[target_feature(enable = "avx2")]
unsafe fn add(pairwise: &Pairwise, factors: [f32; 2], count: usize, left: *const i8, right: *const i8, out: *mut i8) {
    let limits = Limits::of(pairwise.bounds);
    let zero_points = pairwise.zero_points.map(|zero_point| _mm256_set1_epi32(zero_point));
    let factors = factors.map(|factor| _mm256_set1_ps(factor));
    for first in (0..count).step_by(NR) {
        // SAFETY: sixteen of `count` values.
        unsafe {
            let scaled = |side: usize, values: *const i8| {
                let values = _mm256_cvtepi8_epi32(_mm_loadl_epi64(values.cast()));
                let centred = _mm256_sub_epi32(values, zero_points[side]);
                _mm256_mul_ps(_mm256_cvtepi32_ps(centred), factors[side])
            };
            let eight = |at: usize| limits.integers(_mm256_add_ps(scaled(0, left.add(at)), scaled(1, right.add(at))));
            let bytes = limits.bytes(eight(first), eight(first + 8));
            _mm_storeu_si128(out.add(first).cast(), bytes);
        }
    }
}
