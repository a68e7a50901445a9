//! Matrix products of s16 rows and s8 weights.

#[cfg(target_arch = "x86_64")]
pub mod avx2_6x16;
