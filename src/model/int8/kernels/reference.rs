//! Plain Rust, a multiplication at a time: what every other family must equal, bit for bit.

use super::super::arithmetic::Bounds;
use super::super::gemm::{Scratch, Scratches};
use super::{DepthwiseRow, Family, Wanted, Work};

pub struct Reference;

impl Family for Reference {
    type Lane = i8;
    type NonNegative = Reference;
    const MR: usize = 4;
    const NR: usize = 4;
    const KU: usize = 1;

    fn tile(depth: usize, _columns: usize, rows: &[i8], panel: &[i8], acc: &mut [i32]) {
        for (row, acc) in rows.chunks_exact(depth).zip(acc.chunks_exact_mut(Self::NR)) {
            acc.fill(0);
            for (a, weights) in row.iter().zip(panel.chunks_exact(Self::NR)) {
                for (sum, w) in acc.iter_mut().zip(weights) {
                    *sum += i32::from(*a) * i32::from(*w);
                }
            }
        }
    }

    fn requantize_tile(acc: &[i32], wanted: Wanted, bias: &[i32], factor: &[f32], bounds: Bounds, out: &mut [i8]) {
        for r in 0..wanted.rows {
            for c in 0..wanted.columns {
                let sum = acc[r * Self::NR + c].wrapping_add(bias[c]);
                out[r * wanted.stride + c] = bounds.round(sum as f32 * factor[c]);
            }
        }
    }

    fn as_packed(rows: &[i8]) -> Option<&[i8]> {
        Some(rows)
    }

    fn scratch(scratches: &mut Scratches) -> &mut Scratch<i8> {
        &mut scratches.narrow
    }

    fn pack_depthwise(weights: &[i8], _channels: usize) -> Vec<i8> {
        weights.to_vec()
    }

    fn depthwise(row: &DepthwiseRow, out: &mut [i8]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = row.one(row.weights, i / row.channels, i % row.channels);
        }
    }

    fn compiled<W: Work>(work: W) {
        work.run();
    }
}
