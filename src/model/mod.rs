//! The trained graphs: which they are ([`bundle`]), what runs them ([`engine`]: our integers in [`int8`], or tract), and
//! one of them loaded for a stage ([`session`]).

pub mod bundle;
pub mod engine;
pub mod int8;
pub mod session;

pub use bundle::{Bundle, GraphName, Location, ModelError};
pub use session::Session;
