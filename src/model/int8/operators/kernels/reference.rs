//! Plain Rust, one multiplication at a time. Every other implementation must equal this one bit for bit.

use super::super::layout::{DepthwiseRow, OutputTile, Requantization, Workspace};
use super::{Microkernels, PlainLoop};

pub struct Reference;

impl Microkernels for Reference {
    type Lane = i8;
    type NonNegative = Reference;
    const MR: usize = 4;
    const NR: usize = 4;
    const KR: usize = 1;

    fn accumulate_tile(depth: usize, _columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        for (row, acc) in rows.chunks_exact(depth).zip(acc.chunks_exact_mut(Self::NR)) {
            acc.fill(0);
            for (a, weights) in row.iter().zip(panel.chunks_exact(Self::NR)) {
                for (sum, w) in acc.iter_mut().zip(weights) {
                    *sum += i32::from(*a) * i32::from(*w);
                }
            }
        }
    }

    fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]) {
        for r in 0..tile.rows {
            for c in 0..tile.columns {
                let sum = acc[r * Self::NR + c].wrapping_add(params.bias[c]);
                out[r * tile.stride + c] = params.bounds.round(sum as f32 * params.factor[c]);
            }
        }
    }

    fn as_packed(rows: &[i8]) -> Option<&[i8]> {
        Some(rows)
    }

    fn packed_rows(workspace: &mut Workspace) -> &mut Vec<i8> {
        &mut workspace.s8_rows
    }

    fn pack_depthwise(weights: &[i8], _channels: usize) -> Vec<i8> {
        weights.to_vec()
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = row.scalar(row.weights, i / row.channels, i % row.channels);
        }
    }

    fn vectorized<L: PlainLoop>(plain: L) {
        plain.run();
    }
}
