//! Matrix products. Convolutions, linear layers and products of two activations all end up here.
//!
//! Rows (the pixels under a convolution's window, or the rows of a matrix) are packed in blocks that fit the first-level cache,
//! and multiplied by one panel of weights after the other.

use super::arithmetic::Bounds;
use super::kernels::{Microkernels, PlainLoop};
use super::layout::{MAX_TILE, OutputTile, Requantization, Workspace, grow};

/// Bytes of a block of packed rows. It stays in the first-level cache beside a panel of weights.
const BLOCK_BYTES: usize = 16 * 1024;

/// The size of a right-hand side that is packed for one instruction set, with the bias and the requantization factor of each
/// output.
#[derive(Debug, Clone)]
struct Columns {
    /// Padded with zeros to whole panels, as the factors are.
    bias: Vec<i32>,
    factor: Vec<f32>,
    count: usize,
    /// Values per row, as given.
    input_depth: usize,
    /// Values per packed row: padded to a multiple of [`Microkernels::KR`].
    depth: usize,
    /// Bytes of a panel: its weights and its metadata.
    panel_bytes: usize,
}

impl Columns {
    fn new<M: Microkernels>(depth: usize, bias: &[i32], factor: &[f32]) -> Columns {
        let padded_depth = depth.div_ceil(M::KR) * M::KR;
        let padded = bias.len().div_ceil(M::NR) * M::NR;
        let mut columns = Columns {
            bias: vec![0; padded],
            factor: vec![0.0; padded],
            count: bias.len(),
            input_depth: depth,
            depth: padded_depth,
            panel_bytes: M::NR * padded_depth + M::panel_metadata_bytes(padded_depth),
        };
        columns.bias[..bias.len()].copy_from_slice(bias);
        columns.factor[..bias.len()].copy_from_slice(factor);
        columns
    }

    /// Bytes of all panels.
    fn panels<M: Microkernels>(&self) -> usize {
        self.bias.len() / M::NR * self.panel_bytes
    }

    /// Must follow every change of the weights in `panels`.
    fn write_metadata<M: Microkernels>(&self, panels: &mut [i8]) {
        for panel in panels.chunks_exact_mut(self.panel_bytes.max(1)) {
            M::write_panel_metadata(self.depth, panel);
        }
    }

    fn bytes(&self) -> usize {
        4 * (self.bias.len() + self.factor.len())
    }

    /// Makes room in `workspace` for the packed rows of the left-hand side.
    fn reserve_rows<M: Microkernels>(&self, workspace: &mut Workspace) {
        grow(M::packed_rows(workspace), block_rows::<M>(self.depth) * self.depth);
    }
}

/// The weights of a layer, packed for one instruction set, with the bias and the requantization factor of each output.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    panels: Vec<i8>,
    columns: Columns,
}

impl PackedWeights {
    /// `weights` are the transposed matrix: one row per output, as ONNX stores convolutions. `bias` and `factor` have one value
    /// per output.
    pub fn pack<M: Microkernels>(weights: &[i8], bias: &[i32], factor: &[f32]) -> PackedWeights {
        let depth = weights.len() / bias.len().max(1);
        let columns = Columns::new::<M>(depth, bias, factor);
        let mut panels = vec![0; columns.panels::<M>()];
        // A panel is `[depth / KR][NR][KR]`, so that a tile reads consecutive values.
        for (column, row) in weights.chunks_exact(depth.max(1)).enumerate() {
            let panel = &mut panels[column / M::NR * columns.panel_bytes..][..columns.depth * M::NR];
            let within = column % M::NR * M::KR;
            for (step, weights) in panel.chunks_exact_mut(M::NR * M::KR).zip(row.chunks(M::KR)) {
                let places = step[within..].iter_mut();
                places.zip(weights).for_each(|(place, w)| *place = *w);
            }
        }
        columns.write_metadata::<M>(&mut panels);
        PackedWeights { panels, columns }
    }

    pub fn bytes(&self) -> usize {
        self.panels.len() + self.columns.bytes()
    }

    pub fn columns(&self) -> usize {
        self.columns.count
    }

    /// Values per row before packing.
    pub fn input_depth(&self) -> usize {
        self.columns.input_depth
    }

    /// Makes room in `workspace` for products with these weights, which were packed for `M`.
    pub fn reserve<M: Microkernels>(&self, workspace: &mut Workspace) {
        self.columns.reserve_rows::<M>(workspace);
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
    results: Results,
) {
    multiply_panels::<M>(left, &weights.columns, &weights.panels, workspace, results);
}

fn multiply_panels<M: Microkernels>(
    left: &impl Rows,
    columns: &Columns,
    panels: &[i8],
    workspace: &mut Workspace,
    mut results: Results,
) {
    let (rows, depth) = (left.count(), columns.depth);
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
        for (panel, column) in panels.chunks_exact(columns.panel_bytes).zip((0..).step_by(M::NR)) {
            let tile = OutputTile {
                rows: count,
                columns: M::NR.min(columns.count - column),
                stride: columns.count,
            };
            results.compute::<M>([first, column], tile, columns, (block, panel), &mut acc);
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
        columns: &Columns,
        (rows, panel): (&[M::Lane], &[i8]),
        acc: &mut [i32],
    ) {
        let bias = &columns.bias[column..][..M::NR];
        let factor = &columns.factor[column..][..M::NR];
        let (depth, columns) = (columns.depth, columns.count);
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
    columns: Columns,
}

impl MatrixProduct {
    /// For a right-hand side of `depth` rows and `columns` columns. `factor` converts products to units of the output's scale.
    pub fn new<M: Microkernels>(depth: usize, columns: usize, factor: f32) -> MatrixProduct {
        MatrixProduct {
            columns: Columns::new::<M>(depth, &vec![0; columns], &vec![factor; columns]),
        }
    }

    /// Columns of the right-hand side.
    pub fn columns(&self) -> usize {
        self.columns.count
    }

    pub fn bytes(&self) -> usize {
        self.columns.bytes()
    }

    /// Makes room in `workspace` for both sides.
    pub fn reserve<M: Microkernels>(&self, workspace: &mut Workspace) {
        self.columns.reserve_rows::<M>(workspace);
        grow(&mut workspace.panels, self.columns.panels::<M>());
    }

    /// Computes left × right, both row-major, with zero points of 0.
    pub fn run<M: Microkernels>(&self, left: &[i8], right: &[i8], workspace: &mut Workspace, results: Results) {
        let mut buffer = std::mem::take(&mut workspace.panels);
        let panels = &mut buffer[..self.columns.panels::<M>()];
        // The padding must be zero, and another product may have used this memory.
        panels.fill(0);
        for (k, row) in right.chunks_exact(self.columns.count).enumerate() {
            let first = k / M::KR * M::KR * M::NR + k % M::KR;
            for (row, panel) in row.chunks(M::NR).zip(panels.chunks_exact_mut(self.columns.panel_bytes)) {
                let places = panel[first..].iter_mut().step_by(M::KR);
                places.zip(row).for_each(|(place, w)| *place = *w);
            }
        }
        self.columns.write_metadata::<M>(panels);
        let depth = self.columns.input_depth;
        let rows = Matrix { values: left, depth };
        multiply_panels::<M>(&rows, &self.columns, panels, workspace, results);
        workspace.panels = buffer;
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
