//! Windows over images.

use std::ops::Range;

/// The geometry of a window that slides over an image, as for a convolution or a pool. Each array is [vertical, horizontal].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Padding above and to the left. The padding below and to the right follows from the size of the output.
    pub pad: [usize; 2],
}

impl Window {
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether every output pixel has at least one tap inside the image.
    pub fn always_inside(&self) -> bool {
        (0..2).all(|axis| {
            let has_tap = |o: usize| (0..self.kernel[axis]).any(|k| self.input_at(axis, o, k).is_some());
            (0..self.output[axis]).all(has_tap)
        })
    }

    /// The output columns whose taps all lie inside the image, horizontally.
    pub fn full_columns(&self) -> Range<usize> {
        let span = (self.kernel[1] - 1) * self.dilation[1];
        let start = self.pad[1].div_ceil(self.stride[1]).min(self.output[1]);
        let end = (self.input[1] + self.pad[1])
            .checked_sub(span + 1)
            .map_or(0, |last| last / self.stride[1] + 1)
            .min(self.output[1]);
        start..end.max(start)
    }

    /// The input row (axis 0) or column (axis 1) under tap `k` of output row or column `o`; `None` in the padding.
    #[inline(always)]
    pub fn input_at(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        (o * self.stride[axis] + k * self.dilation[axis])
            .checked_sub(self.pad[axis])
            .filter(|i| *i < self.input[axis])
    }
}
