//! Pooling over windows of channels-last images.

use super::arithmetic::Bounds;
use super::elementwise::Table;
use super::kernels::{Microkernels, PlainLoop};
use super::layout::{Workspace, grow};
use super::window::Window;

/// The largest value under each window. `table` then converts it to the output's quantization, if that differs.
#[derive(Debug, Clone)]
pub struct MaxPool {
    pub window: Window,
    pub channels: usize,
    pub table: Option<Table>,
}

impl MaxPool {
    pub fn run<M: Microkernels>(&self, input: &[i8], out: &mut [i8]) {
        M::vectorized(Largest { pool: self, input, out });
    }
}

struct Largest<'a> {
    pool: &'a MaxPool,
    input: &'a [i8],
    out: &'a mut [i8],
}

impl PlainLoop for Largest<'_> {
    #[inline(always)]
    fn run(self) {
        let MaxPool {
            window,
            channels,
            table,
        } = self.pool;
        for (i, out) in self.out.chunks_exact_mut(*channels).enumerate() {
            out.fill(i8::MIN);
            for_taps(window, i, |tap| {
                for (out, q) in out.iter_mut().zip(&self.input[tap * channels..][..*channels]) {
                    *out = (*out).max(*q);
                }
            });
            if let Some(table) = table {
                out.iter_mut().for_each(|q| *q = table.at(*q));
            }
        }
    }
}

/// The mean under each window.
#[derive(Debug, Clone)]
pub struct AveragePool {
    pub window: Window,
    pub channels: usize,
    pub zero_point: i32,
    /// Input scale divided by output scale.
    pub factor: f32,
    /// Whether taps in the padding count as zeros.
    pub counts_padding: bool,
    pub bounds: Bounds,
}

impl AveragePool {
    /// Makes room in `workspace` for one sum per channel.
    pub fn reserve(&self, workspace: &mut Workspace) {
        grow(&mut workspace.sums, self.channels);
    }

    pub fn run<M: Microkernels>(&self, input: &[i8], workspace: &mut Workspace, out: &mut [i8]) {
        M::vectorized(Mean {
            pool: self,
            input,
            sums: &mut workspace.sums[..self.channels],
            out,
        });
    }
}

struct Mean<'a> {
    pool: &'a AveragePool,
    input: &'a [i8],
    sums: &'a mut [i32],
    out: &'a mut [i8],
}

impl PlainLoop for Mean<'_> {
    #[inline(always)]
    fn run(self) {
        let AveragePool {
            window,
            channels,
            zero_point,
            factor,
            counts_padding,
            bounds,
        } = self.pool;
        let sums = self.sums;
        for (i, out) in self.out.chunks_exact_mut(*channels).enumerate() {
            sums.fill(0);
            let mut taps = 0;
            for_taps(window, i, |tap| {
                taps += 1;
                for (sum, q) in sums.iter_mut().zip(&self.input[tap * *channels..][..*channels]) {
                    *sum += i32::from(*q) - *zero_point;
                }
            });
            let count = if *counts_padding { window.taps() } else { taps };
            let factor = *factor / count.max(1) as f32;
            for (out, sum) in out.iter_mut().zip(&*sums) {
                *out = bounds.round(*sum as f32 * factor);
            }
        }
    }
}

/// Calls `visit` with the input pixel under each tap of output pixel `i`. Taps in the padding are skipped.
#[inline(always)]
fn for_taps(window: &Window, i: usize, mut visit: impl FnMut(usize)) {
    let (y, x) = (i / window.output[1], i % window.output[1]);
    for ky in 0..window.kernel[0] {
        let Some(source_y) = window.input_at(0, y, ky) else {
            continue;
        };
        for kx in 0..window.kernel[1] {
            if let Some(source_x) = window.input_at(1, x, kx) {
                visit(source_y * window.input[1] + source_x);
            }
        }
    }
}
