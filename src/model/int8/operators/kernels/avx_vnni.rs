//! x86-64 with AVX-VNNI, in 256 bits: Alder Lake, Sierra Forest, Zen 5 and later. Only the matrix products differ from AVX2.

use super::super::layout::{DepthwiseRow, OffsetU8, OutputTile, PairwiseOperands, Requantization, Workspace};
use super::avx2::{Avx2, Avx2NonNegative};
use super::gemm_s16s8::avx2_6x16::MR;
use super::gemm_u8s8::avx_vnni_6x16 as gemm_u8s8;
use super::requantize_s32::avx2::NR;
use super::vnni::{KR, column_sums_bytes, write_column_sums};
use super::{Microkernels, PlainLoop};

/// Matrix products are the same for all rows. Depthwise convolutions are faster for rows of 0..=127.
pub struct AvxVnni<const NON_NEGATIVE: bool>;

impl<const NON_NEGATIVE: bool> Microkernels for AvxVnni<NON_NEGATIVE> {
    type Lane = OffsetU8;
    type NonNegative = AvxVnni<true>;
    const MR: usize = MR;
    const NR: usize = NR;
    const KR: usize = KR;

    fn panel_metadata_bytes(_depth: usize) -> usize {
        column_sums_bytes(NR)
    }

    fn write_panel_metadata(depth: usize, panel: &mut [i8]) {
        write_column_sums(depth, NR, panel);
    }

    fn accumulate_tile(depth: usize, columns: usize, rows: &[OffsetU8], panel: &[i8], acc: &mut [i32]) {
        assert!(depth.is_multiple_of(KR));
        assert!(rows.len() >= MR * depth && panel.len() >= depth * NR + column_sums_bytes(NR) && acc.len() >= MR * NR);
        let (rows, panel, acc) = (rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr());
        // SAFETY: `Isa` detected AVX-VNNI; the slices are as long as asserted.
        unsafe {
            match columns <= NR / 2 {
                true => gemm_u8s8::accumulate_tile::<1>(depth, rows, panel, acc),
                false => gemm_u8s8::accumulate_tile::<2>(depth, rows, panel, acc),
            }
        }
    }

    fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
        Avx2::requantize_tile(acc, tile, params, out);
    }

    fn packed_rows(workspace: &mut Workspace) -> &mut Vec<OffsetU8> {
        &mut workspace.offset_u8_rows
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

    fn pairwise(operands: PairwiseOperands) {
        Avx2::pairwise(operands);
    }

    fn vectorized<L: PlainLoop>(plain: L) {
        Avx2::vectorized(plain);
    }
}
