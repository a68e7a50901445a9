//! ARMv8.0 with NEON, which every 64-bit board has: Cortex-A53, A57, A72.
//!
//! There is no dot product yet. SMULL multiplies eight pairs of bytes to 16 bits, SMLAL adds eight more products to them, and
//! SADALP adds neighbours to 32-bit sums. The more products are added in 16 bits, the fewer SADALP are needed. How many fit
//! depends on the weights. An activation is at most 128 in magnitude, so products whose weights' magnitudes sum to at most 255
//! stay within 255 × 128 = 32640, for any activations. Two weights always qualify unless both are −128; four often do.
//! Packing computes the number for every group of depths and stores it in the panel's metadata. The sums are exact in any case.

use super::super::layout::{DepthwiseRow, OutputTile, Requantization, Workspace};
use super::depthwise_s8::neon::{depthwise, pack_depthwise};
use super::gemm_s8::neon_4x8::{GROUP, KR, MR, accumulate_tile, quantized_panel};
use super::look_up_s8::neon::look_up;
use super::neon_i16_products::products_that_fit;
use super::requantize_s32::neon::{NR, check_output, requantize_tile};
use super::{Microkernels, PlainLoop};

/// The kernels for rows of any s8 values, or for rows of 0..=127. Products with the latter are at most 127 × 258 = 32766 if the
/// weights of each sign sum to at most 258, so that twice as many fit 16 bits.
pub struct Neon<const NON_NEGATIVE: bool = false>;

impl<const NON_NEGATIVE: bool> Microkernels for Neon<NON_NEGATIVE> {
    type Lane = i8;
    type NonNegative = Neon<true>;
    const MR: usize = MR;
    const NR: usize = NR;
    const KR: usize = KR;

    fn panel_metadata_bytes(depth: usize) -> usize {
        depth.div_ceil(GROUP * KR)
    }

    fn write_panel_metadata(depth: usize, panel: &mut [i8]) {
        let (weights, metadata) = panel.split_at_mut(depth * NR);
        for (group, products) in weights.chunks(GROUP * KR * NR).zip(metadata) {
            *products = products_that_fit::<NON_NEGATIVE>(KR * NR, group);
        }
    }

    fn accumulate_tile(depth: usize, _columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(KR) && rows.len() >= MR * depth);
        assert!(panel.len() >= depth * NR + Self::panel_metadata_bytes(depth) && acc.len() >= MR * NR);
        // SAFETY: every aarch64 processor has NEON; the slices are as long as asserted.
        unsafe { accumulate_tile(depth, rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr()) }
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
        assert!(depth.is_multiple_of(KR) && rows.len() >= tile.rows * depth);
        assert!(panel.len() >= depth * NR + Self::panel_metadata_bytes(depth));
        check_output(tile, params, out);
        // SAFETY: every aarch64 processor has NEON; the slices are as long as asserted.
        unsafe { quantized_panel(depth, rows.as_ptr(), panel.as_ptr(), tile, params, out.as_mut_ptr()) }
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
        pack_depthwise::<NON_NEGATIVE>(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise(row, out);
    }

    fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
        look_up(table, values, out);
    }

    fn vectorized<L: PlainLoop>(plain: L) {
        plain.run();
    }
}
