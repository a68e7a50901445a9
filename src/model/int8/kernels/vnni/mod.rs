//! x86-64 with VPDPBUSD, which adds four products of bytes to each sum of 32 bits, exactly.
//!
//! One of its operands is unsigned. Packed rows are kept 128 higher, as [`Raised`], and since
//! Σ w x = Σ w (x + 128) − 128 Σ w, every column's sums begin at −128 Σ w, which [`Family::note`](super::Family::note) puts
//! behind a panel's weights.

mod avx;
mod avx512;

pub use avx::AvxVnni;
pub use avx512::Avx512Vnni;

/// Depths that one column keeps together.
const KU: usize = 4;

/// An s8 value, 128 higher: 0..=255.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Raised(u8);

impl From<i8> for Raised {
    #[inline(always)]
    fn from(value: i8) -> Raised {
        Raised(value as u8 ^ 0x80)
    }
}

impl From<Raised> for i8 {
    fn from(Raised(value): Raised) -> i8 {
        (value ^ 0x80) as i8
    }
}

/// Where the sums of a column with these weights begin.
fn start(weights: impl Iterator<Item = i8>) -> i32 {
    -128 * weights.map(i32::from).sum::<i32>()
}

/// Bytes of the starts behind a panel of `columns`.
const fn notes(columns: usize) -> usize {
    size_of::<i32>() * columns
}

/// Puts the starts behind a panel's weights, `[depth / KU][columns][KU]`.
fn note(depth: usize, columns: usize, panel: &mut [i8]) {
    let (weights, starts) = panel.split_at_mut(depth * columns);
    for (column, note) in starts.as_chunks_mut().0.iter_mut().enumerate() {
        let of_column = weights.chunks_exact(KU).skip(column).step_by(columns).flatten();
        *note = start(of_column.copied()).to_ne_bytes().map(|byte| byte as i8);
    }
}
