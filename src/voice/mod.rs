//! From sound to what the voice in it carries.
//!
//! Samples go through [`activity`] (is somebody speaking) and [`mel`] (the log-mel spectrogram), both as they come; on
//! every tick the [`encoder`] turns the last second into an embedding, if there was speech in it. [`VoiceStage`] is the
//! whole.

pub mod activity;
pub mod encoder;
pub mod mel;
pub mod stage;

pub use encoder::{EMBEDDING, Embedding};
pub use stage::{VoiceObservation, VoiceStage};
