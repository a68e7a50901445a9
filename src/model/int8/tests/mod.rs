//! Whole graphs, compared with tract, and broken ones.

mod broken;
mod fallback;
mod graphs;
mod sketch;
