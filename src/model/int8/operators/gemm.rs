//! Matrix products. Convolutions, linear layers and products of two activations all end up here.
//!
//! Rows (the pixels under a convolution's window, or the rows of a matrix) are packed in blocks that fit the first-level cache,
//! and multiplied by one panel of weights after the other.

use super::arithmetic::Bounds;
use super::kernels::{Microkernels, PlainLoop};
use super::layout::{MAX_TILE, OutputTile, Requantization, Workspace};

/// Bytes of a block of packed rows. It stays in the first-level cache beside a panel of weights.
const BLOCK_BYTES: usize = 16 * 1024;

/// The weights of a layer, packed for one instruction set, with the bias and the requantization factor of each output.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    panels: Vec<i8>,
    /// Padded with zeros to whole panels.
    bias: Vec<i32>,
    factor: Vec<f32>,
    columns: usize,
    /// Values per row, as given.
    input_depth: usize,
    /// Values per packed row: padded to a multiple of [`Microkernels::KR`].
    depth: usize,
    /// Bytes of a panel: its weights and its metadata.
    panel_bytes: usize,
}

impl PackedWeights {
    /// `weights` are the transposed matrix: one row per output, as ONNX stores convolutions. `bias` and `factor` have one value
    /// per output.
    pub fn pack<M: Microkernels>(weights: &[i8], bias: &[i32], factor: &[f32]) -> PackedWeights {
        let columns = bias.len();
        let depth = weights.len() / columns.max(1);
        let panels = columns.div_ceil(M::NR);
        let padded = |n: usize| n.div_ceil(M::KR) * M::KR;
        let panel_bytes = M::NR * padded(depth) + M::panel_metadata_bytes(padded(depth));
        let mut packed = PackedWeights {
            panels: vec![0; panels * panel_bytes],
            bias: vec![0; panels * M::NR],
            factor: vec![0.0; panels * M::NR],
            columns,
            input_depth: depth,
            depth: padded(depth),
            panel_bytes,
        };
        packed.bias[..columns].copy_from_slice(bias);
        packed.factor[..columns].copy_from_slice(factor);
        for (column, row) in weights.chunks_exact(depth.max(1)).enumerate() {
            packed.write_column::<M>(column, row);
        }
        packed.write_metadata::<M>();
        packed
    }

    /// Writes the weights of one output. A panel is `[depth / KR][NR][KR]`, so that a tile reads consecutive values.
    fn write_column<M: Microkernels>(&mut self, column: usize, weights: &[i8]) {
        let panel = column / M::NR * self.panel_bytes;
        let within = column % M::NR * M::KR;
        for (k, w) in weights.iter().enumerate() {
            self.panels[panel + k / M::KR * M::KR * M::NR + within + k % M::KR] = *w;
        }
    }

    /// Must follow every change of the weights.
    fn write_metadata<M: Microkernels>(&mut self) {
        for panel in self.panels.chunks_exact_mut(self.panel_bytes.max(1)) {
            M::write_panel_metadata(self.depth, panel);
        }
    }

    pub fn bytes(&self) -> usize {
        self.panels.len() + 4 * (self.bias.len() + self.factor.len())
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values per row before packing.
    pub fn input_depth(&self) -> usize {
        self.input_depth
    }

    /// Makes room in `workspace` for products with these weights, which were packed for `M`.
    pub fn reserve<M: Microkernels>(&self, workspace: &mut Workspace) {
        let needed = block_rows::<M>(self.depth) * self.depth;
        let rows = M::packed_rows(workspace);
        rows.resize(rows.len().max(needed), M::Lane::default());
    }
}

fn block_rows<M: Microkernels>(depth: usize) -> usize {
    let tiles = BLOCK_BYTES / (M::MR * depth.max(1) * size_of::<M::Lane>());
    tiles.max(1) * M::MR
}

/// Where the products go.
pub enum Results<'a> {
    /// Requantized, row-major: for a convolution, channels last.
    Quantized { bounds: Bounds, out: &'a mut [i8] },
    /// Real numbers within limits (minimum, maximum), column-major: for a convolution, channels first.
    Real { limits: [f32; 2], out: &'a mut [f32] },
}

/// The left-hand side of a product.
pub trait Rows {
    fn count(&self) -> usize;

    /// All rows, if they lie one after the other in memory.
    fn consecutive(&self) -> Option<&[i8]> {
        None
    }

    /// Writes row `i`. The padding at the end of `row` need not be written, because the weights there are zero. Implementations
    /// must be `#[inline(always)]`, as in [`PlainLoop`].
    fn pack<L: Copy + From<i8>>(&self, i: usize, row: &mut [L]);

    /// Writes rows from `first` on, as many rows of `depth` values as `out` holds.
    #[inline(always)]
    fn pack_block<L: Copy + From<i8>>(&self, first: usize, depth: usize, out: &mut [L]) {
        for (i, row) in out.chunks_exact_mut(depth).enumerate() {
            self.pack(first + i, row);
        }
    }
}

/// The rows of a row-major matrix.
pub struct Matrix<'a> {
    pub values: &'a [i8],
    pub depth: usize,
}

impl Rows for Matrix<'_> {
    fn count(&self) -> usize {
        self.values.len() / self.depth
    }

    fn consecutive(&self) -> Option<&[i8]> {
        Some(self.values)
    }

    #[inline(always)]
    fn pack<L: Copy + From<i8>>(&self, i: usize, row: &mut [L]) {
        widen(&self.values[i * self.depth..][..self.depth], row);
    }
}

/// Packs a block of rows.
struct Pack<'a, R, L> {
    rows: &'a R,
    first: usize,
    depth: usize,
    out: &'a mut [L],
}

impl<R: Rows, L: Copy + From<i8>> PlainLoop for Pack<'_, R, L> {
    #[inline(always)]
    fn run(self) {
        if let Some(values) = self.rows.consecutive()
            && values.len() == self.rows.count() * self.depth
        {
            return widen(&values[self.first * self.depth..], self.out);
        }
        self.rows.pack_block(self.first, self.depth, self.out);
    }
}

/// Multiplies `left` by `weights`, which were packed for `M`.
pub fn multiply<M: Microkernels>(
    left: &impl Rows,
    weights: &PackedWeights,
    workspace: &mut Workspace,
    mut results: Results,
) {
    let (rows, depth) = (left.count(), weights.depth);
    let buffer = M::packed_rows(workspace);
    let block = block_rows::<M>(depth);
    let mut acc = [0i32; MAX_TILE];
    let packed = left
        .consecutive()
        .filter(|values| values.len() == rows * depth)
        .and_then(M::as_packed);
    for first in (0..rows).step_by(block) {
        let count = block.min(rows - first);
        let needed = results.rows_read::<M>(count) * depth;
        let block = match packed.and_then(|rows| rows[first * depth..].get(..needed)) {
            Some(block) => block,
            None => {
                M::vectorized(Pack {
                    rows: left,
                    first,
                    depth,
                    out: &mut buffer[..count * depth],
                });
                &buffer[..]
            }
        };
        for (panel, column) in weights
            .panels
            .chunks_exact(weights.panel_bytes)
            .zip((0..).step_by(M::NR))
        {
            let tile = OutputTile {
                rows: count,
                columns: M::NR.min(weights.columns - column),
                stride: weights.columns,
            };
            results.compute::<M>([first, column], tile, weights, (block, panel), &mut acc);
        }
    }
}

impl Results<'_> {
    /// How many packed rows are read to compute `rows` rows.
    fn rows_read<M: Microkernels>(&self, rows: usize) -> usize {
        match self {
            Results::Quantized { .. } => M::rows_read(rows),
            Results::Real { .. } => rows.next_multiple_of(M::MR),
        }
    }

    /// Multiplies packed rows by a panel and writes `tile`, which starts at the given row and column of the product.
    #[inline(always)]
    fn compute<M: Microkernels>(
        &mut self,
        [row, column]: [usize; 2],
        tile: OutputTile,
        weights: &PackedWeights,
        (rows, panel): (&[M::Lane], &[i8]),
        acc: &mut [i32],
    ) {
        let (depth, columns) = (weights.depth, weights.columns);
        let bias = &weights.bias[column..][..M::NR];
        let factor = &weights.factor[column..][..M::NR];
        match self {
            Results::Quantized { bounds, out } => {
                let bounds = *bounds;
                let params = Requantization { bias, factor, bounds };
                let out = &mut out[row * columns + column..];
                M::quantized_panel(depth, rows, panel, acc, tile, &params, out);
            }
            Results::Real {
                limits: [low, high],
                out,
            } => {
                let plane = out.len() / columns;
                // The last tile may have more rows than the block: they are computed and not written.
                for (rows, first) in rows.chunks_exact(M::MR * depth).zip((0..tile.rows).step_by(M::MR)) {
                    M::accumulate_tile(depth, tile.columns, rows, panel, acc);
                    let acc = acc.chunks_exact(M::NR).take(tile.rows - first);
                    for (acc, i) in acc.take(M::MR).zip(row + first..) {
                        for c in 0..tile.columns {
                            let real = acc[c].wrapping_add(bias[c]) as f32 * factor[c];
                            out[(column + c) * plane + i] = real.max(*low).min(*high);
                        }
                    }
                }
            }
        }
    }
}

/// A product of two activations. Its right-hand side is packed anew for every run.
#[derive(Debug, Clone)]
pub struct MatrixProduct {
    weights: PackedWeights,
}

impl MatrixProduct {
    /// For a right-hand side of `depth` rows and `columns` columns. `factor` converts products to units of the output's scale.
    pub fn new<M: Microkernels>(depth: usize, columns: usize, factor: f32) -> MatrixProduct {
        let zeros = vec![0; depth * columns];
        MatrixProduct {
            weights: PackedWeights::pack::<M>(&zeros, &vec![0; columns], &vec![factor; columns]),
        }
    }

    pub fn weights(&self) -> &PackedWeights {
        &self.weights
    }

    /// Computes left × right, both row-major, with zero points of 0.
    pub fn run<M: Microkernels>(&mut self, left: &[i8], right: &[i8], workspace: &mut Workspace, results: Results) {
        let columns = self.weights.columns;
        let depth = right.len() / columns;
        let PackedWeights {
            panels, panel_bytes, ..
        } = &mut self.weights;
        for (k, row) in right.chunks_exact(columns).enumerate() {
            let first = k / M::KR * M::KR * M::NR + k % M::KR;
            for (row, panel) in row.chunks(M::NR).zip(panels.chunks_exact_mut(*panel_bytes)) {
                let places = panel[first..].iter_mut().step_by(M::KR);
                places.zip(row).for_each(|(place, w)| *place = *w);
            }
        }
        self.weights.write_metadata::<M>();
        multiply::<M>(&Matrix { values: left, depth }, &self.weights, workspace, results);
    }
}

/// Converts and copies values, 32 at a time or fewer. The last step may overlap the one before it.
#[inline(always)]
pub fn widen<L: Copy + From<i8>>(values: &[i8], lanes: &mut [L]) {
    let count = values.len().min(lanes.len());
    let (values, lanes) = (&values[..count], &mut lanes[..count]);
    match count {
        0 => {}
        1 => widen_by::<L, 1>(values, lanes),
        2..4 => widen_by::<L, 2>(values, lanes),
        4..8 => widen_by::<L, 4>(values, lanes),
        8..16 => widen_by::<L, 8>(values, lanes),
        16..32 => widen_by::<L, 16>(values, lanes),
        _ => widen_by::<L, 32>(values, lanes),
    }
}

#[inline(always)]
fn widen_by<L: Copy + From<i8>, const N: usize>(values: &[i8], lanes: &mut [L]) {
    // `map` would copy through the stack; a loop does not.
    let convert = |values: &[i8; N], lanes: &mut [L; N]| {
        for i in 0..N {
            lanes[i] = L::from(values[i]);
        }
    };
    let (from, to) = (values.as_chunks().0, lanes.as_chunks_mut().0);
    from.iter().zip(to).for_each(|(from, to)| convert(from, to));
    if let (Some(from), Some(to)) = (values.last_chunk(), lanes.last_chunk_mut()) {
        convert(from, to);
    }
}
