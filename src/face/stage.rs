//! The `face` thread's work, picture by picture.

use std::time::{Duration, Instant};

use crate::capture::{Luma, VideoFrame};
use crate::model::{Bundle, GraphName, ModelError};

use super::crop::Framing;
use super::detector::Detector;
use super::encoder::{Encoder, Expressions};
use super::geometry::{Face, Rect};
use super::template::Template;
use super::tracker::{Track, Tracker};

/// What one picture showed of the subject.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceObservation {
    pub at: Duration,
    pub captured: Instant,
    pub id: u32,
    /// The face's box as fractions of the picture, cut at its edges.
    pub bounds: Rect,
    /// Detector confidence when it was last detected, 0..1.
    pub score: f32,
    pub expressions: Expressions,
}

/// What became of one picture.
#[derive(Debug)]
pub enum Look {
    Face(FaceObservation),
    NoFace,
    /// Not looked at, to keep to the configured rate.
    NotDue,
    /// Could not be decoded; why.
    Broken(String),
}

/// How often to look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceSettings {
    /// Pictures looked at per second, at most.
    pub rate_hz: f32,
    /// The detector runs at least this often; between, the subject is followed.
    pub detect_every: Duration,
    /// Faces the detector is less sure of do not count, 0..1.
    pub min_score: f32,
}

/// How the subject is followed until the next detection.
struct Hold {
    template: Template,
    id: u32,
    detected: Duration,
}

pub struct FaceStage {
    detector: Detector,
    encoder: Encoder,
    framing: Framing,
    tracker: Tracker,
    settings: FaceSettings,
    hold: Option<Hold>,
    due: Duration,
    detections: u64,
}

impl FaceStage {
    pub fn load(bundle: &Bundle, settings: FaceSettings) -> Result<FaceStage, ModelError> {
        Ok(FaceStage {
            detector: Detector::load(bundle, settings.min_score)?,
            encoder: Encoder::load(bundle)?,
            framing: bundle.preprocessing(GraphName::FaceEncoder)?,
            tracker: Tracker::default(),
            settings,
            hold: None,
            due: Duration::ZERO,
            detections: 0,
        })
    }

    /// Pictures looked at a second, at most.
    pub fn rate_hz(&self) -> f32 {
        self.settings.rate_hz
    }

    /// Looks at this many pictures a second from now on, at most.
    pub fn set_rate_hz(&mut self, rate_hz: f32) {
        self.settings.rate_hz = rate_hz;
    }

    /// How often the detector has run.
    pub fn detections(&self) -> u64 {
        self.detections
    }

    /// Looks at the next picture, if it is time to.
    pub fn look(&mut self, frame: VideoFrame) -> Result<Look, ModelError> {
        let VideoFrame { at, captured, picture } = frame;
        if !self.is_due(at) {
            return Ok(Look::NotDue);
        }
        let image = match picture.into_luma() {
            Ok(image) => image,
            Err(broken) => return Ok(Look::Broken(broken.to_string())),
        };
        if !self.follow(at, &image) {
            self.detect(at, &image)?;
        }
        let Some(Track { id, face, .. }) = self.tracker.subject() else {
            return Ok(Look::NoFace);
        };
        let crop = self.framing.crop(&image, &face.landmarks);
        Ok(Look::Face(FaceObservation {
            at,
            captured,
            id,
            bounds: as_fractions(face.bounds, &image),
            score: face.score,
            expressions: self.encoder.encode(&crop)?,
        }))
    }

    /// Thins the pictures out to the configured rate, on their own clock.
    fn is_due(&mut self, at: Duration) -> bool {
        // Half a millisecond of grace: containers round times.
        if at + Duration::from_micros(500) < self.due {
            return false;
        }
        let period = Duration::from_secs_f32(1.0 / self.settings.rate_hz);
        self.due += period;
        if self.due <= at {
            self.due = at + period;
        }
        true
    }

    /// Follows the subject without the detector; false if that is not possible or not allowed any longer.
    fn follow(&mut self, at: Duration, image: &Luma) -> bool {
        let (Some(hold), Some(subject)) = (&self.hold, self.tracker.subject()) else {
            return false;
        };
        let fresh = at.saturating_sub(hold.detected) < self.settings.detect_every;
        if !fresh || subject.id != hold.id {
            return false;
        }
        match hold.template.find(image, subject.face.bounds.centre()) {
            Some((dx, dy)) => {
                self.tracker.follow(at, subject.id, subject.face.moved(dx, dy));
                true
            }
            None => false,
        }
    }

    fn detect(&mut self, at: Duration, image: &Luma) -> Result<(), ModelError> {
        self.detections += 1;
        let faces: Vec<Face> = self.detector.detect(image)?;
        self.tracker.update(at, &faces);
        self.hold = self.tracker.subject().and_then(|subject| {
            Some(Hold {
                template: Template::of(image, subject.face.bounds)?,
                id: subject.id,
                detected: at,
            })
        });
        Ok(())
    }
}

fn as_fractions(bounds: Rect, image: &Luma) -> Rect {
    let (width, height) = (image.width() as f32, image.height() as f32);
    let left = (bounds.x / width).clamp(0.0, 1.0);
    let top = (bounds.y / height).clamp(0.0, 1.0);
    Rect {
        x: left,
        y: top,
        w: ((bounds.x + bounds.w) / width).clamp(0.0, 1.0) - left,
        h: ((bounds.y + bounds.h) / height).clamp(0.0, 1.0) - top,
    }
}
