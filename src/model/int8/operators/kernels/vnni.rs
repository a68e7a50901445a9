//! What all kernels for VPDPBUSD share. The instruction multiplies four u8 by four s8 and adds the products to a 32-bit sum,
//! exactly.
//!
//! Packed rows are stored plus 128, as [`OffsetU8`](super::super::layout::OffsetU8). Since
//! Σ w x = Σ w (x + 128) − 128 Σ w, the sum of every column starts at −128 Σ w. These column sums are the panel's metadata.

/// Bytes that one VPDPBUSD lane multiplies.
pub const KR: usize = 4;

/// −128 Σ w: where the sum of a column with these weights starts.
pub fn column_sum(weights: impl Iterator<Item = i8>) -> i32 {
    -128 * weights.map(i32::from).sum::<i32>()
}

/// Bytes of the column sums of `columns` columns.
pub const fn column_sums_bytes(columns: usize) -> usize {
    size_of::<i32>() * columns
}

/// Writes the column sums behind a panel's weights, which are `[depth / KR][columns][KR]`.
pub fn write_column_sums(depth: usize, columns: usize, panel: &mut [i8]) {
    let (weights, column_sums) = panel.split_at_mut(depth * columns);
    for (column, bytes) in column_sums.as_chunks_mut().0.iter_mut().enumerate() {
        let of_column = weights.chunks_exact(KR).skip(column).step_by(columns).flatten();
        *bytes = column_sum(of_column.copied()).to_ne_bytes().map(|byte| byte as i8);
    }
}
