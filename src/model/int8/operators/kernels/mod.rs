//! The inner loops, one implementation of [`Microkernels`] per instruction set.
//!
//! A kernel computes tiles of matrix products, pixels of a depthwise convolution, and requantization. Everything around it
//! (packing, borders, loops over tiles) exists once, in the operators above. A folder is an operation with its types, and
//! a file an instruction set with the rows and columns of its tile: `gemm_u8s8/avx2_4x16.rs` multiplies u8 rows by s8 weights with AVX2,
//! 4 rows by 16 columns at a time. `avx2.rs` and its neighbours choose the kernels of one instruction set.
//!
//! All implementations give the same bits as [`reference`]. Choose one through [`Isa`], which detects the processor's instruction sets.

mod add_s8;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
pub mod avx_vnni;
mod depthwise_s8;
mod depthwise_u8s8;
mod gemm_s16s8;
mod gemm_s8;
mod gemm_u8s8;
mod isa;
mod look_up_s8;
mod microkernels;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "aarch64")]
pub mod neon_dot;
#[cfg(target_arch = "aarch64")]
mod neon_i16_products;
#[cfg(target_arch = "aarch64")]
pub mod neon_i8mm;
pub mod peak;
mod plain_loop;
pub mod reference;
mod requantize_s32;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use isa::Isa;
pub(crate) use isa::with_microkernels;
pub use microkernels::{Microkernels, PlainLoop};
