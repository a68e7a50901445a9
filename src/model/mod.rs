//! The trained models: the files ([`bundle`]), what runs them ([`engine`], in integers through [`int8`] or in tract), the choice of
//! kernels ([`kernel`]), and one loaded graph for a stage ([`session`]).

pub mod bundle;
pub mod engine;
pub mod int8;
pub mod kernel;
pub mod session;

pub use bundle::{Bundle, GraphName, Location, ModelError};
pub use kernel::KernelChoice;
pub use session::Session;
