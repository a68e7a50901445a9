//! x86-64 with AVX2: Haswell, Zen and later.
//!
//! Rows of any s8 values are widened to s16 and multiplied by VPMADDWD: two exact products per 32-bit lane, 32 products per
//! cycle on two multipliers. Rows of 0..=127, as a ReLU leaves them, have faster kernels: see [`gemm_u8s8`](super::gemm_u8s8).

use super::super::layout::{DepthwiseRow, OutputTile, PairwiseOperands, Requantization, Workspace};
use super::add_s8::avx2 as add_s8;
use super::depthwise_s8::avx2 as depthwise_s8;
use super::gemm_s16s8::avx2_6x16::{self as gemm_s16s8, MR};
use super::gemm_u8s8::avx2_4x16 as gemm_u8s8;
use super::plain_loop::avx2::vectorized;
use super::requantize_s32::avx2::{self as requantize_s32, NR, check_output};
use super::{Microkernels, PlainLoop};

/// The kernels for rows of any s8 values.
pub struct Avx2;

/// The kernels for rows of 0..=127.
pub struct Avx2NonNegative;

impl Microkernels for Avx2 {
    type Lane = i16;
    type NonNegative = Avx2NonNegative;
    const MR: usize = MR;
    const NR: usize = NR;
    const KR: usize = gemm_s16s8::KR;

    fn accumulate_tile(depth: usize, columns: usize, rows: &[i16], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(gemm_s16s8::KR));
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
        assert!(depth.is_multiple_of(gemm_s16s8::KR));
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
        vectorized(plain);
    }
}

impl Microkernels for Avx2NonNegative {
    type Lane = i8;
    type NonNegative = Avx2NonNegative;
    const MR: usize = gemm_u8s8::MR;
    const NR: usize = NR;
    const KR: usize = gemm_u8s8::KR;

    fn panel_metadata_bytes(depth: usize) -> usize {
        gemm_u8s8::metadata_bytes(depth)
    }

    fn write_panel_metadata(depth: usize, panel: &mut [i8]) {
        gemm_u8s8::write_metadata(depth, panel);
    }

    fn accumulate_tile(depth: usize, columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        gemm_u8s8::check_input(depth, rows, panel);
        assert!(acc.len() >= gemm_u8s8::MR * NR);
        let (rows, panel, acc) = (rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr());
        // SAFETY: `Isa` detected AVX2; the slices are as long as asserted.
        unsafe {
            match columns <= NR / 2 {
                true => gemm_u8s8::accumulate_tile::<1>(depth, rows, panel, acc),
                false => gemm_u8s8::accumulate_tile::<2>(depth, rows, panel, acc),
            }
        }
    }

    fn quantized_tile(
        depth: usize,
        rows: &[i8],
        panel: &[i8],
        _acc: &mut [i32],
        tile: OutputTile,
        params: &Requantization,
        out: &mut [i8],
    ) {
        gemm_u8s8::check_input(depth, rows, panel);
        check_output(tile, params, out);
        let (rows, panel, out) = (rows.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
        // SAFETY: `Isa` detected AVX2; the slices are as long as asserted.
        unsafe {
            match tile.columns <= NR / 2 {
                true => gemm_u8s8::quantized_tile::<1>(depth, rows, panel, tile, params, out),
                false => gemm_u8s8::quantized_tile::<2>(depth, rows, panel, tile, params, out),
            }
        }
    }

    fn as_packed(rows: &[i8]) -> Option<&[i8]> {
        Some(rows)
    }

    fn packed_rows(workspace: &mut Workspace) -> &mut Vec<i8> {
        &mut workspace.s8_rows
    }

    fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
        Avx2::requantize_tile(acc, tile, params, out);
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        Avx2::pack_depthwise(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise_s8::row(row, out, depthwise_s8::non_negative);
    }

    fn pairwise(operands: PairwiseOperands) {
        Avx2::pairwise(operands);
    }

    fn vectorized<L: PlainLoop>(plain: L) {
        vectorized(plain);
    }
}
