//! affectd: valence and arousal from a camera and a microphone, on the board itself.
//!
//! This library exists for the program `affectd` and its tests. **It has no stable API**: anything may change in any
//! release. The README lists what stays stable: commands, exit codes, configuration and messages.
//!
//! Each module does one part of the work between the devices and the outputs:
//!
//! ```text
//! capture ─ frames ───────▶ face ───┐
//!                                   ├─▶ fusion ─▶ output
//! capture ─ audio blocks ─▶ voice ──┘
//! ```
//!
//! [`daemon`] runs them as threads. [`model`] holds the trained graphs. [`config`] reads the user's settings, and [`cli`] has
//! the commands. A module imports from lower layers only. The layers, lowest first: [`sync`]; [`queue`], [`health`], [`control`],
//! [`rate_limited_log`], [`retry`], [`caught_panic`], [`printable`], [`secrets`],
//! [`small_file`] and [`named_thread`]; [`capture`] and
//! [`model`]; [`face`], [`voice`] and [`fusion`]; [`output`]; [`status`]; [`config`]; [`daemon`]; [`monitor`]; [`cli`].

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        reason = "test data is small, and a wrong value fails the test"
    )
)]

pub mod capture;
pub mod caught_panic;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod face;
pub mod fusion;
pub mod health;
pub mod model;
pub mod monitor;
pub mod named_thread;
pub mod output;
pub mod printable;
pub mod privacy;
pub mod queue;
pub mod rate_limited_log;
pub mod retry;
pub mod secrets;
pub mod small_file;
pub mod status;
pub mod sync;
pub mod udev;
pub mod voice;

/// `tests/fuzz`, whose targets need entries that only tests and cargo-fuzz have.
#[cfg(test)]
#[path = "../tests/fuzz/replay.rs"]
mod fuzz;
#[cfg(test)]
extern crate self as affectd;
