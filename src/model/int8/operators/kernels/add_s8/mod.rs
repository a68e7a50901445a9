//! Sums of two s8 tensors.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
