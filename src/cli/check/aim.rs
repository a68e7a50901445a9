//! What a person needs to know to aim a camera: is the face large enough, in good light, and seen from the front?

use serde::Serialize;

use crate::capture::Luma;
use crate::face::FaceStage;
use crate::face::crop::SIDE;
use crate::face::geometry::{Face, Landmarks, Rect};

/// The detector finds faces that span at least this part of the longer side of the frame.
const SMALLEST_PART: f32 = 1.0 / 12.0;
/// A face with a lower mean, 0..1, has too little light.
const DARK: f32 = 0.2;
/// A face with a higher mean has too much.
const BRIGHT: f32 = 0.8;
/// Pixels from this value on are white, whatever was there.
const WHITE: u8 = 250;
/// With a larger share of white pixels, the face has lost its features.
const MAX_WHITE_SHARE: f32 = 0.25;
/// The nose of a head that faces the camera is in the middle between the eyes. It may be away from there by this share of the eyes'
/// distance.
const MAX_NOSE_OFFSET: f32 = 0.35;

/// How the camera sees the subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Aim {
    /// The mean of the face, or of the whole frame without one: 0 black to 1 white.
    pub brightness: f64,
    pub light: Light,
    /// `None` if no face is found.
    pub face: Option<FaceAim>,
    /// The value of `camera.rotate` that makes a face upright; `None` if it is, or if no turn shows one.
    pub rotate: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Light {
    Good,
    Dark,
    Bright,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaceAim {
    pub width_px: u32,
    pub height_px: u32,
    /// The width that the models need.
    pub needed_px: u32,
    /// The head faces the camera.
    pub frontal: bool,
    /// The detector's certainty, 0 to 1.
    pub score: f64,
}

impl Aim {
    /// `image` is upright, and `stage` has processed it.
    pub fn of(image: &Luma, stage: &FaceStage) -> Aim {
        let subject = stage.subject();
        let whole = Rect {
            x: 0.0,
            y: 0.0,
            w: image.width() as f32,
            h: image.height() as f32,
        };
        let (mean, white) = brightness(image, subject.map_or(whole, |face| face.bounds));
        Aim {
            brightness: hundredths(mean),
            light: match mean {
                _ if mean < DARK => Light::Dark,
                _ if mean > BRIGHT || white > MAX_WHITE_SHARE => Light::Bright,
                _ => Light::Good,
            },
            face: subject.map(|face| FaceAim::of(&face, image, stage.crop_side(&face.landmarks))),
            rotate: None,
        }
    }

    /// What is wrong, most important first, with what to do. Empty if the camera is aimed well.
    pub fn advice(&self) -> Vec<String> {
        if let Some(rotate) = self.rotate {
            // The rest may be wrong: the models know upright faces only.
            return vec![format!(
                "the face in view is not upright: set rotate = {rotate} under [camera]"
            )];
        }
        let mut advice = Vec::new();
        match &self.face {
            None => advice.push("no face in view: face the camera, within two metres and in good light".to_owned()),
            Some(face) => {
                if !face.is_large_enough() {
                    advice.push(format!(
                        "the face is {} pixels wide, and the models need {}: come closer",
                        face.width_px, face.needed_px
                    ));
                }
                if !face.frontal {
                    advice.push(
                        "the head is turned away: face the camera, or move the camera in front of the person"
                            .to_owned(),
                    );
                }
            }
        }
        let percent = (self.brightness * 100.0).round();
        match self.light {
            Light::Good => {}
            Light::Dark => advice.push(format!(
                "too dark (brightness {percent} %): put a light in front of the person"
            )),
            Light::Bright => advice.push(format!(
                "too bright (brightness {percent} %): dim the light, or turn the camera away from windows and lamps"
            )),
        }
        advice
    }
}

impl FaceAim {
    /// `crop_side` is the side of the square in the image that the encoder sees.
    fn of(face: &Face, image: &Luma, crop_side: f32) -> FaceAim {
        let longer = image.width().max(image.height()) as f32;
        // The encoder's crop must not be stretched.
        let for_encoder = SIDE as f32 * face.bounds.w / crop_side;
        FaceAim {
            width_px: pixels(face.bounds.w),
            height_px: pixels(face.bounds.h),
            needed_px: pixels((longer * SMALLEST_PART).max(for_encoder).ceil()),
            frontal: is_frontal(&face.landmarks),
            score: hundredths(face.score),
        }
    }

    pub fn is_large_enough(&self) -> bool {
        self.width_px >= self.needed_px
    }
}

/// Rounded, and short in JSON.
fn hundredths(value: f32) -> f64 {
    (f64::from(value) * 100.0).round() / 100.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and images are smaller"
)]
fn pixels(length: f32) -> u32 {
    length.round() as u32
}

/// Whether the nose is between the eyes, along the line through them.
fn is_frontal(landmarks: &Landmarks) -> bool {
    let (right, left) = (landmarks.right_eye, landmarks.left_eye);
    let eyes = right.distance(left).max(1.0);
    let middle = right.midway(left);
    let along = ((left.x - right.x) / eyes, (left.y - right.y) / eyes);
    let offset = (landmarks.nose.x - middle.x) * along.0 + (landmarks.nose.y - middle.y) * along.1;
    offset.abs() / eyes <= MAX_NOSE_OFFSET
}

/// The mean, 0..1, and the share of white pixels of a part of the image.
fn brightness(image: &Luma, part: Rect) -> (f32, f32) {
    let range = |start: f32, length: f32, limit: u32| {
        let from = pixels(start.max(0.0)).min(limit - 1);
        let until = pixels((start.max(0.0) + length).max(0.0)).clamp(from + 1, limit);
        from as usize..until as usize
    };
    let columns = range(part.x, part.w, image.width());
    let rows = range(part.y, part.h, image.height());
    let (mut sum, mut white, mut count) = (0u64, 0u64, 0u64);
    for row in image.rows(rows) {
        for pixel in &row[columns.clone()] {
            sum += u64::from(*pixel);
            white += u64::from(*pixel >= WHITE);
            count += 1;
        }
    }
    let count = count.max(1) as f32;
    (sum as f32 / count / 255.0, white as f32 / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::clip::Clip;
    use crate::capture::orientation::Orientation;
    use crate::capture::{FramePayload, VideoFrame};
    use crate::face::geometry::Point;
    use crate::face::stage::FaceSettings;
    use crate::model::{Bundle, KernelChoice};
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// How a camera sees the face in the demo clip, with changed pixels.
    fn aim(change: impl Fn(u8) -> u8) -> Aim {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.mkv");
        let bundle = Bundle::open(None, KernelChoice::fastest()).unwrap();
        let settings = FaceSettings {
            orientation: Orientation::default(),
            rate_hz: 10.0,
            detect_every: Duration::ZERO,
            min_score: 0.5,
        };
        let mut stage = FaceStage::load(&bundle, settings).unwrap();
        let frame = Clip::open(&demo).unwrap().video.unwrap().next_frame().unwrap().unwrap();
        let image = frame.payload.into_luma().unwrap();
        let changed = image.as_slice().iter().map(|pixel| change(*pixel)).collect();
        let image = Luma::new(image.width(), image.height(), changed).unwrap();
        for at in [0, 200] {
            let frame = VideoFrame {
                at: Duration::from_millis(at),
                captured: Instant::now(),
                payload: FramePayload::Luma(image.clone()),
            };
            stage.process(frame).unwrap();
        }
        Aim::of(&image, &stage)
    }

    #[test]
    fn a_face_in_good_light_needs_no_advice() {
        let aim = aim(|pixel| pixel);
        assert_eq!(aim.advice(), [] as [&str; 0]);
        let face = aim.face.unwrap();
        assert!(
            face.frontal && face.width_px > face.needed_px && face.score > 0.5,
            "{face:?}"
        );
        assert!((20..=100).contains(&face.needed_px), "{face:?}");
    }

    #[test]
    fn too_little_and_too_much_light_are_named() {
        let dark = aim(|pixel| pixel / 8);
        assert!(
            dark.advice()
                .iter()
                .any(|text| text.starts_with("too dark (brightness ")),
            "{dark:?}"
        );
        let bright = aim(|pixel| pixel.saturating_add(160));
        assert!(
            bright
                .advice()
                .iter()
                .any(|text| text.starts_with("too bright (brightness ")),
            "{bright:?}"
        );
        let black = aim(|_| 0);
        assert_eq!((black.light, &black.face), (Light::Dark, &None));
        assert!(black.advice()[0].starts_with("no face in view"), "{black:?}");
    }

    #[test]
    fn a_face_that_is_not_upright_is_named_with_the_setting() {
        let aim = Aim {
            brightness: 0.1,
            light: Light::Dark,
            face: None,
            rotate: Some(180),
        };
        assert_eq!(
            aim.advice(),
            ["the face in view is not upright: set rotate = 180 under [camera]"]
        );
    }

    #[test]
    fn a_small_or_turned_face_is_named_with_what_the_models_need() {
        let image = Luma::new(640, 480, vec![128; 640 * 480]).unwrap();
        let point = |x, y| Point { x, y };
        let landmarks = Landmarks {
            right_eye: point(310.0, 200.0),
            left_eye: point(330.0, 200.0),
            nose: point(329.0, 208.0),
            mouth: point(320.0, 220.0),
            ..Landmarks::default()
        };
        let face = Face {
            bounds: Rect {
                x: 300.0,
                y: 190.0,
                w: 40.0,
                h: 40.0,
            },
            score: 0.9,
            landmarks,
        };
        let face = FaceAim::of(&face, &image, 40.0);
        assert_eq!((face.width_px, face.needed_px, face.frontal), (40, 54, false));
        let aim = Aim {
            brightness: 0.5,
            light: Light::Good,
            face: Some(face),
            rotate: None,
        };
        insta::assert_snapshot!(aim.advice().join("; "), @"the face is 40 pixels wide, and the models need 54: come closer; the head is turned away: face the camera, or move the camera in front of the person");
    }
}
