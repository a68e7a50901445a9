//! The inner loops, one implementation of [`Microkernels`] per instruction set.
//!
//! A kernel computes tiles of matrix products, pixels of a depthwise convolution, and requantization. Everything around it
//! (packing, borders, loops over tiles) exists once, in the operators above. File names give the operation, the types and the
//! instruction set: `avx2/gemm_u8s8.rs` multiplies u8 rows by s8 weights with AVX2.
//!
//! All implementations give the same bits as [`reference`]. Choose one through [`Isa`], which detects the processor's instruction sets.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
pub mod avx_vnni;
mod isa;
mod microkernels;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "aarch64")]
pub mod neon_dot;
pub mod peak;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use isa::Isa;
pub(crate) use isa::with_microkernels;
pub use microkernels::{Microkernels, PlainLoop};
