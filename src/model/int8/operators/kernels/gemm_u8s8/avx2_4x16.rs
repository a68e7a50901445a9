//! Matrix products of rows of 0..=127 with s8 weights, by VPMADDUBSW, which multiplies twice as many bytes at once as VPMADDWD.
//!
//! VPMADDUBSW multiplies u8 by s8 and adds two products in 16 bits, saturating. With rows of at most 127 the sum of two
//! products is at most 2 × 127 × 128 = 32512 and never saturates. A second multiplication, by one, widens the sums to 32 bits:
//! 32 products per cycle in all. But most trained weights are small. Where they are, two or four such sums are added before
//! they are widened: 43 or 51 products per cycle at best. Packing computes for every group of depths how many sums may be
//! added, and stores the number in the panel's metadata.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::super::layout::{OutputTile, Requantization};
use super::super::requantize_s32::avx2::{NR, bias, store, write_rows};

pub const KR: usize = 4;
/// Depths that share a byte of metadata.
const GROUP: usize = 4 * KR;
/// Eight registers hold sums; the weights of four steps and the products take the others.
pub const MR: usize = 4;

/// One byte per group of depths: how many steps of [`KR`] depths have sums that fit 16 bits together.
pub fn metadata_bytes(depth: usize) -> usize {
    depth.div_ceil(GROUP)
}

/// Writes the metadata behind a panel's weights.
pub fn write_metadata(depth: usize, panel: &mut [i8]) {
    let (weights, metadata) = panel.split_at_mut(depth * NR);
    for (group, steps) in weights.chunks(GROUP * NR).zip(metadata) {
        *steps = if sums_fit_i16(group, 4) {
            4
        } else if sums_fit_i16(group, 2) {
            2
        } else {
            1
        };
    }
}

/// Panics unless `rows` and `panel` are long enough for a tile.
pub fn check_input(depth: usize, rows: &[i8], panel: &[i8]) {
    assert!(depth.is_multiple_of(KR));
    assert!(rows.len() >= MR * depth && panel.len() >= depth * NR + metadata_bytes(depth));
}

/// Whether 16 bits hold the products of a pair of depths with values of 0..=127, added over every `steps` steps of a group.
fn sums_fit_i16(group: &[i8], steps: usize) -> bool {
    const STEP: usize = KR * NR;
    // A shorter last group is treated as if fewer fitted.
    group.len() >= steps * STEP
        && group.chunks(steps * STEP).all(|group| {
            (0..STEP).step_by(2).all(|lane| {
                let weights = || {
                    group
                        .chunks(STEP)
                        .flat_map(|step| &step[lane..lane + 2])
                        .map(|w| i32::from(*w))
                };
                let positive: i32 = weights().filter(|w| *w > 0).sum();
                let negative: i32 = weights().filter(|w| *w < 0).sum();
                127 * positive <= i32::from(i16::MAX) && 127 * negative >= i32::from(i16::MIN)
            })
        })
}

/// Loads the weights of eight columns for one step, `$half` (0 or 32) bytes into the step.
macro_rules! load_weights {
    ($register:literal, $step:literal, $half:literal) => {
        concat!(
            "vmovdqu ",
            $register,
            ", ymmword ptr [{weights} + 64 * ",
            $step,
            " + ",
            $half,
            "]\n"
        )
    };
}

/// Multiplies one row's depths of a step by the weights in `$register` and adds pairs of products in 16 bits.
macro_rules! pairwise_multiply_add {
    ($into:literal, $row:literal, $step:literal, $register:literal) => {
        concat!(
            "vpbroadcastd ",
            $into,
            ", dword ptr [",
            $row,
            " + 4 * ",
            $step,
            "]\n",
            "vpmaddubsw ",
            $into,
            ", ",
            $into,
            ", ",
            $register,
            "\n",
        )
    };
}

/// The same for another step, added to the 16-bit sums of the steps before it.
macro_rules! add_another_step {
    ($row:literal, $step:literal, $register:literal) => {
        concat!(
            pairwise_multiply_add!("ymm10", $row, $step, $register),
            "vpaddw ymm9, ymm9, ymm10\n"
        )
    };
}

/// Adds one row's products of all `$steps` to its eight sums.
macro_rules! row {
    (1, $row:literal, $sum:literal) => {
        concat!(pairwise_multiply_add!("ymm9", $row, "0", "ymm11"), row!($sum))
    };
    (2, $row:literal, $sum:literal) => {
        concat!(
            pairwise_multiply_add!("ymm9", $row, "0", "ymm11"),
            add_another_step!($row, "1", "ymm12"),
            row!($sum)
        )
    };
    (4, $row:literal, $sum:literal) => {
        concat!(
            pairwise_multiply_add!("ymm9", $row, "0", "ymm11"),
            add_another_step!($row, "1", "ymm12"),
            add_another_step!($row, "2", "ymm13"),
            add_another_step!($row, "3", "ymm14"),
            row!($sum),
        )
    };
    ($sum:literal) => {
        concat!(
            "vpmaddwd ymm9, ymm9, {ones}\n",
            "vpaddd {",
            $sum,
            "}, {",
            $sum,
            "}, ymm9\n"
        )
    };
}

/// Eight columns of all rows, for `$steps` steps.
macro_rules! rows {
    ($steps:tt, $sum0:literal, $sum1:literal, $sum2:literal, $sum3:literal) => {
        concat!(
            row!($steps, "{row}", $sum0),
            row!($steps, "{row} + {depth}", $sum1),
            row!($steps, "{row} + 2 * {depth}", $sum2),
            row!($steps, "{row3}", $sum3),
        )
    };
}

/// Loads the weights of eight columns and multiplies all rows by them.
macro_rules! half {
    (1, $half:literal, $($sum:literal),*) => {
        concat!(load_weights!("ymm11", "0", $half), rows!(1, $($sum),*))
    };
    (2, $half:literal, $($sum:literal),*) => {
        concat!(load_weights!("ymm11", "0", $half), load_weights!("ymm12", "1", $half), rows!(2, $($sum),*))
    };
    (4, $half:literal, $($sum:literal),*) => {
        concat!(
            load_weights!("ymm11", "0", $half),
            load_weights!("ymm12", "1", $half),
            load_weights!("ymm13", "2", $half),
            load_weights!("ymm14", "3", $half),
            rows!(4, $($sum),*),
        )
    };
}

/// Adds the products of `$steps` steps from depth `$k` on to `$sums`. Their sums must fit 16 bits together.
///
/// Assembly fixes the order: each value is used right after it is computed. Compilers put all loads first, which was 25 %
/// slower on Zen 3.
macro_rules! add_steps {
    ($steps:tt, $sums:ident, $k:expr, $rows:ident, $depth:ident, $panel:ident, $ones:ident) => {
        match HALVES {
            1 => asm!(
                half!($steps, "0", "s0", "s1", "s2", "s3"),
                row = in(reg) $rows.add($k),
                row3 = in(reg) $rows.add(3 * $depth + $k),
                depth = in(reg) $depth,
                weights = in(reg) $panel.add($k * NR),
                s0 = inout(ymm_reg) $sums[0][0],
                s1 = inout(ymm_reg) $sums[1][0],
                s2 = inout(ymm_reg) $sums[2][0],
                s3 = inout(ymm_reg) $sums[3][0],
                ones = in(ymm_reg) $ones,
                out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
                options(pure, readonly, nostack, preserves_flags),
            ),
            _ => asm!(
                half!($steps, "0", "s0", "s1", "s2", "s3"),
                half!($steps, "32", "t0", "t1", "t2", "t3"),
                row = in(reg) $rows.add($k),
                row3 = in(reg) $rows.add(3 * $depth + $k),
                depth = in(reg) $depth,
                weights = in(reg) $panel.add($k * NR),
                s0 = inout(ymm_reg) $sums[0][0],
                s1 = inout(ymm_reg) $sums[1][0],
                s2 = inout(ymm_reg) $sums[2][0],
                s3 = inout(ymm_reg) $sums[3][0],
                t0 = inout(ymm_reg) $sums[0][1],
                t1 = inout(ymm_reg) $sums[1][1],
                t2 = inout(ymm_reg) $sums[2][1],
                t3 = inout(ymm_reg) $sums[3][1],
                ones = in(ymm_reg) $ones,
                out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
                options(pure, readonly, nostack, preserves_flags),
            ),
        }
    };
}

/// The sums of a tile; each column starts from `start`.
///
/// # Safety
/// The processor has AVX2; `rows` points to MR × depth values of 0..=127, `panel` to depth × NR weights and their metadata;
/// `depth` is a multiple of KR.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sums<const HALVES: usize>(
    depth: usize,
    rows: *const i8,
    panel: *const i8,
    start: [__m256i; HALVES],
) -> [[__m256i; HALVES]; MR] {
    let mut sums = [start; MR];
    let ones = _mm256_set1_epi16(1);
    // SAFETY: every step ends at or before `depth`: the metadata allows four steps only in a group of four, and two steps are
    // taken only where k + 2 × KR ≤ end. So all reads lie within the rows and the panel that the caller promised.
    unsafe {
        let mut metadata = panel.add(depth * NR);
        let mut k = 0;
        while k < depth {
            let end = depth.min(k + GROUP);
            let steps = *metadata;
            metadata = metadata.add(1);
            if steps == 4 {
                add_steps!(4, sums, k, rows, depth, panel, ones);
                k = end;
                continue;
            }
            while steps == 2 && k + 2 * KR <= end {
                add_steps!(2, sums, k, rows, depth, panel, ones);
                k += 2 * KR;
            }
            while k < end {
                add_steps!(1, sums, k, rows, depth, panel, ones);
                k += KR;
            }
        }
    }
    sums
}

/// The sums of a single row: the last pixel of an odd number, and linear layers.
///
/// # Safety
/// As for [`sums`], with one row.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn sums_of_row<const HALVES: usize>(
    depth: usize,
    row: *const i8,
    panel: *const i8,
    start: [__m256i; HALVES],
) -> [[__m256i; HALVES]; 1] {
    let mut sums = start;
    let ones = _mm256_set1_epi16(1);
    let mut k = 0;
    while k < depth {
        // SAFETY: k + 3 < depth, so all reads lie within the row and the panel that the caller promised.
        unsafe {
            let weights = panel.add(k * NR).cast::<__m256i>();
            let four = _mm256_set1_epi32(row.add(k).cast::<i32>().read_unaligned());
            for (half, sum) in sums.iter_mut().enumerate() {
                let pairs = _mm256_maddubs_epi16(four, _mm256_loadu_si256(weights.add(half)));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        k += KR;
    }
    [sums]
}

/// # Safety
/// As for [`sums`]; `acc` points to MR × NR values.
#[target_feature(enable = "avx2")]
pub unsafe fn accumulate_tile<const HALVES: usize>(depth: usize, rows: *const i8, panel: *const i8, acc: *mut i32) {
    // SAFETY: the caller promises what `sums` needs, and room for MR × NR sums.
    unsafe { store(&sums(depth, rows, panel, [_mm256_setzero_si256(); HALVES]), acc) }
}

/// # Safety
/// As for [`sums`]; bias and factor hold NR values; `out` has room for `tile`.
#[target_feature(enable = "avx2")]
pub unsafe fn quantized_tile<const HALVES: usize>(
    depth: usize,
    rows: *const i8,
    panel: *const i8,
    tile: OutputTile,
    params: &Requantization,
    out: *mut i8,
) {
    // SAFETY: the caller promises what `sums`, `bias` and `write_rows` need.
    unsafe {
        match tile.rows {
            1 => {
                let sums = sums_of_row::<HALVES>(depth, rows, panel, bias(params));
                write_rows(&sums, tile, params, out);
            }
            _ => write_rows(&sums::<HALVES>(depth, rows, panel, bias(params)), tile, params, out),
        }
    }
}
