//! AVX-VNNI, in 256 bits: Alder Lake, Sierra Forest, Zen 5 and later. Everything but the products is as with AVX2.

use std::arch::x86_64::*;

use super::super::super::arithmetic::Bounds;
use super::super::super::gemm::{Scratch, Scratches};
use super::super::super::pointwise::Pairs;
use super::super::avx2::{Avx2, Avx2NonNegative, MR, NR, store};
use super::super::{DepthwiseRow, Family, Wanted, Work};
use super::{KU, Raised};

/// Products are the same for all rows; depthwise convolutions gain by knowing that nothing is negative.
pub struct AvxVnni<const NON_NEGATIVE: bool>;

impl<const NON_NEGATIVE: bool> Family for AvxVnni<NON_NEGATIVE> {
    type Lane = Raised;
    type NonNegative = AvxVnni<true>;
    const MR: usize = MR;
    const NR: usize = NR;
    const KU: usize = KU;

    fn notes(_depth: usize) -> usize {
        super::notes(NR)
    }

    fn note(depth: usize, panel: &mut [i8]) {
        super::note(depth, NR, panel);
    }

    fn tile(depth: usize, columns: usize, rows: &[Raised], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(KU));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR + super::notes(NR) && acc.len() >= MR * NR);
        // SAFETY: AVX-VNNI was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match columns <= NR / 2 {
                true => tile::<1>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
                false => tile::<2>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
            }
        }
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        Avx2::requantize_tile(acc, wanted, bias, factor, bounds, out);
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<Raised> {
        &mut scratches.raised
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        Avx2::pack_depthwise(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        match NON_NEGATIVE {
            true => Avx2NonNegative::depthwise(row, out),
            false => Avx2::depthwise(row, out),
        }
    }

    fn pairwise(pairs: Pairs) {
        Avx2::pairwise(pairs);
    }

    fn compiled<W: Work>(work: W) {
        Avx2::compiled(work);
    }
}

/// # Safety
/// AVX-VNNI; `rows` points to MR × depth values, `panel` to depth × NR weights and NR starts, `acc` to MR × NR; `depth` is a
/// multiple of KU.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn tile<const HALVES: usize>(depth: usize, rows: *const Raised, panel: *const i8, acc: *mut i32) {
    // SAFETY: k + 3 < depth, so all reads stay within what the caller promised.
    unsafe {
        let load = |at: usize, half: usize| _mm256_loadu_si256(panel.add(at * NR).cast::<__m256i>().add(half));
        let starts: [__m256i; HALVES] = std::array::from_fn(|half| load(depth, half));
        let mut sums = [starts; MR];
        let mut k = 0;
        while k < depth {
            let weights: [__m256i; HALVES] = std::array::from_fn(|half| load(k, half));
            // Two pointers and one stride reach six rows without an addition for each.
            let halves = [rows.add(k), rows.add(3 * depth + k)];
            for (r, sums) in sums.iter_mut().enumerate() {
                let four = halves[r / 3].add(r % 3 * depth).cast::<i32>().read_unaligned();
                let four = _mm256_set1_epi32(four);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, four, weights);
                }
            }
            k += KU;
        }
        store(&sums, acc);
    }
}
