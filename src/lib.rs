//! affectd: valence and arousal from a camera and a microphone, on the board itself.
//!
//! This library is the inside of the program `affectd` and of its tests. **It has no stable API**: anything here may change
//! in any release. What users can rely on is listed in the README: commands, exit codes, configuration and messages.
//!
//! Each module has one part of the way from the devices to the outputs:
//!
//! ```text
//! capture ─ frames ───────▶ face ───┐
//!                                   ├─▶ fusion ─▶ output
//! capture ─ audio blocks ─▶ voice ──┘
//! ```
//!
//! [`daemon`] runs them as threads. [`model`] holds the trained graphs. [`config`] is what the user sets, [`cli`] the
//! commands. A module imports from lower layers only. From the lowest: [`queue`], [`health`], [`control`],
//! [`rate_limited_log`] and [`retry`]; [`capture`] and [`model`]; [`face`], [`voice`] and [`fusion`]; [`output`];
//! [`config`]; [`daemon`]; [`monitor`]; [`cli`].

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        reason = "test data is small, and a wrong value fails the test"
    )
)]

pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod face;
pub mod fusion;
pub mod health;
pub mod model;
pub mod monitor;
pub mod output;
pub mod queue;
pub mod rate_limited_log;
pub mod retry;
pub mod udev;
pub mod voice;
