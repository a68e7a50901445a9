//! Tables of 256 entries.

#[cfg(target_arch = "aarch64")]
pub mod neon;
