//! The output of the face stage.

use std::time::{Duration, Instant};

use super::geometry::{Landmarks, Rect};

/// The expressions that the encoder distinguishes, in the order of its scores. They are the eight of FER+.
pub const EXPRESSIONS: [&str; 8] = [
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
];

const CONTEMPT: usize = 7;

/// The probability of each of [`EXPRESSIONS`], 0..1. They sum to one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expressions(pub [f32; EXPRESSIONS.len()]);

/// What the face encoder sees in a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appearance {
    /// The expression, as the annotators of FER+ vote.
    pub votes: Expressions,
    /// The expression, as networks trained on AffectNet see it.
    pub shown: Expressions,
    /// Valence, about −1..1, as people rate faces.
    pub valence: f32,
    /// Arousal, about −1..1, as people rate faces.
    pub arousal: f32,
}

impl Appearance {
    /// The expression that affectd reports: the mean of both opinions. Contempt has the larger probability of both, because
    /// annotators of FER+ hardly ever vote for it, and a mean would never have it on top.
    pub fn expressions(&self) -> Expressions {
        let Appearance { votes, shown, .. } = self;
        let mut merged = votes.0;
        for (merged, shown) in merged.iter_mut().zip(shown.0) {
            *merged = (*merged + shown) / 2.0;
        }
        merged[CONTEMPT] = votes.0[CONTEMPT].max(shown.0[CONTEMPT]);
        let sum: f32 = merged.iter().sum();
        Expressions(merged.map(|p| p / sum))
    }
}

/// What a drawing of the face needs besides its box.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaceOutline {
    /// As fractions of the image. Those of a face at its edge may be outside of 0..1.
    pub landmarks: Landmarks,
    /// The width of the image over its height.
    pub image_aspect: f32,
}

/// The subject's face in one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceObservation {
    /// Capture time of the frame on the source's clock.
    pub at: Duration,
    /// The same moment on this machine's monotonic clock.
    pub captured: Instant,
    /// Time since the frame that was analysed before; zero for the first.
    pub frame_interval: Duration,
    /// The id of the face. It stays the same while the tracker follows the face.
    pub id: u32,
    /// The face's box as fractions of the image, clipped at its edges.
    pub bounds: Rect,
    /// The detector's score at the last detection, 0..1.
    pub score: f32,
    pub appearance: Appearance,
    pub outline: FaceOutline,
}
