//! Element-wise sums and products.

use proptest::prelude::*;

use super::super::arithmetic::{Operation, Pairwise};
use super::super::kernels::Microkernels;
use super::{Checked, bounds, bytes, for_each_isa};

fn check_pairs<M: Microkernels>(pairwise: Pairwise, left: &[i8], right: &[i8]) -> Checked {
    let mut out = vec![0; left.len()];
    pairwise.run::<M>(left, right, &mut out);
    let centred = |q: i8, side: usize| (i32::from(q) - pairwise.zero_points[side]) as f32;
    for (i, out) in out.iter().enumerate() {
        let (l, r) = (centred(left[i], 0), centred(right[i % right.len()], 1));
        let expected = match pairwise.operation {
            Operation::Add { factors: [a, b] } => l * a + r * b,
            Operation::Multiply { factor } => l * r * factor,
        };
        prop_assert_eq!(pairwise.bounds.round(expected), *out);
    }
    let mut replaced = left.to_vec();
    pairwise.run_in_place::<M>(&mut replaced, right);
    prop_assert_eq!(replaced, out);
    Ok(())
}

proptest! {
    #[test]
    fn sums_and_products_of_tensors_equal_the_definition(
        (left, right) in (1..5usize, prop_oneof![1..40usize, 1000..2100usize]).prop_flat_map(|(times, n)| (bytes(times * n), bytes(n))),
        zero_points in [-128i32..=127, -128i32..=127],
        bounds in bounds(),
        multiply in any::<bool>(),
        factors in [1e-4f32..10.0, 1e-4f32..10.0],
    ) {
        let operation = match multiply {
            true => Operation::Multiply { factor: factors[0] },
            false => Operation::Add { factors },
        };
        let pairwise = Pairwise { operation, zero_points, bounds };
        for_each_isa!(check_pairs(pairwise, &left, &right));
    }
}
