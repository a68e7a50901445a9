//! Whole graphs, compared with tract.

mod fallback;
mod graphs;
mod sketch;
