//! Depthwise convolutions of u8 rows with s8 weights.

#[cfg(target_arch = "x86_64")]
pub mod avx512_vnni;
