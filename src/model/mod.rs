//! The trained models: the files ([`bundle`]), what runs them ([`engine`]: tract, with integer operators from [`int8`]), the choice of
//! kernels ([`kernel`]), and one loaded graph for a stage ([`session`]).

pub mod bundle;
pub mod engine;
pub mod int8;
pub mod kernel;
pub mod session;

pub use bundle::{Bundle, GraphName, Location, ModelError};
pub use kernel::{KernelChoice, UnknownKernel};
pub use session::Session;
