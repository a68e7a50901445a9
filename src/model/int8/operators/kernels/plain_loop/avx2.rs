//! Plain loops that the compiler vectorizes with AVX2.

use super::super::PlainLoop;

/// [`Microkernels::vectorized`](super::super::Microkernels::vectorized).
pub fn vectorized<L: PlainLoop>(plain: L) {
    #[target_feature(enable = "avx2")]
    fn call<L: PlainLoop>(plain: L) {
        plain.run();
    }
    // SAFETY: `Isa` detected AVX2.
    unsafe { call(plain) }
}
