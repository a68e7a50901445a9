//! Finds out whether a camera is mounted upside down or on its side.

use crate::capture::Luma;
use crate::capture::orientation::{Flip, Orientation, Rotation};
use crate::model::{Bundle, ModelError};

use super::detector::Detector;
use super::geometry::Face;
use super::view::View;

/// A turned face counts as the upright one only if its score is higher by this than without the turn: the detector also finds some
/// faces that are upside down.
const CLEARLY_HIGHER: f32 = 0.1;

/// The turn after which the face in `image` is upright. `None` if it is upright already, or if no turn shows a face.
pub fn missing_turn(bundle: &Bundle, min_score: f32, image: &Luma) -> Result<Option<Rotation>, ModelError> {
    let mut detector = Detector::load(bundle, min_score)?;
    let mut best = None;
    let mut unturned = 0.0;
    for rotation in Rotation::ALL {
        let turn = Orientation {
            rotation,
            flip: Flip::None,
        };
        let turned = turn.apply(image.clone());
        let faces = detector.detect(&turned, View::whole(&turned))?;
        let Some(face) = faces.into_iter().find(is_upright) else {
            continue;
        };
        match rotation {
            Rotation::None => unturned = face.score,
            _ if best.is_none_or(|(_, score)| score < face.score) => best = Some((rotation, face.score)),
            _ => {}
        }
    }
    Ok(best.and_then(|(turn, score)| (score > unturned + CLEARLY_HIGHER).then_some(turn)))
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

    #[test]
    fn a_camera_that_is_turned_is_noticed() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.mkv");
        let frame = Clip::open(&demo).unwrap().video.unwrap().next_frame().unwrap().unwrap();
        let upright = frame.payload.into_luma().unwrap();
        let bundle = Bundle::open(None, KernelChoice::fastest()).unwrap();
        for (mounted, turn) in [
            (Rotation::None, None),
            (Rotation::Clockwise90, Some(Rotation::Clockwise270)),
            (Rotation::HalfTurn, Some(Rotation::HalfTurn)),
            (Rotation::Clockwise270, Some(Rotation::Clockwise90)),
        ] {
            let mounted = Orientation {
                rotation: mounted,
                flip: Flip::None,
            };
            let frame = mounted.apply(upright.clone());
            assert_eq!(missing_turn(&bundle, 0.5, &frame).unwrap(), turn, "{mounted:?}");
        }
    }
}
