//! Finds out whether a camera is mounted upside down or on its side.

use crate::capture::Luma;
use crate::capture::orientation::{Flip, Orientation, Rotation};
use crate::model::{Bundle, ModelError};

use super::detector::Detector;
use super::geometry::{Face, Rect};
use super::view::View;

/// A turned face counts as the upright one only if its score is higher by this than without the turn: the detector also finds some
/// faces that are upside down.
const CLEARLY_HIGHER: f32 = 0.1;

/// At most this many faces of each turned image are looked at more closely.
const PLACES: usize = 2;

/// The turn after which the face in `image` is upright. `None` if it is upright already, or if no turn shows a face.
///
/// A small face is seen badly in the whole image: its score is low, its landmarks may be turned, and it may be found in only one of
/// the four turned images. So every place where one of them shows a face is looked at closely in all four.
pub fn missing_turn(bundle: &Bundle, min_score: f32, image: &Luma) -> Result<Option<Rotation>, ModelError> {
    let mut detector = Detector::load(bundle, min_score)?;
    let (width, height) = (image.width() as f32, image.height() as f32);
    let turned = Rotation::ALL.map(|rotation| {
        let turn = Orientation {
            rotation,
            flip: Flip::None,
        };
        (rotation, turn.apply(image.clone()))
    });
    let mut places = Vec::new();
    for (rotation, image) in &turned {
        let back = Rotation::from_degrees((360 - rotation.degrees()) % 360).unwrap_or_default();
        let (width, height) = (image.width() as f32, image.height() as f32);
        let faces = detector.detect(image, View::whole(image))?;
        places.extend(
            faces
                .iter()
                .take(PLACES)
                .map(|face| turned_box(face.bounds, back, width, height)),
        );
    }
    let mut best = None;
    let mut unturned = 0.0f32;
    for (rotation, image) in &turned {
        for &place in &places {
            let view = View::around(turned_box(place, *rotation, width, height));
            let Some(face) = detector.detect(image, view)?.into_iter().find(is_upright) else {
                continue;
            };
            match rotation {
                Rotation::None => unturned = unturned.max(face.score),
                _ if best.is_none_or(|(_, score)| score < face.score) => best = Some((*rotation, face.score)),
                _ => {}
            }
        }
    }
    Ok(best.and_then(|(turn, score)| (score > unturned + CLEARLY_HIGHER).then_some(turn)))
}

/// Where a box of an image of this size is after a turn.
fn turned_box(place: Rect, turn: Rotation, width: f32, height: f32) -> Rect {
    let (from_right, from_bottom) = (width - place.x - place.w, height - place.y - place.h);
    let (x, y, w, h) = match turn {
        Rotation::None => (place.x, place.y, place.w, place.h),
        Rotation::Clockwise90 => (from_bottom, place.x, place.h, place.w),
        Rotation::HalfTurn => (from_right, from_bottom, place.w, place.h),
        Rotation::Clockwise270 => (place.y, from_right, place.h, place.w),
    };
    Rect { x, y, w, h }
}

/// Whether the mouth is below the eyes, rather than above or beside them.
fn is_upright(face: &Face) -> bool {
    let landmarks = face.landmarks;
    let eyes_x = (landmarks.left_eye.x + landmarks.right_eye.x) / 2.0;
    let eyes_y = (landmarks.left_eye.y + landmarks.right_eye.y) / 2.0;
    landmarks.mouth.y - eyes_y > (landmarks.mouth.x - eyes_x).abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::clip::Clip;
    use crate::model::KernelChoice;
    use std::path::Path;

    /// The first frame of the demo clip.
    fn portrait() -> Luma {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.mkv");
        let frame = Clip::open(&demo).unwrap().video.unwrap().next_frame().unwrap().unwrap();
        frame.payload.into_luma().unwrap()
    }

    /// `image` in `1 / divisor` of its size on a grey frame of the same size, with its upper left corner at a share of the room.
    fn reduced(image: &Luma, divisor: u32, across: f32, down: f32) -> Luma {
        let (width, height) = (image.width(), image.height());
        let (small_width, small_height) = (width / divisor, height / divisor);
        let left = ((width - small_width) as f32 * across) as u32;
        let top = ((height - small_height) as f32 * down) as u32;
        // A little noise, as a camera has.
        let mut noise = 1u32;
        let mut data: Vec<u8> = (0..width * height)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                110 + (noise >> 29) as u8
            })
            .collect();
        for y in 0..small_height {
            for x in 0..small_width {
                let block = (0..divisor).flat_map(|dy| (0..divisor).map(move |dx| (dx, dy)));
                let sum: u32 = block
                    .map(|(dx, dy)| u32::from(image.row(y * divisor + dy)[(x * divisor + dx) as usize]))
                    .sum();
                data[((top + y) * width + left + x) as usize] = (sum / (divisor * divisor)) as u8;
            }
        }
        Luma::new(width, height, data).unwrap()
    }

    fn mounted(rotation: Rotation, image: &Luma) -> Luma {
        let turn = Orientation {
            rotation,
            flip: Flip::None,
        };
        turn.apply(image.clone())
    }

    const TURNS: [(Rotation, Option<Rotation>); 4] = [
        (Rotation::None, None),
        (Rotation::Clockwise90, Some(Rotation::Clockwise270)),
        (Rotation::HalfTurn, Some(Rotation::HalfTurn)),
        (Rotation::Clockwise270, Some(Rotation::Clockwise90)),
    ];

    #[test]
    fn a_box_turns_with_its_image() {
        // One light pixel in an image of 5 by 3, turned as an image and as a box.
        let mut data = vec![0; 15];
        data[5 + 3] = 255;
        let image = Luma::new(5, 3, data).unwrap();
        let pixel = Rect {
            x: 3.0,
            y: 1.0,
            w: 1.0,
            h: 1.0,
        };
        for rotation in Rotation::ALL {
            let turned = mounted(rotation, &image);
            let found = turned_box(pixel, rotation, 5.0, 3.0);
            assert_eq!(turned.row(found.y as u32)[found.x as usize], 255, "{rotation:?}");
        }
    }

    #[test]
    fn a_camera_that_is_turned_is_noticed() {
        let bundle = Bundle::open(None, KernelChoice::fastest()).unwrap();
        for (rotation, turn) in TURNS {
            let image = mounted(rotation, &portrait());
            assert_eq!(missing_turn(&bundle, 0.5, &image).unwrap(), turn, "{rotation:?}");
        }
    }

    #[test]
    fn a_small_upright_face_is_upright() {
        let bundle = Bundle::open(None, KernelChoice::fastest()).unwrap();
        let portrait = portrait();
        let mut named = 0;
        for divisor in [2, 3, 4, 5] {
            for (across, down) in [(0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (0.2, 0.9), (0.8, 0.6)] {
                let image = reduced(&portrait, divisor, across, down);
                for (rotation, turn) in TURNS {
                    let found = missing_turn(&bundle, 0.5, &mounted(rotation, &image)).unwrap();
                    let place = format!("1/{divisor} at {across}, {down}, {rotation:?}");

                    // A small face may be missed, but no wrong turn is recommended.
                    assert!(found.is_none() || found == turn, "{place}: {found:?}");
                    named += u32::from(found.is_some());
                }
            }
        }
        assert!(named >= 3, "only {named} turned faces were noticed");
    }
}
