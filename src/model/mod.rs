//! The trained graphs: which they are ([`bundle`]) and how they are run ([`session`]).

pub mod bundle;
pub mod session;

pub use bundle::{Bundle, GraphName, ModelError};
pub use session::Session;
