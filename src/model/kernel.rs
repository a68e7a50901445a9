//! The choice of kernels for int8 graphs.

use super::int8::Isa;

/// Forces a [`KernelChoice`], for comparisons. `main` reads it.
pub const KERNEL_VARIABLE: &str = "AFFECTD_KERNEL";

/// Which kernels run int8 graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelChoice {
    /// No integer kernels: tract runs the whole graph in f32.
    Tract,
    Int8(Isa),
}

/// A name that is not among the choices of this processor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{KERNEL_VARIABLE}={name}: this processor runs {} or tract", choices())]
pub struct UnknownKernel {
    name: String,
}

fn choices() -> String {
    let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    names.join(", ")
}

impl KernelChoice {
    /// The fastest kernels of this processor; tract if it has none but the reference.
    pub fn fastest() -> KernelChoice {
        Isa::fastest().map_or(KernelChoice::Tract, KernelChoice::Int8)
    }

    /// The value of [`KERNEL_VARIABLE`]: `tract`, or a name that `affectd bench` shows. Empty means the fastest.
    pub fn parse(name: &str) -> Result<KernelChoice, UnknownKernel> {
        match name {
            "" => Ok(KernelChoice::fastest()),
            "tract" => Ok(KernelChoice::Tract),
            name => Isa::named(name)
                .map(KernelChoice::Int8)
                .ok_or_else(|| UnknownKernel { name: name.into() }),
        }
    }
}
