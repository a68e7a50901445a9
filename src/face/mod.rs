//! From pictures to what the face in them shows.
//!
//! A picture goes through the [`detector`] (where is a face), the [`tracker`] (whose is it, and where is it in the
//! pictures the detector does not see), the [`crop`] (the face, upright and framed as in training) and the [`encoder`]
//! (which expression). [`FaceStage`] is the whole.

pub mod crop;
pub mod detector;
pub mod encoder;
pub mod geometry;
pub mod stage;
pub mod template;
pub mod tracker;

pub use encoder::{EXPRESSIONS, Expressions};
pub use stage::{FaceObservation, FaceStage, Look};
