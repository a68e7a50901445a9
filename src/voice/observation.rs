//! The output of the voice stage.

use std::time::Instant;

/// Length of an [`Embedding`].
pub const EMBEDDING_LEN: usize = 64;

/// The voice encoder's output for one second of audio.
pub type Embedding = [f32; EMBEDDING_LEN];

/// The voice at one tick, from the audio up to then.
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceObservation {
    /// Capture time of the newest sample received so far, on this machine's monotonic clock.
    pub captured: Instant,
    /// Whether there was speech since the previous tick.
    pub active: bool,
    /// Root mean square level since the previous tick, in dB relative to full scale. `None` for digital silence.
    pub level_db: Option<f32>,
    /// The embedding of the last second of audio. `None` if there was too little speech.
    pub embedding: Option<Embedding>,
}
