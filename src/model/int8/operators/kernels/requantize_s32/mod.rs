//! From 32-bit sums to 8-bit results.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512_vnni;
#[cfg(target_arch = "aarch64")]
pub mod neon;
