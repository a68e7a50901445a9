//! x86-64 with AVX-512 and VNNI, in 512 bits: Cascade Lake, Ice Lake, Zen 4 and later.

use super::super::layout::{DepthwiseRow, OffsetU8, OutputTile, PairwiseOperands, Requantization, Workspace};
use super::avx2::Avx2;
use super::depthwise_u8s8::avx512_vnni as depthwise_u8s8;
use super::gemm_u8s8::avx512_vnni_12x32::{self as gemm_u8s8, MR};
use super::requantize_s32::avx512_vnni::{self as requantize_s32, NR, WIDTH};
use super::vnni::{KR, column_sums_bytes, write_column_sums};
use super::{Microkernels, PlainLoop};

pub struct Avx512Vnni;

impl Microkernels for Avx512Vnni {
    type Lane = OffsetU8;
    type NonNegative = Avx512Vnni;
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
        check_input(depth, MR, rows, panel);
        assert!(acc.len() >= MR * NR);
        let (rows, panel, acc) = (rows.as_ptr(), panel.as_ptr(), acc.as_mut_ptr());
        // SAFETY: `Isa` detected AVX-512 VNNI; the slices are as long as asserted.
        unsafe {
            match columns <= WIDTH {
                true => gemm_u8s8::accumulate_tile::<1>(depth, rows, panel, acc),
                false => gemm_u8s8::accumulate_tile::<2>(depth, rows, panel, acc),
            }
        }
    }

    fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
        check_output(tile, params, out);
        assert!(acc.len() >= tile.rows * NR);
        // SAFETY: `Isa` detected AVX-512; the slices are as long as asserted.
        unsafe { requantize_s32::requantize_rows(acc.as_ptr(), tile, params, out.as_mut_ptr()) }
    }

    fn quantized_tile(
        depth: usize,
        rows: &[OffsetU8],
        panel: &[i8],
        _acc: &mut [i32],
        tile: OutputTile,
        params: &Requantization,
        out: &mut [i8],
    ) {
        use gemm_u8s8::quantized_tile;
        let computed = tile.rows.next_multiple_of(4);
        check_input(depth, computed, rows, panel);
        check_output(tile, params, out);
        let (rows, panel, out) = (rows.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
        // SAFETY: `Isa` detected AVX-512 VNNI; the slices are as long as asserted.
        unsafe {
            match (computed, tile.columns <= WIDTH) {
                (4, true) => quantized_tile::<4, 1>(depth, rows, panel, tile, params, out),
                (4, false) => quantized_tile::<4, 2>(depth, rows, panel, tile, params, out),
                (8, true) => quantized_tile::<8, 1>(depth, rows, panel, tile, params, out),
                (8, false) => quantized_tile::<8, 2>(depth, rows, panel, tile, params, out),
                (MR, true) => quantized_tile::<MR, 1>(depth, rows, panel, tile, params, out),
                (MR, false) => quantized_tile::<MR, 2>(depth, rows, panel, tile, params, out),
                _ => unreachable!("a tile has at most {MR} rows"),
            }
        }
    }

    fn packed_rows(workspace: &mut Workspace) -> &mut Vec<OffsetU8> {
        &mut workspace.offset_u8_rows
    }

    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8> {
        depthwise_u8s8::pack(weights, channels)
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        depthwise_u8s8::row(row, out);
    }

    fn pairwise(operands: PairwiseOperands) {
        Avx2::pairwise(operands);
    }

    fn vectorized<L: PlainLoop>(plain: L) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn call<L: PlainLoop>(plain: L) {
            plain.run();
        }
        // SAFETY: `Isa` detected AVX-512.
        unsafe { call(plain) }
    }
}

fn check_input(depth: usize, computed_rows: usize, rows: &[OffsetU8], panel: &[i8]) {
    assert!(depth.is_multiple_of(KR));
    assert!(rows.len() >= computed_rows * depth && panel.len() >= depth * NR + column_sums_bytes(NR));
}

fn check_output(tile: OutputTile, params: &Requantization, out: &[i8]) {
    let OutputTile { rows, columns, stride } = tile;
    assert!(params.bias.len() >= NR && params.factor.len() >= NR);
    assert!(rows > 0 && columns <= NR && out.len() >= (rows - 1) * stride + columns);
}
