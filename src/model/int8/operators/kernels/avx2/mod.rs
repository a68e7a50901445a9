//! x86-64 with AVX2: Haswell, Zen and later.
//!
//! Rows of any s8 values are widened to s16 and multiplied by VPMADDWD: two exact products per 32-bit lane, 32 products per
//! cycle on two multipliers. Rows of 0..=127, as a ReLU leaves them, have faster kernels: see [`gemm_u8s8`].

mod add_s8;
mod depthwise_s8;
mod gemm_s16s8;
mod gemm_u8s8;
mod requantize_s32;

use super::super::layout::{DepthwiseRow, OutputTile, PairwiseOperands, Requantization, Workspace};
use super::{Microkernels, PlainLoop};
use requantize_s32::check_output;

pub use gemm_u8s8::Avx2NonNegative;
pub(super) use requantize_s32::store;

/// The kernels for rows of any s8 values.
pub struct Avx2;

pub(super) const MR: usize = 6;
pub(super) const NR: usize = 16;
const KR: usize = 2;

impl Microkernels for Avx2 {
    type Lane = i16;
    type NonNegative = Avx2NonNegative;
    const MR: usize = MR;
    const NR: usize = NR;
    const KR: usize = KR;

    fn accumulate_tile(depth: usize, columns: usize, rows: &[i16], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(KR));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR && acc.len() >= MR * NR);
        let (rows, panel, acc) = (rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr());
        // SAFETY: `Isa` detected AVX2; the slices are as long as asserted.
        unsafe {
            match columns <= NR / 2 {
                true => gemm_s16s8::accumulate_tile::<1>(depth, rows, panel, acc),
                false => gemm_s16s8::accumulate_tile::<2>(depth, rows, panel, acc),
            }
        }
    }

    fn quantized_tile(
        depth: usize,
        rows: &[i16],
        panel: &[i8],
        _acc: &mut [i32],
        tile: OutputTile,
        params: &Requantization,
        out: &mut [i8],
    ) {
        assert!(depth.is_multiple_of(KR));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR);
        check_output(tile, params, out);
        let (rows, panel, out) = (rows.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
        // SAFETY: `Isa` detected AVX2; the slices are as long as asserted.
        unsafe {
            match tile.columns <= NR / 2 {
                true => gemm_s16s8::quantized_tile::<1>(depth, rows, panel, tile, params, out),
                false => gemm_s16s8::quantized_tile::<2>(depth, rows, panel, tile, params, out),
            }
        }
    }

    fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
        requantize_s32::requantize_tile(acc, tile, params, out);
    }

    fn packed_rows(workspace: &mut Workspace) -> &mut Vec<i16> {
        &mut workspace.s16_rows
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        depthwise_s8::pack(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise_s8::row(row, out, depthwise_s8::any);
    }

    fn pairwise(operands: PairwiseOperands) {
        add_s8::pairwise(operands);
    }

    fn vectorized<L: PlainLoop>(plain: L) {
        #[target_feature(enable = "avx2")]
        fn call<L: PlainLoop>(plain: L) {
            plain.run();
        }
        // SAFETY: `Isa` detected AVX2.
        unsafe { call(plain) }
    }
}
