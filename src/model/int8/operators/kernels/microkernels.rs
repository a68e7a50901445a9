//! What an instruction set must implement.

use super::super::arithmetic::{Operation, Pairwise};
use super::super::layout::{DepthwiseRow, OutputTile, PairwiseOperands, Requantization, Workspace};

/// The kernels of one instruction set. Get one through [`Isa`](super::Isa): an implementation may only run on a processor
/// that has its instructions.
pub trait Microkernels {
    /// A value in a packed row: s8, or s8 converted once to the type that the multiplication takes.
    type Lane: Copy + Default + From<i8> + Send;
    /// The kernels for rows of 0..=127, as a ReLU leaves them: `Self`, unless knowing this makes them faster.
    type NonNegative: Microkernels;
    /// Rows (pixels) of a tile.
    const MR: usize;
    /// Columns (output channels) of a tile, and of a panel of weights.
    const NR: usize;
    /// Consecutive depths of one column that lie together in packed weights. Depths are padded to a multiple.
    const KR: usize;

    /// Bytes of metadata behind the weights of a panel.
    fn panel_metadata_bytes(_depth: usize) -> usize {
        0
    }

    /// Writes the metadata of a panel, once all its weights are in place: column sums, or which sums fit 16 bits.
    fn write_panel_metadata(_depth: usize, _panel: &mut [i8]) {}

    /// Multiplies `MR` packed rows by one panel of weights: `acc[r * NR + c] = Σ row r × column c`, for the first `columns`
    /// columns. The other columns of `acc` are unspecified.
    ///
    /// `rows` holds `MR` rows of `depth` values. `panel` holds `depth * NR` weights, in the order [`KR`](Self::KR) describes,
    /// and its metadata. `depth` is a multiple of `KR`. `acc` holds `MR * NR` values.
    fn accumulate_tile(depth: usize, columns: usize, rows: &[Self::Lane], panel: &[i8], acc: &mut [i32]);

    /// `out[r * stride + c] = bounds.round((acc[r * NR + c] + bias[c]) as f32 * factor[c])` for the rows and columns of `tile`.
    /// `bias` and `factor` hold `NR` values.
    fn requantize_tile(acc: &[i32], tile: OutputTile, params: &Requantization, out: &mut [i8]);

    /// [`accumulate_tile`](Self::accumulate_tile) and [`requantize_tile`](Self::requantize_tile) in one. Implementations may
    /// keep the sums in registers in between.
    fn quantized_tile(
        depth: usize,
        rows: &[Self::Lane],
        panel: &[i8],
        acc: &mut [i32],
        tile: OutputTile,
        params: &Requantization,
        out: &mut [i8],
    ) {
        Self::accumulate_tile(depth, tile.columns, rows, panel, acc);
        Self::requantize_tile(acc, tile, params, out);
    }

    /// [`quantized_tile`](Self::quantized_tile) for any number of rows, one tile after the other. `rows` holds at least
    /// [`rows_read`](Self::rows_read) rows.
    fn quantized_panel(
        depth: usize,
        rows: &[Self::Lane],
        panel: &[i8],
        acc: &mut [i32],
        tile: OutputTile,
        params: &Requantization,
        out: &mut [i8],
    ) {
        let blocks = rows.chunks_exact(Self::MR * depth);
        for (block, first) in blocks.zip((0..tile.rows).step_by(Self::MR)) {
            let rows = Self::MR.min(tile.rows - first);
            let out = &mut out[first * tile.stride..];
            Self::quantized_tile(depth, block, panel, acc, OutputTile { rows, ..tile }, params, out);
        }
    }

    /// How many rows [`quantized_panel`](Self::quantized_panel) reads to compute `rows` rows: whole tiles, or exactly `rows`.
    fn rows_read(rows: usize) -> usize {
        rows.next_multiple_of(Self::MR)
    }

    /// Consecutive s8 rows as packed rows, if both have the same form: then packing is not needed.
    fn as_packed(_rows: &[i8]) -> Option<&[Self::Lane]> {
        None
    }

    /// The buffer for packed rows of this form.
    fn packed_rows(workspace: &mut Workspace) -> &mut Vec<Self::Lane>;

    /// Packs depthwise weights, given as `[tap][channel]`, for [`depthwise`](Self::depthwise).
    fn pack_depthwise(weights: &[i8], channels: usize) -> Vec<i8>;

    /// Computes neighbouring pixels of a depthwise convolution. `out` holds all channels of each pixel.
    fn depthwise(row: &DepthwiseRow, out: &mut [i8]);

    /// `out[i] = table[values[i] as u8]`.
    fn look_up(table: &[i8; 256], values: &[i8], out: &mut [i8]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = table[usize::from(*value as u8)];
        }
    }

    /// An element-wise sum or product.
    fn pairwise(operands: PairwiseOperands) {
        Self::vectorized(operands);
    }

    /// Runs a plain loop compiled for this instruction set, so that the compiler vectorizes it.
    fn vectorized<L: PlainLoop>(plain: L);
}

/// A loop in plain Rust that the compiler vectorizes.
///
/// `run` must be `#[inline(always)]`: only code that is inlined into a function with `#[target_feature]` is compiled for that
/// feature. A closure would not be inlined reliably.
pub trait PlainLoop {
    fn run(self);
}

impl PlainLoop for PairwiseOperands<'_> {
    #[inline(always)]
    fn run(self) {
        let Pairwise {
            operation,
            zero_points: [left_zero, right_zero],
            bounds,
        } = self.operation;
        // In 16 bits the compiler subtracts twice as many values at once.
        let centred = |q: i8, zero: i32| f32::from(i16::from(q) - zero as i16);
        match operation {
            Operation::Add { factors: [a, b] } => {
                for ((out, l), r) in self.out.iter_mut().zip(self.left).zip(self.right) {
                    let (l, r) = (centred(*l, left_zero), centred(*r, right_zero));
                    *out = bounds.round(l * a + r * b);
                }
            }
            Operation::Multiply { factor } => {
                for ((out, l), r) in self.out.iter_mut().zip(self.left).zip(self.right) {
                    let (l, r) = (centred(*l, left_zero), centred(*r, right_zero));
                    *out = bounds.round(l * r * factor);
                }
            }
        }
    }
}
