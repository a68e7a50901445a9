//! Operators that move values: transposition, slices, concatenation.

use super::elementwise::Table;
use super::kernels::Microkernels;

/// Any rearrangement of one tensor. `table` then converts the values to the output's quantization, if that differs.
#[derive(Debug, Clone)]
pub struct Gather {
    order: Order,
    pub table: Option<Table>,
}

/// Where each output value comes from.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    /// The input is a matrix of this many columns, and the output is its transpose.
    Transposed { columns: usize },
    /// The index of the input value for each output value.
    Any(Vec<u32>),
}

impl Gather {
    /// `from` holds the index of the input value for each output value.
    pub fn new(from: Vec<u32>, table: Option<Table>) -> Gather {
        // In a transpose, the second value lies one row down: as many values away as there are columns.
        let columns = from.get(1).map_or(1, |second| *second as usize).max(1);
        let rows = from.len() / columns;
        let whole = rows * columns == from.len();
        let order = match whole && (0..from.len()).all(|i| from[i] as usize == i % rows * columns + i / rows) {
            true => Order::Transposed { columns },
            false => Order::Any(from),
        };
        Gather { order, table }
    }

    /// Bytes of the order; the table is not counted.
    pub fn bytes(&self) -> usize {
        match &self.order {
            Order::Any(from) => size_of_val(&from[..]),
            Order::Transposed { .. } => 0,
        }
    }

    pub fn run(&self, input: &[i8], out: &mut [i8]) {
        match &self.order {
            Order::Transposed { columns } => transpose(input, *columns, out),
            Order::Any(from) => out.iter_mut().zip(from).for_each(|(out, i)| *out = input[*i as usize]),
        }
        if let Some(table) = &self.table {
            out.iter_mut().for_each(|q| *q = table.at(*q));
        }
    }
}

/// Transposes a row-major matrix in blocks of eight by eight, and the rest value by value.
fn transpose(input: &[i8], columns: usize, out: &mut [i8]) {
    let rows = out.len() / columns;
    let (whole_rows, whole_columns) = (rows / 8 * 8, columns / 8 * 8);
    for row in (0..whole_rows).step_by(8) {
        for column in (0..whole_columns).step_by(8) {
            let block = std::array::from_fn(|i| eight(&input[(row + i) * columns + column..]));
            for (i, line) in transpose_block(block).into_iter().enumerate() {
                out[(column + i) * rows + row..][..8].copy_from_slice(&line.to_le_bytes().map(|q| q as i8));
            }
        }
    }
    for row in 0..rows {
        let done = if row < whole_rows { whole_columns } else { 0 };
        for column in done..columns {
            out[column * rows + row] = input[row * columns + column];
        }
    }
}

/// The first eight values as one integer, the first in the lowest byte.
fn eight(values: &[i8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| values[..8][i] as u8))
}

/// Transposes eight rows of eight bytes: swaps the two quarters off the diagonal, then does the same within each quarter, twice.
fn transpose_block(mut rows: [u64; 8]) -> [u64; 8] {
    for (apart, mask) in [
        (4, 0x0000_0000_ffff_ffff),
        (2, 0x0000_ffff_0000_ffff),
        (1, 0x00ff_00ff_00ff_00ff),
    ] {
        let shift = 8 * apart;
        for i in (0..8).filter(|i| i & apart == 0) {
            let (above, below): (u64, u64) = (rows[i], rows[i + apart]);
            rows[i] = (above & mask) | (below & mask) << shift;
            rows[i + apart] = (above >> shift & mask) | (below & !mask);
        }
    }
    rows
}

/// Concatenation. In memory, each input consists of runs of equal length, and the output interleaves the runs of all inputs.
#[derive(Debug, Clone)]
pub struct Concat {
    pub parts: Vec<ConcatPart>,
}

/// One input of a concatenation.
#[derive(Debug, Clone)]
pub struct ConcatPart {
    /// Values of one run.
    pub run: usize,
    /// Converts the values to the output's quantization, if that differs.
    pub table: Option<Table>,
}

impl Concat {
    /// Writes the part `index`. An `input` of a single run is repeated.
    pub fn run_part<M: Microkernels>(&self, index: usize, input: &[i8], out: &mut [i8]) {
        let stride: usize = self.parts.iter().map(|part| part.run).sum();
        let before: usize = self.parts[..index].iter().map(|part| part.run).sum();
        let ConcatPart { run, table } = &self.parts[index];
        for (input, out) in input.chunks_exact(*run).cycle().zip(out.chunks_exact_mut(stride)) {
            let out = &mut out[before..][..*run];
            match table {
                None => out.copy_from_slice(input),
                Some(table) => table.run::<M>(input, out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn transpose_moves_every_value(rows in 1..40usize, columns in 1..40usize) {
            let from: Vec<u32> = (0..rows * columns).map(|i| (i % rows * columns + i / rows) as u32).collect();
            let input: Vec<i8> = (0..rows * columns).map(|i| (i * 37 + i / 256) as i8).collect();
            let expected: Vec<i8> = from.iter().map(|i| input[*i as usize]).collect();
            let gather = Gather::new(from, None);
            prop_assert_eq!(gather.bytes(), 0, "a transpose is recognized");
            let mut out = vec![0; input.len()];
            gather.run(&input, &mut out);
            prop_assert_eq!(expected, out);
        }

        #[test]
        fn gather_follows_any_order(from in prop::collection::vec(0..50u32, 1..100)) {
            let input: Vec<i8> = (0..50).collect();
            let mut out = vec![0; from.len()];
            let order = Order::Any(from.clone());
            Gather { order, table: None }.run(&input, &mut out);
            prop_assert!(from.iter().zip(out).all(|(from, out)| *from == out as u32));
        }
    }
}
