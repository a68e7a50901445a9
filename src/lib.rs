//! affectd: valence and arousal from a camera and a microphone, on the board itself.
//!
//! The way of the data, a module a room:
//!
//! ```text
//! capture ─ pictures ─▶ face ──┐
//!                              ├─▶ fusion ─▶ output
//! capture ─ sound ────▶ voice ─┘
//! ```
//!
//! [`daemon`] runs them as threads; [`model`] holds the trained graphs they share; [`config`] and [`cli`] are how a user
//! says what is wanted, [`failure`] how affectd says what is wrong.

pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod face;
pub mod failure;
pub mod fusion;
pub mod health;
pub mod model;
pub mod monitor;
pub mod output;
pub mod queue;
pub mod rate_limited_log;
pub mod retry;
pub mod voice;
