//! Moving values without computing: transposition, reshaping, concatenation.

use super::kernels::Family;
use super::pointwise::Table;

/// Any rearrangement of one tensor: where each output value comes from, and `table` for a change of scale.
#[derive(Debug, Clone)]
pub struct Gather {
    pub from: Vec<u32>,
    pub table: Option<Table>,
}

impl Gather {
    pub fn run(&self, input: &[i8], out: &mut [i8]) {
        match &self.table {
            None => out
                .iter_mut()
                .zip(&self.from)
                .for_each(|(out, i)| *out = input[*i as usize]),
            Some(table) => out
                .iter_mut()
                .zip(&self.from)
                .for_each(|(out, i)| *out = table.at(input[*i as usize])),
        }
    }
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
