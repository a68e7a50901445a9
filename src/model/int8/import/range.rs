//! The smallest value that a step can produce. Rows without negative values have faster kernels.

use super::super::operators::elementwise::Table;
use super::super::step::{Activation, Operand, Step, Target};

impl Step {
    /// A lower bound of this step's results, given the activations that it reads.
    pub fn minimum(&self, activations: &[Activation]) -> i8 {
        let of = |slot: &usize| activations[*slot].minimum;
        let through = |table: &Option<Table>, minimum: i8| {
            table.as_ref().map_or(minimum, |table| minimum_through(table, minimum))
        };
        match self {
            Step::Convolution {
                out: Target::Slot(_, bounds),
                ..
            }
            | Step::Linear {
                out: Target::Slot(_, bounds),
                ..
            }
            | Step::MatMul {
                out: Target::Slot(_, bounds),
                ..
            }
            | Step::Depthwise { bounds, .. }
            | Step::Grouped { bounds, .. } => bounds.low as i8,
            Step::Pairwise { op, .. } => op.bounds.low as i8,
            Step::AveragePool { op, .. } => op.bounds.low as i8,
            Step::Table { op, input, .. } => minimum_through(op, of(input)),
            Step::MaxPool { op, input, .. } => match op.window.always_inside() {
                true => through(&op.table, of(input)),
                false => through(&op.table, i8::MIN),
            },
            Step::Gather { op, input, .. } => through(&op.table, of(input)),
            Step::Concat { op, inputs, .. } => {
                let minimums = inputs.iter().zip(&op.parts).map(|(input, part)| {
                    let minimum = match input {
                        Operand::Slot(slot) => of(slot),
                        Operand::Constant(values) => values.iter().copied().min().unwrap_or(i8::MAX),
                    };
                    through(&part.table, minimum)
                });
                minimums.min().unwrap_or(i8::MIN)
            }
            _ => i8::MIN,
        }
    }
}

/// The smallest entry of the table for values of `minimum` and above.
fn minimum_through(table: &Table, minimum: i8) -> i8 {
    (minimum..=i8::MAX).map(|q| table.at(q)).min().unwrap_or(i8::MIN)
}
