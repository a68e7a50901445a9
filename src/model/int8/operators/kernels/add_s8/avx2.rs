//! Element-wise sums, sixteen values at a time. Products are left to the compiler.

use std::arch::x86_64::*;

use super::super::super::arithmetic::{Operation, Pairwise};
use super::super::super::layout::PairwiseOperands;
use super::super::plain_loop::avx2::vectorized;
use super::super::requantize_s32::avx2::Limits;

/// Values of one step.
const STEP: usize = 16;

/// [`Microkernels::pairwise`](super::super::Microkernels::pairwise).
pub fn pairwise(operands: PairwiseOperands) {
    let Operation::Add { factors } = operands.operation.operation else {
        return vectorized(operands);
    };
    let PairwiseOperands {
        operation,
        left,
        right,
        out,
    } = operands;
    let whole = out.len().min(left.len()).min(right.len()) / STEP * STEP;
    let (from, to) = ((left.as_ptr(), right.as_ptr()), out.as_mut_ptr());
    // SAFETY: `Isa` detected AVX2; all three slices hold at least `whole` values.
    unsafe { add(&operation, factors, whole, from, to) }
    vectorized(PairwiseOperands {
        operation,
        left: &left[whole..],
        right: &right[whole..],
        out: &mut out[whole..],
    });
}

/// # Safety
/// The processor has AVX2; `left`, `right` and `out` point to `count` values, a multiple of [`STEP`].
#[target_feature(enable = "avx2")]
unsafe fn add(
    pairwise: &Pairwise,
    factors: [f32; 2],
    count: usize,
    (left, right): (*const i8, *const i8),
    out: *mut i8,
) {
    let limits = Limits::of(pairwise.bounds);
    let zero_points = pairwise.zero_points.map(|zero_point| _mm256_set1_epi32(zero_point));
    let factors = factors.map(|factor| _mm256_set1_ps(factor));
    for first in (0..count).step_by(STEP) {
        // SAFETY: first + STEP ≤ count, so all reads and writes lie within what the caller promised.
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
