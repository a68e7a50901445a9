//! From observations of face and voice to valence and arousal.
//!
//! In: [`FaceObservation`](crate::face::FaceObservation)s at any rate, and one
//! [`VoiceObservation`](crate::voice::VoiceObservation) per tick. Out: one [`Estimate`] per tick, with valence and arousal in
//! −1..1 and confidence in 0..1.
//!
//! The [`timeline`] aligns the observations by their capture time, in eight steps. The [`estimator`] runs the joint
//! cross-attention network (Praveen et al. 2022, arXiv 2203.14779) over them. The [`baseline`] subtracts the person's resting
//! expression, and [`smoothing`] averages the estimates over time.

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
