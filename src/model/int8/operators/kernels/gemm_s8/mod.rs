//! Matrix products of s8 rows and s8 weights.

#[cfg(target_arch = "aarch64")]
pub mod neon_4x8;
#[cfg(target_arch = "aarch64")]
pub mod neon_dot_8x8;
#[cfg(target_arch = "aarch64")]
pub mod neon_i8mm_8x8;
