//! AVX-512 with VNNI, in 512 bits: Cascade Lake, Ice Lake, Zen 4 and later.

use std::arch::x86_64::*;

use super::super::super::arithmetic::Bounds;
use super::super::super::convolution::MAX_TAPS;
use super::super::super::gemm::{Scratch, Scratches};
use super::super::super::pointwise::Pairs;
use super::super::avx2::Avx2;
use super::super::{DepthwiseRow, Family, Requantization, Wanted, Work};
use super::{KU, Raised};

pub struct Avx512Vnni;

/// Twenty-four of the thirty-two registers hold sums.
const MR: usize = 12;
const NR: usize = 32;
/// Columns a register holds.
const WIDTH: usize = 16;

impl Family for Avx512Vnni {
    type Lane = Raised;
    type NonNegative = Avx512Vnni;
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
        check(depth, MR, rows, panel);
        assert!(acc.len() >= MR * NR);
        // SAFETY: AVX-512 VNNI was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match columns <= WIDTH {
                true => tile::<1>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
                false => tile::<2>(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()),
            }
        }
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        let to = Requantization { bias, factor, bounds };
        check_results(wanted, &to, out);
        assert!(acc.len() >= wanted.rows * NR);
        // SAFETY: AVX-512 was detected before this family could be chosen; the slices are as long as asserted.
        unsafe { requantize_rows(acc.as_ptr(), wanted, &to, out.as_mut_ptr()) }
    }

    fn quantized_tile(
        depth: usize,
        rows: &[Raised],
        panel: &[i8],
        _acc: &mut [i32],
        wanted: Wanted,
        to: &Requantization,
        out: &mut [i8],
    ) {
        let computed = wanted.rows.next_multiple_of(4);
        check(depth, computed, rows, panel);
        check_results(wanted, to, out);
        let (rows, panel, out) = (rows.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
        // SAFETY: AVX-512 VNNI was detected before this family could be chosen; the slices are as long as asserted.
        unsafe {
            match (computed, wanted.columns <= WIDTH) {
                (4, true) => quantized_tile::<4, 1>(depth, rows, panel, wanted, to, out),
                (4, false) => quantized_tile::<4, 2>(depth, rows, panel, wanted, to, out),
                (8, true) => quantized_tile::<8, 1>(depth, rows, panel, wanted, to, out),
                (8, false) => quantized_tile::<8, 2>(depth, rows, panel, wanted, to, out),
                (MR, true) => quantized_tile::<MR, 1>(depth, rows, panel, wanted, to, out),
                (MR, false) => quantized_tile::<MR, 2>(depth, rows, panel, wanted, to, out),
                _ => unreachable!("a tile has {MR} rows"),
            }
        }
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<Raised> {
        &mut scratches.raised
    }

    /// `[block of channels][four taps][channel in the order of SPREAD][tap of the four]`, and after each block where its sums
    /// begin, in the same order.
    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        let taps = weights.len() / channels.max(1);
        let weight = |tap: usize, c: usize| {
            if tap < taps && c < channels {
                weights[tap * channels + c]
            } else {
                0
            }
        };
        let mut packed = Vec::new();
        for first in (0..channels).step_by(BLOCK) {
            for four in (0..taps).step_by(KU) {
                packed.extend((0..KU * BLOCK).map(|i| weight(four + i % KU, first + spread(i / KU))));
            }
            for i in 0..BLOCK {
                let start = super::start((0..taps).map(|tap| weight(tap, first + spread(i))));
                packed.extend(start.to_ne_bytes().map(|byte| byte as i8));
            }
        }
        packed
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        row.check(out);
        let taps = row.taps.len();
        assert!(taps <= MAX_TAPS);
        assert!(row.weights.len() >= row.channels.div_ceil(BLOCK) * block_bytes(taps));
        // Taps that are lacking for the last four take the first one: their weights are zero.
        let mut fours = [[row.taps[0].as_ptr(); KU]; MAX_TAPS.div_ceil(KU)];
        for (pointer, tap) in fours.as_flattened_mut().iter_mut().zip(row.taps) {
            *pointer = tap.as_ptr();
        }
        let fours = &fours[..taps.div_ceil(KU)];
        for first in (0..row.channels).step_by(BLOCK) {
            // SAFETY: AVX-512 VNNI was detected before this family could be chosen; the checks above make all channels lie
            // within every tap of every pixel, bias, factor and out, and a block of weights within `weights`.
            unsafe { depthwise(row, fours, first, out) }
        }
    }

    fn pairwise(pairs: Pairs) {
        Avx2::pairwise(pairs);
    }

    fn compiled<W: Work>(work: W) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn call<W: Work>(work: W) {
            work.run();
        }
        // SAFETY: AVX-512 was detected before this family could be chosen.
        unsafe { call(work) }
    }
}

fn check(depth: usize, computed: usize, rows: &[Raised], panel: &[i8]) {
    assert!(depth.is_multiple_of(KU));
    assert!(rows.len() >= computed * depth && panel.len() >= depth * NR + super::notes(NR));
}

fn check_results(wanted: Wanted, to: &Requantization, out: &[i8]) {
    let Wanted { rows, columns, stride } = wanted;
    assert!(to.bias.len() >= NR && to.factor.len() >= NR);
    assert!(rows > 0 && columns <= NR && out.len() >= (rows - 1) * stride + columns);
}

/// # Safety
/// AVX-512 VNNI; `rows` points to ROWS × depth values, `panel` to depth × NR weights and NR starts; `depth` is a multiple of KU.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn sums<const ROWS: usize, const HALVES: usize>(
    depth: usize,
    rows: *const Raised,
    panel: *const i8,
) -> [[__m512i; HALVES]; ROWS] {
    // SAFETY: k + 3 < depth, so all reads stay within what the caller promised.
    unsafe {
        let load = |at: usize, half: usize| _mm512_loadu_si512(panel.add(at * NR).cast::<__m512i>().add(half));
        let starts: [__m512i; HALVES] = std::array::from_fn(|half| load(depth, half));
        let mut sums = [starts; ROWS];
        let mut k = 0;
        while k < depth {
            let weights: [__m512i; HALVES] = std::array::from_fn(|half| load(k, half));
            // One stride reaches three rows from a pointer without an addition for each.
            for (thirds, sums) in sums.chunks_mut(3).enumerate() {
                let first = rows.add(3 * thirds * depth + k);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let four = _mm512_set1_epi32(first.add(r * depth).cast::<i32>().read_unaligned());
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, four, weights);
                    }
                }
            }
            k += KU;
        }
        sums
    }
}

/// # Safety
/// As for [`sums`] of MR rows, and `acc` points to MR × NR values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const HALVES: usize>(depth: usize, rows: *const Raised, panel: *const i8, acc: *mut i32) {
    // SAFETY: as the caller promised.
    unsafe {
        for (r, sums) in sums::<MR, HALVES>(depth, rows, panel).iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                _mm512_storeu_si512(acc.add(r * NR + half * WIDTH).cast(), *sum);
            }
        }
    }
}

/// # Safety
/// As for [`sums`]; bias and factor hold NR values; `wanted.rows` of at most ROWS rows go to `out`, for which there is room.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn quantized_tile<const ROWS: usize, const HALVES: usize>(
    depth: usize,
    rows: *const Raised,
    panel: *const i8,
    wanted: Wanted,
    to: &Requantization,
    out: *mut i8,
) {
    // SAFETY: as the caller promised.
    unsafe {
        let sums = sums::<ROWS, HALVES>(depth, rows, panel);
        let rounds: [Round; HALVES] = std::array::from_fn(|half| Round::of(to, half, wanted.columns));
        for (r, sums) in sums.iter().enumerate() {
            if r < wanted.rows {
                for (half, (sum, round)) in sums.iter().zip(&rounds).enumerate() {
                    round.put(*sum, out.add(r * wanted.stride + half * WIDTH));
                }
            }
        }
    }
}

/// # Safety
/// AVX-512; `acc` points to `wanted.rows` rows of NR, bias and factor hold NR values, and there is room at `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn requantize_rows(acc: *const i32, wanted: Wanted, to: &Requantization, out: *mut i8) {
    for half in 0..wanted.columns.div_ceil(WIDTH) {
        // SAFETY: as the caller promised.
        unsafe {
            let round = Round::of(to, half, wanted.columns);
            for r in 0..wanted.rows {
                let sum = _mm512_loadu_si512(acc.add(r * NR + half * WIDTH).cast());
                round.put(sum, out.add(r * wanted.stride + half * WIDTH));
            }
        }
    }
}

/// The three numbers of [`Bounds`], in every lane.
#[derive(Clone, Copy)]
struct Limits {
    low: __m512,
    high: __m512,
    zero_point: __m512i,
}

impl Limits {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    fn of(bounds: Bounds) -> Limits {
        Limits {
            low: _mm512_set1_ps((bounds.low - bounds.zero_point) as f32),
            high: _mm512_set1_ps((bounds.high - bounds.zero_point) as f32),
            zero_point: _mm512_set1_epi32(bounds.zero_point),
        }
    }

    /// Sixteen sums, bias included → results, still in 32 bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    fn round(&self, sum: __m512i, factor: __m512) -> __m512i {
        let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
        // The operand order makes not-a-number the lower limit, as the reference does.
        let limited = _mm512_min_ps(_mm512_max_ps(scaled, self.low), self.high);
        _mm512_add_epi32(_mm512_cvtps_epi32(limited), self.zero_point)
    }
}

/// What brings one register of a tile's sums back to eight bits.
#[derive(Clone, Copy)]
struct Round {
    bias: __m512i,
    factor: __m512,
    limits: Limits,
    /// The columns that are wanted.
    mask: __mmask16,
}

impl Round {
    /// # Safety
    /// AVX-512; bias and factor hold NR values.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn of(to: &Requantization, half: usize, columns: usize) -> Round {
        // SAFETY: the half lies within NR.
        unsafe {
            Round {
                bias: _mm512_loadu_si512(to.bias.as_ptr().add(half * WIDTH).cast()),
                factor: _mm512_loadu_ps(to.factor.as_ptr().add(half * WIDTH)),
                limits: Limits::of(to.bounds),
                mask: first_of(columns - half * WIDTH) as __mmask16,
            }
        }
    }

    /// # Safety
    /// AVX-512; room at `out` for the columns wanted.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn put(&self, sum: __m512i, out: *mut i8) {
        let results = self.limits.round(_mm512_add_epi32(sum, self.bias), self.factor);
        // SAFETY: nothing but the columns wanted is written.
        unsafe { _mm_mask_storeu_epi8(out, self.mask, _mm512_cvtepi32_epi8(results)) }
    }
}

/// A mask of the first `count` lanes, of 64 at most.
fn first_of(count: usize) -> u64 {
    u64::MAX >> (64 - count.min(64))
}

/// Channels a depthwise block holds.
const BLOCK: usize = 64;

/// Interleaving bytes and then words of four registers, within quarters of 128 bits, leaves four registers of four channels
/// from each quarter: this is the channel that lies at place `i` of the four.
fn spread(i: usize) -> usize {
    i / 16 * 4 + i / 4 % 4 * 16 + i % 4
}

fn block_bytes(taps: usize) -> usize {
    taps.div_ceil(KU) * KU * BLOCK + super::notes(BLOCK)
}

/// Sixty-four channels, or those there are, from `first` on, of all pixels.
///
/// # Safety
/// AVX-512 VNNI; all channels of every pixel lie within every tap and `out`, bias and factor hold all channels, weights all
/// blocks; `first` is the first channel of a block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn depthwise(row: &DepthwiseRow, fours: &[[*const i8; KU]], first: usize, out: &mut [i8]) {
    let count = BLOCK.min(row.channels - first);
    let mask = first_of(count);
    let limits = Limits::of(row.bounds);
    let raise = _mm512_set1_epi8(-128);
    // SAFETY: as the caller promised; what the masks leave out is not read or written.
    unsafe {
        let weights = row.weights.as_ptr().add(first / BLOCK * block_bytes(fours.len() * KU));
        let load = |at: usize| _mm512_loadu_si512(weights.add(at * BLOCK).cast());
        let quarter = |i: usize| {
            (
                first_of(count.saturating_sub(16 * i).max(1)) as __mmask16,
                first + 16 * i,
            )
        };
        let bias = transposed(std::array::from_fn(|i| match quarter(i) {
            (mask, at) if at < row.channels => _mm512_maskz_loadu_epi32(mask, row.bias.as_ptr().add(at)),
            _ => _mm512_setzero_si512(),
        }));
        let factor = transposed(std::array::from_fn(|i| match quarter(i) {
            (mask, at) if at < row.channels => {
                _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, row.factor.as_ptr().add(at)))
            }
            _ => _mm512_setzero_si512(),
        }));
        let starts: [__m512i; 4] = std::array::from_fn(|i| _mm512_add_epi32(load(fours.len() * KU + i), bias[i]));
        for pixel in 0..out.len() / row.channels {
            let at = pixel * row.step + first;
            let mut sums = starts;
            for (four, taps) in fours.iter().enumerate() {
                let [a, b, c, d] = taps.map(|tap| _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, tap.add(at)), raise));
                let pairs = [
                    [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)],
                    [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)],
                ];
                for (i, [ab, cd]) in pairs.into_iter().enumerate() {
                    let (low, high) = (_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd));
                    sums[2 * i] = _mm512_dpbusd_epi32(sums[2 * i], low, load(KU * four + 2 * i));
                    sums[2 * i + 1] = _mm512_dpbusd_epi32(sums[2 * i + 1], high, load(KU * four + 2 * i + 1));
                }
            }
            let [a, b, c, d]: [__m512i; 4] =
                std::array::from_fn(|i| limits.round(sums[i], _mm512_castsi512_ps(factor[i])));
            // Packing works within the same quarters and undoes the interleaving.
            let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            _mm512_mask_storeu_epi8(out.as_mut_ptr().add(pixel * row.channels + first), mask, bytes);
        }
    }
}

/// The quarters of four registers, exchanged as rows and columns of a matrix: from the order of channels to that of [`spread`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn transposed([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    const LOW: i32 = 0b01_00_01_00;
    const HIGH: i32 = 0b11_10_11_10;
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let (ab_low, ab_high) = (_mm512_shuffle_i32x4::<LOW>(a, b), _mm512_shuffle_i32x4::<HIGH>(a, b));
    let (cd_low, cd_high) = (_mm512_shuffle_i32x4::<LOW>(c, d), _mm512_shuffle_i32x4::<HIGH>(c, d));
    [
        _mm512_shuffle_i32x4::<EVEN>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<ODD>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<EVEN>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<ODD>(ab_high, cd_high),
    ]
}
