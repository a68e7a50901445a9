//! Matrix products of u8 rows and s8 weights.

#[cfg(target_arch = "x86_64")]
pub mod avx2_4x16;
#[cfg(target_arch = "x86_64")]
pub mod avx512_vnni_12x32;
#[cfg(target_arch = "x86_64")]
pub mod avx_vnni_6x16;
