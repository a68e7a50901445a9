//! Products of two activations, one matrix or a stack of them.

use super::arithmetic::Bounds;
use super::gemm::{self, Results, Scratches, Weights};
use super::kernels::Family;

/// The deepest product that is exact with zero points: f32 holds all integers up to 2²⁴, a sum of so many products of s8.
pub const MAX_OFFSET_DEPTH: usize = 1 << (24 - 14);

/// left × right, each of a stack row-major.
#[derive(Debug, Clone)]
pub struct Product {
    plain: gemm::Product,
    stack: usize,
    offset: Option<Offset>,
}

/// Σ (a − z) (b − y) = Σ a b − y Σ a − z Σ b + depth z y, for zero points that are not 0.
#[derive(Debug, Clone)]
struct Offset {
    zero_points: [i32; 2],
    factor: f32,
    /// Σ a b, a column after the other.
    sums: Vec<f32>,
    /// Σ a of each row.
    rows: Vec<i32>,
}

impl Product {
    /// `stack` matrices of `rows` × `depth`, times as many of `depth` × `columns`; `factor` brings products to the output's
    /// scale. With zero points that are not 0, `depth` may be up to [`MAX_OFFSET_DEPTH`].
    pub fn new<F: Family>(
        stack: usize,
        [rows, depth, columns]: [usize; 3],
        zero_points: [i32; 2],
        factor: f32,
    ) -> Product {
        let offset = (zero_points != [0, 0]).then(|| Offset {
            zero_points,
            factor,
            sums: vec![0.0; rows * columns],
            rows: vec![0; rows],
        });
        debug_assert!(offset.is_none() || depth <= MAX_OFFSET_DEPTH);
        let factor = if offset.is_some() { 1.0 } else { factor };
        Product {
            plain: gemm::Product::new::<F>(depth, columns, factor),
            stack,
            offset,
        }
    }

    pub fn weights(&self) -> &Weights {
        self.plain.weights()
    }

    /// Whether the results can be real numbers: a single matrix's without zero points.
    pub fn can_be_real(&self) -> bool {
        self.stack == 1 && self.offset.is_none()
    }

    pub fn bytes(&self) -> usize {
        let offset = self.offset.as_ref();
        self.weights().bytes() + offset.map_or(0, |offset| 4 * (offset.sums.len() + offset.rows.len()))
    }

    pub fn run<F: Family>(&mut self, left: &[i8], right: &[i8], scratches: &mut Scratches, results: Results) {
        let (bounds, out) = match results {
            Results::Quantized { bounds, out } => (bounds, out),
            real @ Results::Real { .. } => return self.plain.run::<F>(left, right, scratches, real),
        };
        let sizes = [left.len(), right.len(), out.len()].map(|len| len / self.stack);
        let matrices = left.chunks_exact(sizes[0]).zip(right.chunks_exact(sizes[1]));
        for ((left, right), out) in matrices.zip(out.chunks_exact_mut(sizes[2])) {
            match &mut self.offset {
                None => self
                    .plain
                    .run::<F>(left, right, scratches, Results::Quantized { bounds, out }),
                Some(offset) => offset.run::<F>(&mut self.plain, left, right, scratches, bounds, out),
            }
        }
    }
}

impl Offset {
    fn run<F: Family>(
        &mut self,
        plain: &mut gemm::Product,
        left: &[i8],
        right: &[i8],
        scratches: &mut Scratches,
        bounds: Bounds,
        out: &mut [i8],
    ) {
        let limits = [f32::NEG_INFINITY, f32::INFINITY];
        let results = Results::Real {
            limits,
            out: &mut self.sums,
        };
        plain.run::<F>(left, right, scratches, results);
        let rows = self.rows.len();
        let (depth, columns) = (left.len() / rows, out.len() / rows);
        for (sum, row) in self.rows.iter_mut().zip(left.chunks_exact(depth)) {
            *sum = row.iter().map(|a| i32::from(*a)).sum();
        }
        let [left_zero, right_zero] = self.zero_points;
        for (c, sums) in self.sums.chunks_exact(rows).enumerate() {
            let down = right.iter().skip(c).step_by(columns);
            let column: i32 = down.map(|b| i32::from(*b)).sum();
            let constant = depth as i32 * left_zero * right_zero - left_zero * column;
            for ((sum, row), out) in sums.iter().zip(&self.rows).zip(out.chunks_exact_mut(columns)) {
                let exact = *sum as i32 + constant - right_zero * row;
                out[c] = bounds.round(exact as f32 * self.factor);
            }
        }
    }
}
