//! The operators of affectd, under the same paths as there. Only their tests are built.

#![cfg(test)]

#[path = "../../../src/model/int8/operators/mod.rs"]
pub mod operators;

pub mod model {
    pub mod int8 {
        pub use crate::operators;
    }
}

/// Tells .ci/bochs what the emulated processor has.
#[test]
fn available_kernels() {
    let available = operators::kernels::Isa::available();
    println!("kernels: {available:?}");
    assert_eq!(available.last(), Some(&operators::kernels::Isa::Reference));
}
