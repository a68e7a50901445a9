//! The status page: what affectd does at this moment, for a browser, for Prometheus, and for whoever steers it by HTTP.
//!
//! A thread of its own serves it with one small asynchronous runtime. The pipeline only puts estimates into a queue that drops the
//! oldest, and never waits for the page or its clients. With nobody watching, the thread wakes once an estimate and adds it to
//! the history of ten minutes.
//!
//! ```text
//! request ─▶ connections (limits) ─▶ guard (host, origin, token) ─▶ routes ─▶ page, events, metrics, readiness, commands
//! ```
//!
//! Without the cargo feature `status`, only the settings remain, and a configured address is an error.

mod context;
mod error;
mod feed;
mod settings;

#[cfg(feature = "status")]
mod accept;
#[cfg(feature = "status")]
mod bitmap;
#[cfg(feature = "status")]
mod body;
#[cfg(feature = "status")]
mod connections;
#[cfg(feature = "status")]
mod events;
#[cfg(feature = "status")]
mod guard;
#[cfg(feature = "status")]
mod history;
#[cfg(feature = "status")]
mod impatient;
#[cfg(feature = "status")]
mod metrics;
#[cfg(feature = "status")]
mod page;
#[cfg(feature = "status")]
mod readiness;
#[cfg(feature = "status")]
mod routes;
#[cfg(feature = "status")]
mod serve;
#[cfg(feature = "status")]
mod server;
#[cfg(feature = "status")]
mod state;
#[cfg(feature = "status")]
mod token;

#[cfg(not(feature = "status"))]
#[path = "absent.rs"]
mod server;

pub use context::{ModelName, OutputProbe, OutputState, StatusContext};
pub use error::StatusError;
pub use feed::StatusFeed;
pub use server::{PreparedPage, StatusPage};
pub use settings::{HostName, Preview, StatusSettings, parse_listen};
