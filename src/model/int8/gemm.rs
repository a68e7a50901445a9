//! Matrix products: convolutions, linear layers, and products of two activations.
//!
//! Rows (the pixels under a convolution's window, or a matrix's own rows) are packed a block at a time, small enough for
//! the first-level cache, and multiplied with one panel of weights after the other.

use super::arithmetic::Bounds;
#[cfg(target_arch = "x86_64")]
use super::kernels::vnni::Raised;
use super::kernels::{Family, MAX_NR, MAX_TILE, Requantization, Wanted, Work};

/// Bytes of packed rows that stay in the first-level cache beside a panel of weights.
const BLOCK_BYTES: usize = 16 * 1024;

/// Weights of `columns` outputs, packed for a family, and what belongs to each output.
#[derive(Debug, Clone)]
pub struct Weights {
    panels: Vec<i8>,
    /// Padded with zeros to whole panels.
    bias: Vec<i32>,
    factor: Vec<f32>,
    columns: usize,
    /// As given, and padded to the family's unit.
    input_depth: usize,
    depth: usize,
    /// Bytes in a panel, with what the family notes behind its weights.
    panel: usize,
}

impl Weights {
    /// `weights` are `columns` rows of equal length (the transposed matrix, as ONNX stores convolutions).
    pub fn pack<F: Family>(weights: &[i8], bias: &[i32], factor: &[f32]) -> Weights {
        let columns = bias.len();
        let depth = weights.len() / columns.max(1);
        let panels = columns.div_ceil(F::NR);
        let padded = |n: usize| n.div_ceil(F::KU) * F::KU;
        let panel = F::NR * padded(depth) + F::notes(padded(depth));
        let mut packed = Weights {
            panels: vec![0; panels * panel],
            bias: vec![0; panels * F::NR],
            factor: vec![0.0; panels * F::NR],
            columns,
            input_depth: depth,
            depth: padded(depth),
            panel,
        };
        packed.bias[..columns].copy_from_slice(bias);
        packed.factor[..columns].copy_from_slice(factor);
        for (column, row) in weights.chunks_exact(depth.max(1)).enumerate() {
            packed.put_column::<F>(column, row.iter().copied());
        }
        packed.note::<F>();
        packed
    }

    /// Puts in one output's weights. `[panel][depth / KU][NR][KU]`: what a tile reads is consecutive.
    fn put_column<F: Family>(&mut self, column: usize, weights: impl Iterator<Item = i8>) {
        let panel = column / F::NR * self.panel;
        let within = column % F::NR * F::KU;
        for (k, w) in weights.enumerate() {
            self.panels[panel + k / F::KU * F::KU * F::NR + within + k % F::KU] = w;
        }
    }

    /// To be called when all columns are in.
    fn note<F: Family>(&mut self) {
        for panel in self.panels.chunks_exact_mut(self.panel.max(1)) {
            F::note(self.depth, panel);
        }
    }

    pub fn bytes(&self) -> usize {
        self.panels.len() + 4 * (self.bias.len() + self.factor.len())
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values in a row before it is packed.
    pub fn input_depth(&self) -> usize {
        self.input_depth
    }
}

/// Room for a block of packed rows; grows once to what the largest layer needs.
#[derive(Debug, Default)]
pub struct Scratch<L> {
    rows: Vec<L>,
}

/// Room for each kind of lane.
#[derive(Debug, Default)]
pub struct Scratches {
    pub narrow: Scratch<i8>,
    pub wide: Scratch<i16>,
    #[cfg(target_arch = "x86_64")]
    pub raised: Scratch<Raised>,
    /// Lines of a picture between their padding.
    pub lines: Vec<i8>,
}

impl Scratches {
    /// Makes room for products of `weights`, which were packed for `F`.
    pub fn reserve<F: Family>(&mut self, weights: &Weights) {
        let needed = block_rows::<F>(weights.depth) * weights.depth;
        let rows = &mut F::scratch(self).rows;
        rows.resize(rows.len().max(needed), F::Lane::default());
    }

    pub fn bytes(&self) -> usize {
        #[cfg(target_arch = "x86_64")]
        let raised = self.raised.rows.len();
        #[cfg(not(target_arch = "x86_64"))]
        let raised = 0;
        self.narrow.rows.len() + size_of::<i16>() * self.wide.rows.len() + raised + self.lines.len()
    }
}

fn block_rows<F: Family>(depth: usize) -> usize {
    let tiles = BLOCK_BYTES / (F::MR * depth.max(1) * size_of::<F::Lane>());
    tiles.max(1) * F::MR
}

/// Where the products go.
pub enum Results<'a> {
    /// Row-major, a row of `columns` for each row of the product: channels last.
    Quantized { bounds: Bounds, out: &'a mut [i8] },
    /// As real numbers between two limits, a plane for each column: channels first.
    Real { limits: [f32; 2], out: &'a mut [f32] },
}

/// The left-hand side of a product.
pub trait Rows {
    fn count(&self) -> usize;

    /// All rows one after the other, if they lie so in memory.
    fn consecutive(&self) -> Option<&[i8]> {
        None
    }

    /// Writes row `i`. Lanes that only pad `row` may stay as they are, since the weights there are zero. To be
    /// `#[inline(always)]`, see [`Work`].
    fn pack<L: Copy + From<i8>>(&self, i: usize, row: &mut [L]);

    /// Writes as many rows of `depth` lanes as `out` holds, from row `first` on.
    #[inline(always)]
    fn pack_block<L: Copy + From<i8>>(&self, first: usize, depth: usize, out: &mut [L]) {
        for (i, row) in out.chunks_exact_mut(depth).enumerate() {
            self.pack(first + i, row);
        }
    }
}

/// The rows of a matrix as they are.
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

impl<R: Rows, L: Copy + From<i8>> Work for Pack<'_, R, L> {
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

/// Multiplies `left` with `weights`.
pub fn multiply<F: Family>(left: &impl Rows, weights: &Weights, scratches: &mut Scratches, mut results: Results) {
    let (rows, depth) = (left.count(), weights.depth);
    let scratch = F::scratch(scratches);
    let block = block_rows::<F>(depth);
    let mut acc = [0i32; MAX_TILE];
    let packed = left
        .consecutive()
        .filter(|values| values.len() == rows * depth)
        .and_then(F::as_packed);
    for first in (0..rows).step_by(block) {
        let count = block.min(rows - first);
        let reach = results.reach::<F>(count) * depth;
        let block = match packed.and_then(|rows| rows[first * depth..].get(..reach)) {
            Some(block) => block,
            None => {
                F::compiled(Pack {
                    rows: left,
                    first,
                    depth,
                    out: &mut scratch.rows[..count * depth],
                });
                &scratch.rows
            }
        };
        for (panel, column) in weights.panels.chunks_exact(weights.panel).zip((0..).step_by(F::NR)) {
            let wanted = Wanted {
                rows: count,
                columns: F::NR.min(weights.columns - column),
                stride: weights.columns,
            };
            results.take::<F>([first, column], wanted, weights, (block, panel), &mut acc);
        }
    }
}

impl Results<'_> {
    /// How many packed rows are read where so many are wanted.
    fn reach<F: Family>(&self, rows: usize) -> usize {
        match self {
            Results::Quantized { .. } => F::reach(rows),
            Results::Real { .. } => rows.next_multiple_of(F::MR),
        }
    }

    /// Multiplies packed rows with a panel and takes in what is wanted of it, from the first row and column on.
    #[inline(always)]
    fn take<F: Family>(
        &mut self,
        [row, column]: [usize; 2],
        wanted: Wanted,
        weights: &Weights,
        (rows, panel): (&[F::Lane], &[i8]),
        acc: &mut [i32],
    ) {
        let (depth, columns) = (weights.depth, weights.columns);
        let bias = &weights.bias[column..][..F::NR];
        let factor = &weights.factor[column..][..F::NR];
        match self {
            Results::Quantized { bounds, out } => {
                let bounds = *bounds;
                let to = Requantization { bias, factor, bounds };
                let out = &mut out[row * columns + column..];
                F::quantized_panel(depth, rows, panel, acc, wanted, &to, out);
            }
            Results::Real {
                limits: [low, high],
                out,
            } => {
                let plane = out.len() / columns;
                // The last tile of a block may reach past its rows: what lies there is multiplied and left.
                for (tile, first) in rows.chunks_exact(F::MR * depth).zip((0..wanted.rows).step_by(F::MR)) {
                    F::tile(depth, wanted.columns, tile, panel, acc);
                    let acc = acc.chunks_exact(F::NR).take(wanted.rows - first);
                    for (acc, i) in acc.take(F::MR).zip(row + first..) {
                        for c in 0..wanted.columns {
                            let real = acc[c].wrapping_add(bias[c]) as f32 * factor[c];
                            out[(column + c) * plane + i] = real.max(*low).min(*high);
                        }
                    }
                }
            }
        }
    }
}

/// The right-hand side of a product of two activations, packed anew every time.
#[derive(Debug, Clone)]
pub struct Product {
    weights: Weights,
}

impl Product {
    /// For a right-hand side of `depth` rows and `columns` columns; `factor` brings products to the output's scale.
    pub fn new<F: Family>(depth: usize, columns: usize, factor: f32) -> Product {
        let zeros = vec![0; depth * columns];
        Product {
            weights: Weights::pack::<F>(&zeros, &vec![0; columns], &vec![factor; columns]),
        }
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// out = left × right, all row-major, zero points 0.
    pub fn run<F: Family>(&mut self, left: &[i8], right: &[i8], scratches: &mut Scratches, results: Results) {
        let columns = self.weights.columns;
        let depth = right.len() / columns;
        let Weights { panels, panel, .. } = &mut self.weights;
        for (k, row) in right.chunks_exact(columns).enumerate() {
            let first = k / F::KU * F::KU * F::NR + k % F::KU;
            for (row, panel) in row.chunks(F::NR).zip(panels.chunks_exact_mut(*panel)) {
                let places = panel[first..].iter_mut().step_by(F::KU);
                places.zip(row).for_each(|(place, w)| *place = *w);
            }
        }
        self.weights.note::<F>();
        multiply::<F>(&Matrix { values: left, depth }, &self.weights, scratches, results);
    }
}

/// Copies values into lanes: thirty-two at a time, or fewer if there are not as many, and what is left over together with some
/// of those before it once more.
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
    // A loop and not `map`, which goes through the stack.
    let all = |values: &[i8; N], lanes: &mut [L; N]| {
        for i in 0..N {
            lanes[i] = L::from(values[i]);
        }
    };
    let (from, to) = (values.as_chunks().0, lanes.as_chunks_mut().0);
    from.iter().zip(to).for_each(|(from, to)| all(from, to));
    if let (Some(from), Some(to)) = (values.last_chunk(), lanes.last_chunk_mut()) {
        all(from, to);
    }
}

const _: () = assert!(MAX_NR <= MAX_TILE);
