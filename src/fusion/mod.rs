//! From faces and voices to valence and arousal.
//!
//! The [`timeline`] lines observations of both up by their capture time, in eight steps; the [`estimator`] runs the joint
//! cross-attention network over them; the [`baseline`] takes away what is a person's resting face;
//! [`smoothing`] steadies what comes out.

pub mod baseline;
pub mod estimator;
pub mod smoothing;
pub mod stage;
pub mod timeline;

pub use baseline::{Baseline, BaselineMode};
pub use estimator::{Affect, Estimator};
pub use smoothing::Smoother;
pub use stage::{Estimate, FusionSettings, FusionStage};
pub use timeline::{Timeline, Window};
