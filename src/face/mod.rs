//! From video frames to the expression of the subject's face.
//!
//! In: frames of any size, as JPEG or luma, at any rate. Out: at most [`FaceSettings::rate_hz`](stage::FaceSettings::rate_hz)
//! times per second a [`FaceObservation`] with eight expression probabilities.
//!
//! A frame passes through
//! - the [`finder`], which decides which [`view`] of the frame the [`detector`] (BlazeFace) searches for faces. It runs every few
//!   hundred milliseconds only, and passes over [views that are empty](empty_views);
//! - the [`template`], which follows the subject's face in the frames between;
//! - the [`tracker`], which assigns ids to faces and chooses the subject;
//! - the [`crop`], which cuts out the face, upright and framed as in training: 48 × 48 values in −1..1;
//! - the [`encoder`], which estimates the expression.
//!
//! [`FaceStage`] combines them.

pub mod crop;
pub mod detector;
pub mod empty_views;
pub mod encoder;
pub mod finder;
pub mod geometry;
pub mod observation;
pub mod preview;
pub mod stage;
pub mod template;
pub mod tracker;
pub mod upright;
pub mod view;

pub use observation::{Appearance, EXPRESSIONS, Expressions, FaceObservation, FaceOutline};
pub use preview::FramePreview;
pub use stage::{FaceStage, FrameOutcome};
