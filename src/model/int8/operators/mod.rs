//! Operators on 8-bit tensors, and the kernels that compute them.
//!
//! This folder depends on the standard library only. It compiles on its own, without ONNX and without tract: the crate in
//! `.ci/kernels` does just that, so that the property tests also run under AddressSanitizer and in an emulator.
//!
//! Lowest layer first:
//!
//! - [`arithmetic`]: quantization, rounding, saturation. It defines every result.
//! - [`layout`]: the data types that operators and kernels exchange.
//! - [`kernels`]: the inner loops, one implementation per instruction set.
//! - [`gemm`], [`window`] and the operators above them: [`convolution`], [`depthwise`], [`grouped_convolution`],
//!   [`batched_matmul`], [`elementwise`], [`pool`], [`rearrange`].
//!
//! Activations with four dimensions lie channels last (NHWC), all others row-major. The batch size is one.

#![expect(
    clippy::cast_possible_truncation,
    reason = "8-bit arithmetic is the purpose: values are brought into range before each cast, and tests compare every result with the definition"
)]

pub mod arithmetic;
pub mod batched_matmul;
pub mod convolution;
pub mod depthwise;
pub mod elementwise;
pub mod gemm;
pub mod grouped_convolution;
pub mod kernels;
pub mod layout;
pub mod pool;
pub mod rearrange;
pub mod window;

#[cfg(test)]
mod tests;
