//! Loops in plain Rust that the compiler vectorizes.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
