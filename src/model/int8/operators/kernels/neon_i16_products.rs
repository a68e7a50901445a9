//! How many products of two bytes can be added in 16 bits without overflow.

/// The bits are what the assembly tests.
pub const ONE: i8 = 0b000;
pub const TWO: i8 = 0b010;
pub const FOUR: i8 = 0b110;

/// The most weights that lie side by side.
const MAX_STRIDE: usize = 32;

/// How many products fit. Those that are added in one lane have weights that lie `stride` apart, at most [`MAX_STRIDE`].
pub fn products_that_fit<const NON_NEGATIVE: bool>(stride: usize, weights: &[i8]) -> i8 {
    let fit = |count: usize| {
        weights.chunks(count * stride).all(|run| {
            let (mut positive, mut negative) = ([0; MAX_STRIDE], [0; MAX_STRIDE]);
            let (positive, negative) = (&mut positive[..stride], &mut negative[..stride]);
            for lanes in run.chunks(stride) {
                for ((p, n), w) in positive.iter_mut().zip(&mut *negative).zip(lanes) {
                    let w = i32::from(*w);
                    *p += w.max(0);
                    *n -= w.min(0);
                }
            }
            positive.iter().zip(negative).all(|(p, n)| match NON_NEGATIVE {
                true => *p.max(n) <= 258,
                false => *p + *n <= 255,
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
