//! How small the values that a step leaves can be: what is never negative has faster kernels.

use super::super::pointwise::Table;
use super::super::program::{Activation, Operand, Step, Target};

impl Step {
    /// No value this step leaves is below this, given the activations it reads.
    pub(super) fn least(&self, activations: &[Activation]) -> i8 {
        let of = |slot: &usize| activations[*slot].least;
        let through = |table: &Option<Table>, least: i8| table.as_ref().map_or(least, |table| least_from(table, least));
        match self {
            Step::Convolution {
                out: Target::Slot(_, bounds),
                ..
            }
            | Step::Linear {
                out: Target::Slot(_, bounds),
                ..
            }
            | Step::Product {
                out: Target::Slot(_, bounds),
                ..
            }
            | Step::Depthwise { bounds, .. }
            | Step::Grouped { bounds, .. } => bounds.low as i8,
            Step::Pairwise { op, .. } => op.bounds.low as i8,
            Step::AveragePool { op, .. } => op.bounds.low as i8,
            Step::Table { op, input, .. } => least_from(op, of(input)),
            Step::MaxPool { op, input, .. } => match op.window.always_sees() {
                true => through(&op.table, of(input)),
                false => through(&op.table, i8::MIN),
            },
            Step::Gather { op, input, .. } => through(&op.table, of(input)),
            Step::Concat { op, inputs, .. } => {
                let leasts = inputs.iter().zip(&op.parts).map(|(input, (_, table))| {
                    let least = match input {
                        Operand::Slot(slot) => of(slot),
                        Operand::Constant(values) => values.iter().copied().min().unwrap_or(i8::MAX),
                    };
                    through(table, least)
                });
                leasts.min().unwrap_or(i8::MIN)
            }
            _ => i8::MIN,
        }
    }
}

/// The smallest entry for values of `least` and above.
fn least_from(table: &Table, least: i8) -> i8 {
    (least..=i8::MAX).map(|q| table.at(q)).min().unwrap_or(i8::MIN)
}
