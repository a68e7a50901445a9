//! From audio blocks to an embedding of the voice.
//!
//! In: mono samples in −1..1 at 16 kHz, in blocks of any length. Out: one [`VoiceObservation`] per tick, with the level, the
//! voice activity, and a 64-value embedding of the last second if there was enough speech.
//!
//! Samples pass through [`activity`] (is somebody speaking) and [`mel`] (the log-mel spectrogram) as they arrive. On each tick
//! the [`encoder`] turns the last second into an embedding. [`VoiceStage`] combines them.

pub mod activity;
pub mod encoder;
pub mod mel;
pub mod observation;
mod segment;
pub mod stage;

pub use observation::{EMBEDDING_LEN, Embedding, VoiceObservation};
pub use stage::VoiceStage;
