//! ARMv8.6 with matrix products of bytes (i8mm): Cortex-A710, X2 and later, Neoverse V1 and N2.
//!
//! SMMLA multiplies eight depths of two rows by eight depths of two columns and adds the products to four 32-bit sums, exactly: twice
//! as many as SDOT. Only the matrix products differ from [`neon`](super::neon).

use super::super::layout::{DepthwiseRow, OutputTile, Requantization, Workspace};
use super::depthwise_s8::neon::{depthwise, pack_depthwise};
use super::gemm_s8::neon_i8mm_8x8::{self as gemm_s8, KR, MR};
use super::look_up_s8::neon::look_up;
use super::requantize_s32::neon::{NR, check_output, requantize_tile};
use super::{Microkernels, PlainLoop};

pub struct NeonI8mm;

impl Microkernels for NeonI8mm {
    type Lane = i8;
    type NonNegative = NeonI8mm;
    const MR: usize = MR;
    const NR: usize = NR;
    const KR: usize = KR;

    fn accumulate_tile(depth: usize, _columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(KR) && rows.len() >= MR * depth);
        assert!(panel.len() >= depth * NR && acc.len() >= MR * NR);
        // SAFETY: `Isa` detected 8-bit matrix products; the slices are as long as asserted.
        unsafe { gemm_s8::accumulate_tile(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()) }
    }

    fn quantized_panel(
        depth: usize,
        rows: &[i8],
        panel: &[i8],
        _acc: &mut [i32],
        tile: OutputTile,
        params: &Requantization,
        out: &mut [i8],
    ) {
        assert!(depth.is_multiple_of(KR) && rows.len() >= tile.rows * depth && panel.len() >= depth * NR);
        check_output(tile, params, out);
        // SAFETY: `Isa` detected 8-bit matrix products; the slices are as long as asserted.
        unsafe { gemm_s8::quantized_panel(depth, rows.as_ptr(), panel.as_ptr(), tile, params, out.as_mut_ptr()) }
    }

    fn rows_read(rows: usize) -> usize {
        rows
    }

    fn as_packed(rows: &[i8]) -> Option<&[i8]> {
        Some(rows)
    }

    fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
        requantize_tile(acc, tile, params, out);
    }

    fn packed_rows(workspace: &mut Workspace) -> &mut Vec<i8> {
        &mut workspace.s8_rows
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        pack_depthwise::<false>(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise(row, out);
    }

    fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
        look_up(table, values, out);
    }

    fn vectorized<L: PlainLoop>(plain: L) {
        #[target_feature(enable = "i8mm")]
        fn call<L: PlainLoop>(plain: L) {
            plain.run();
        }
        // SAFETY: `Isa` detected 8-bit matrix products.
        unsafe { call(plain) }
    }
}
