//! Destinations for estimates: serial line, MQTT, file, standard output.
//!
//! [`spec`] parses what the user named; each kind of [`Output`] has its own module. Every output runs on a thread of its own
//! behind a bounded queue, so a slow or dead output never delays another.

pub mod commands;
pub mod contract;
pub mod csv;
pub mod estimate;
pub mod estimate_rate;
pub mod file;
pub mod line_encoder;
pub mod mqtt;
mod options;
mod place;
pub mod serial;
pub mod spec;
pub mod stdout;
pub mod wall_clock;
pub mod wire;

pub use contract::{Backlog, HostIdentity, Output, OutputContext, OutputError};
pub use spec::{Conflict, OutputSpec};
