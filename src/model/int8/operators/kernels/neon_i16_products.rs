//! How many products of two bytes can be added in 16 bits without overflow.

/// The bits are what the assembly tests.
pub const ONE: i8 = 0b000;
pub const TWO: i8 = 0b010;
pub const FOUR: i8 = 0b110;

/// How many products fit. Those that are added in one lane have weights that lie `stride` apart.
pub fn products_that_fit<const NON_NEGATIVE: bool>(stride: usize, weights: &[i8]) -> i8 {
    let fit = |count: usize| {
        weights.chunks(count * stride).all(|run| {
            (0..stride).all(|lane| {
                let of_lane = run.iter().skip(lane).step_by(stride).map(|w| i32::from(*w));
                let (positive, negative) = of_lane.fold((0, 0), |(p, n), w| (p + w.max(0), n - w.min(0)));
                match NON_NEGATIVE {
                    true => positive.max(negative) <= 258,
                    false => positive + negative <= 255,
                }
            })
        })
    };
    if fit(4) {
        FOUR
    } else if fit(2) {
        TWO
    } else {
        ONE
    }
}
