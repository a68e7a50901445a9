//! Moving values without computing: transposition, reshaping, concatenation.

use super::kernels::Family;
use super::pointwise::Table;

/// Any rearrangement of one tensor, and `table` for a change of scale.
#[derive(Debug, Clone)]
pub struct Gather {
    order: Order,
    pub table: Option<Table>,
}

/// Where each output value comes from.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    /// From the transposed place of a matrix of so many columns.
    Transposed { columns: usize },
    /// From the place named.
    Any(Vec<u32>),
}

impl Gather {
    /// `from` says for each output value which input value it is.
    pub fn new(from: Vec<u32>, table: Option<Table>) -> Gather {
        // Down the first column, the second value is as far off as the matrix has columns.
        let columns = from.get(1).map_or(1, |second| *second as usize).max(1);
        let rows = from.len() / columns;
        let whole = rows * columns == from.len();
        let order = match whole && (0..from.len()).all(|i| from[i] as usize == i % rows * columns + i / rows) {
            true => Order::Transposed { columns },
            false => Order::Any(from),
        };
        Gather { order, table }
    }

    /// Bytes held besides the table.
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

/// Transposes a row-major matrix, in blocks of eight by eight as far as they go.
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

/// The first eight values, the first of them lowest.
fn eight(values: &[i8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| values[..8][i] as u8))
}

/// Transposes eight rows of eight bytes: swaps the quarters that lie off the diagonal, then those of each quarter, and so on.
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

/// Concatenation: in memory, each input is some number of equal runs, which are interleaved.
#[derive(Debug, Clone)]
pub struct Concat {
    /// Length of one input's run and its change of scale, if any.
    pub parts: Vec<(usize, Option<Table>)>,
}

impl Concat {
    /// Writes part `index`; `input` may be a single run, for all.
    pub fn run_part<F: Family>(&self, index: usize, input: &[i8], out: &mut [i8]) {
        let stride: usize = self.parts.iter().map(|(run, _)| run).sum();
        let before: usize = self.parts[..index].iter().map(|(run, _)| run).sum();
        let (run, table) = &self.parts[index];
        for (input, out) in input.chunks_exact(*run).cycle().zip(out.chunks_exact_mut(stride)) {
            let out = &mut out[before..][..*run];
            match table {
                None => out.copy_from_slice(input),
                Some(table) => table.run::<F>(input, out),
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
        fn transposing_puts_every_value_in_its_place(rows in 1..40usize, columns in 1..40usize) {
            let from: Vec<u32> = (0..rows * columns).map(|i| (i % rows * columns + i / rows) as u32).collect();
            let input: Vec<i8> = (0..rows * columns).map(|i| (i * 37 + i / 256) as i8).collect();
            let wanted: Vec<i8> = from.iter().map(|i| input[*i as usize]).collect();
            let gather = Gather::new(from, None);
            prop_assert_eq!(gather.bytes(), 0, "nothing need be looked up");
            let mut out = vec![0; input.len()];
            gather.run(&input, &mut out);
            prop_assert_eq!(wanted, out);
        }

        #[test]
        fn any_order_is_followed(from in prop::collection::vec(0..50u32, 1..100)) {
            let input: Vec<i8> = (0..50).collect();
            let mut out = vec![0; from.len()];
            let order = Order::Any(from.clone());
            Gather { order, table: None }.run(&input, &mut out);
            prop_assert!(from.iter().zip(out).all(|(from, out)| *from == out as u32));
        }
    }
}
