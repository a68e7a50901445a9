//! Cuts out a face, upright and framed like the faces of the encoder's training.
//!
//! In: an image and the landmarks of a face. Out: 48 × 48 values in −1..1, row-major.
//!
//! `models/training/preprocessing/face_crop.py` computes the same in Python. A test compares the two on the same bytes.

use serde::Deserialize;

use crate::capture::Luma;
use crate::model::{Bundle, GraphName, ModelError};

use super::geometry::{Landmarks, Point};

/// Side of the square crop, in pixels.
pub const SIDE: usize = 48;
/// The most samples across an output pixel. More would only cost time.
const MAX_SAMPLES: usize = 8;
/// The least standard deviation, on the scale 0..255, to normalize by. Stretching a lower contrast would amplify noise.
const MIN_DEVIATION: f32 = 10.0;
/// Normalized values are clamped to this many deviations, and then scaled to −1..1.
const CLAMP: f32 = 3.0;

/// How training faces are framed, as measured by `models/training/measure_face_framing.py` and kept in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Framing {
    /// Side of the crop relative to the distance between the eyes.
    pub side_per_eye_distance: f32,
    /// Side of the crop relative to the distance from the middle of the eyes to the mouth. The larger of the two sides is
    /// used, because turning the head shortens one distance and nodding the other.
    pub side_per_eye_mouth: f32,
    /// Position of the middle of the eyes in the crop, as fractions from the left and the top.
    pub eye_mid: [f32; 2],
}

/// A square in an image, rotated with the head.
#[derive(Debug, Clone, Copy)]
struct Square {
    top_left: Point,
    /// Unit vector along the crop's upper edge.
    along: Point,
    side: f32,
}

impl Framing {
    /// The framing of the bundle's face encoder. Fails if the encoder was trained on crops that affectd does not compute.
    pub fn of(bundle: &Bundle) -> Result<Framing, ModelError> {
        let graph = GraphName::FaceEncoder;
        let framing: Framing = bundle.preprocessing(graph)?;
        let is_side = |side: f32| (0.1..=100.0).contains(&side);
        let valid = is_side(framing.side_per_eye_distance)
            && is_side(framing.side_per_eye_mouth)
            && framing.eye_mid.iter().all(|part| (0.0..=1.0).contains(part));
        if !valid {
            return Err(ModelError::Unusable {
                graph,
                reason: format!("its framing of faces is not supported ({framing:?})"),
            });
        }
        Ok(framing)
    }

    /// The side of the square that [`Framing::crop`] cuts out, in pixels of the image.
    pub fn side(&self, landmarks: &Landmarks) -> f32 {
        self.square(landmarks).side
    }

    fn square(&self, landmarks: &Landmarks) -> Square {
        let (right, left) = (landmarks.right_eye, landmarks.left_eye);
        let middle = right.midway(left);
        let eyes = right.distance(left);
        let side = (eyes * self.side_per_eye_distance)
            .max(middle.distance(landmarks.mouth) * self.side_per_eye_mouth)
            .max(1.0);
        // The person's right eye is on the left of the image. Without a direction between the eyes, the crop is upright.
        let along = if eyes > 1e-3 {
            Point {
                x: (left.x - right.x) / eyes,
                y: (left.y - right.y) / eyes,
            }
        } else {
            Point { x: 1.0, y: 0.0 }
        };
        let (u, v) = (self.eye_mid[0] * side, self.eye_mid[1] * side);
        Square {
            top_left: Point {
                x: middle.x - u * along.x + v * along.y,
                y: middle.y - u * along.y - v * along.x,
            },
            along,
            side,
        }
    }

    /// The encoder's input: `SIDE` × `SIDE` values in −1..1, row-major.
    pub fn crop(&self, image: &Luma, landmarks: &Landmarks) -> Vec<f32> {
        let mut face = self.square(landmarks).sample(image);
        normalize(&mut face);
        face
    }
}

impl Square {
    /// Grey values 0..255. Each is the mean of s × s bilinear samples; s grows with the face to avoid aliasing.
    fn sample(&self, image: &Luma) -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "clamped to 1..=MAX_SAMPLES")]
        let per_side = (self.side / SIDE as f32).ceil().clamp(1.0, MAX_SAMPLES as f32) as usize;
        let step = self.side / (SIDE * per_side) as f32;
        let mut face = Vec::with_capacity(SIDE * SIDE);
        for i in 0..SIDE {
            for j in 0..SIDE {
                let mut sum = 0.0;
                for n in 0..per_side {
                    for m in 0..per_side {
                        let across = ((j * per_side + m) as f32 + 0.5) * step;
                        let down = ((i * per_side + n) as f32 + 0.5) * step;
                        sum += bilinear(
                            image,
                            self.top_left.x + across * self.along.x - down * self.along.y,
                            self.top_left.y + across * self.along.y + down * self.along.x,
                        );
                    }
                }
                face.push(sum / (per_side * per_side) as f32);
            }
        }
        face
    }
}

/// The grey value at a position. Pixel (0, 0) has its centre at (0.5, 0.5). Positions outside have the value of the edge.
pub(super) fn bilinear(image: &Luma, x: f32, y: f32) -> f32 {
    let limit = |v: f32, length: u32| (v - 0.5).clamp(0.0, (length - 1) as f32);
    let (x, y) = (limit(x, image.width()), limit(y, image.height()));
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the image just above")]
    let (x0, y0) = (x as u32, y as u32);
    let x1 = (x0 + 1).min(image.width() - 1) as usize;
    let y1 = (y0 + 1).min(image.height() - 1);
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let (upper, lower) = (image.row(y0), image.row(y1));
    let x0 = x0 as usize;
    let top = f32::from(upper[x0]) * (1.0 - fx) + f32::from(upper[x1]) * fx;
    let bottom = f32::from(lower[x0]) * (1.0 - fx) + f32::from(lower[x1]) * fx;
    top * (1.0 - fy) + bottom * fy
}

/// Normalizes brightness and contrast, so that the light does not change the expression.
fn normalize(face: &mut [f32]) {
    let count = face.len() as f32;
    let mean = face.iter().sum::<f32>() / count;
    let variance = face.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
    let deviation = variance.sqrt().max(MIN_DEVIATION);
    for v in face {
        *v = ((*v - mean) / deviation).clamp(-CLAMP, CLAMP) / CLAMP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMING: Framing = Framing {
        side_per_eye_distance: 2.0,
        side_per_eye_mouth: 2.0,
        eye_mid: [0.5, 0.25],
    };

    fn upright(x: f32, y: f32, eyes: f32) -> Landmarks {
        Landmarks {
            right_eye: Point { x: x - eyes / 2.0, y },
            left_eye: Point { x: x + eyes / 2.0, y },
            mouth: Point { x, y: y + eyes },
            ..Landmarks::default()
        }
    }

    #[test]
    fn the_middle_of_the_eyes_is_at_the_position_of_the_framing() {
        let square = FRAMING.square(&upright(100.0, 60.0, 40.0));
        assert_eq!(square.side, 80.0);
        assert_eq!((square.top_left.x, square.top_left.y), (60.0, 40.0));
    }

    #[test]
    fn a_tilted_head_gives_the_same_crop_as_an_upright_one() {
        // An image, and the same image rotated by 90 degrees.
        let side = 96;
        let grey = |x: usize, y: usize| ((x * 5 + y * y / 7) % 251) as u8;
        let straight = (0..side * side).map(|i| grey(i % side, i / side)).collect();
        let turned = (0..side * side).map(|i| grey(i / side, side - 1 - i % side)).collect();
        let straight = Luma::new(96, 96, straight).unwrap();
        let turned = Luma::new(96, 96, turned).unwrap();
        let at = upright(48.0, 36.0, 24.0);
        let rotate = |p: Point| Point { x: 96.0 - p.y, y: p.x };
        let tilted = Landmarks::from_points(at.to_points().map(rotate));
        let a = FRAMING.crop(&straight, &at);
        let b = FRAMING.crop(&turned, &tilted);
        let worst = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "crops differ by {worst}");
    }

    #[test]
    fn brightness_and_contrast_do_not_change_the_crop() {
        let plain: Vec<u8> = (0..64 * 64).map(|i| 40 + (i * 7 % 97) as u8).collect();
        let brighter = plain.iter().map(|v| v * 2 - 20).collect();
        let at = upright(32.0, 24.0, 16.0);
        let a = FRAMING.crop(&Luma::new(64, 64, plain).unwrap(), &at);
        let b = FRAMING.crop(&Luma::new(64, 64, brighter).unwrap(), &at);
        assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-4));
    }

    #[test]
    fn a_face_at_the_edge_or_outside_is_filled_from_the_edge() {
        let image = Luma::new(32, 32, vec![200; 32 * 32]).unwrap();
        for (x, y) in [(0.0, 0.0), (-500.0, 10.0), (40.0, 1e6)] {
            let face = FRAMING.crop(&image, &upright(x, y, 12.0));
            assert!(face.iter().all(|v| v.abs() < 1e-3));
        }
    }

    #[test]
    fn coincident_landmarks_give_a_finite_crop() {
        let image = Luma::new(8, 8, vec![7; 64]).unwrap();
        let face = FRAMING.crop(&image, &upright(4.0, 4.0, 0.0));
        assert!(face.iter().all(|v| v.is_finite()));
    }
}
