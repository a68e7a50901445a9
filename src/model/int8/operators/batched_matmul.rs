//! MatMul of two activations: one pair of matrices, or a batch of them, with any zero points.

use super::arithmetic::Bounds;
use super::gemm::{MatrixProduct, Results};
use super::kernels::Microkernels;
use super::layout::{Workspace, grow};

/// The largest depth with zero points other than 0. The sums pass through f32, which holds every integer up to 2²⁴: as many as
/// this many products of s8 can reach.
pub const MAX_DEPTH_WITH_ZERO_POINTS: usize = 1 << (24 - 14);

/// Rows of the left matrix, columns of the right one, and the depth that both share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixSize {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
}

/// left × right, for every pair of row-major matrices of a batch.
#[derive(Debug, Clone)]
pub struct BatchedMatmul {
    product: MatrixProduct,
    batch: usize,
    correction: Option<ZeroPointCorrection>,
}

/// For zero points z and y that are not both 0: Σ (a − z) (b − y) = Σ a b − y Σ a − z Σ b + depth z y.
#[derive(Debug, Clone)]
struct ZeroPointCorrection {
    zero_points: [i32; 2],
    factor: f32,
    rows: usize,
}

impl BatchedMatmul {
    /// `factor` converts products to units of the output's scale. With zero points that are not 0, the depth may be up to
    /// [`MAX_DEPTH_WITH_ZERO_POINTS`].
    pub fn new<M: Microkernels>(batch: usize, size: MatrixSize, zero_points: [i32; 2], factor: f32) -> BatchedMatmul {
        let MatrixSize { rows, depth, columns } = size;
        let correction = (zero_points != [0, 0]).then_some(ZeroPointCorrection {
            zero_points,
            factor,
            rows,
        });
        debug_assert!(correction.is_none() || depth <= MAX_DEPTH_WITH_ZERO_POINTS);
        let factor = if correction.is_some() { 1.0 } else { factor };
        BatchedMatmul {
            product: MatrixProduct::new::<M>(depth, columns, factor),
            batch,
            correction,
        }
    }

    /// Columns of the right matrix.
    pub fn columns(&self) -> usize {
        self.product.columns()
    }

    /// Makes room in `workspace` for both matrices and for the correction.
    pub fn reserve<M: Microkernels>(&self, workspace: &mut Workspace) {
        self.product.reserve::<M>(workspace);
        if let Some(ZeroPointCorrection { rows, .. }) = self.correction {
            grow(&mut workspace.products, rows * self.columns());
            grow(&mut workspace.sums, rows);
        }
    }

    /// Whether [`run`](Self::run) accepts [`Results::Real`]: one pair of matrices, with zero points of 0.
    pub fn can_be_real(&self) -> bool {
        self.batch == 1 && self.correction.is_none()
    }

    pub fn bytes(&self) -> usize {
        self.product.bytes()
    }

    pub fn run<M: Microkernels>(&self, left: &[i8], right: &[i8], workspace: &mut Workspace, results: Results) {
        let (bounds, out) = match results {
            Results::Quantized { bounds, out } => (bounds, out),
            real @ Results::Real { .. } => return self.product.run::<M>(left, right, workspace, real),
        };
        let sizes = [left.len(), right.len(), out.len()].map(|len| len / self.batch);
        let matrices = left.chunks_exact(sizes[0]).zip(right.chunks_exact(sizes[1]));
        for ((left, right), out) in matrices.zip(out.chunks_exact_mut(sizes[2])) {
            let product = &self.product;
            match &self.correction {
                None => product.run::<M>(left, right, workspace, Results::Quantized { bounds, out }),
                Some(correction) => correction.run::<M>(product, left, right, workspace, bounds, out),
            }
        }
    }
}

impl ZeroPointCorrection {
    fn run<M: Microkernels>(
        &self,
        product: &MatrixProduct,
        left: &[i8],
        right: &[i8],
        workspace: &mut Workspace,
        bounds: Bounds,
        out: &mut [i8],
    ) {
        let limits = [f32::NEG_INFINITY, f32::INFINITY];
        // Σ a b, column-major.
        let mut products = std::mem::take(&mut workspace.products);
        let results = Results::Real {
            limits,
            out: &mut products[..out.len()],
        };
        product.run::<M>(left, right, workspace, results);
        let (depth, columns) = (left.len() / self.rows, out.len() / self.rows);
        // Σ a of each row.
        let row_sums = &mut workspace.sums[..self.rows];
        for (sum, row) in row_sums.iter_mut().zip(left.chunks_exact(depth)) {
            *sum = row.iter().map(|a| i32::from(*a)).sum();
        }
        let [left_zero, right_zero] = self.zero_points;
        for (c, sums) in products[..out.len()].chunks_exact(self.rows).enumerate() {
            let down = right.iter().skip(c).step_by(columns);
            let column: i32 = down.map(|b| i32::from(*b)).sum();
            let constant = depth as i32 * left_zero * right_zero - left_zero * column;
            for ((sum, row), out) in sums.iter().zip(&*row_sums).zip(out.chunks_exact_mut(columns)) {
                let exact = *sum as i32 + constant - right_zero * row;
                out[c] = bounds.round(exact as f32 * self.factor);
            }
        }
        workspace.products = products;
    }
}
