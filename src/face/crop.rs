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
        let grid = self.grid();
        if grid.is_inside(image) {
            grid.sample_inside(image)
        } else {
            grid.sample_anywhere(image)
        }
    }

    fn grid(&self) -> Grid {
        #[expect(clippy::cast_possible_truncation, reason = "clamped to 1..=MAX_SAMPLES")]
        let per_side = (self.side / SIDE as f32).ceil().clamp(1.0, MAX_SAMPLES as f32) as usize;
        Grid {
            square: *self,
            per_side,
            step: self.side / (SIDE * per_side) as f32,
        }
    }
}

/// Where a square is sampled.
struct Grid {
    square: Square,
    /// Samples across an output pixel.
    per_side: usize,
    /// The distance between two samples, in pixels of the image.
    step: f32,
}

impl Grid {
    /// Samples across the whole square.
    fn samples(&self) -> usize {
        SIDE * self.per_side
    }

    /// The place of a sample in the image.
    fn place(&self, column: usize, row: usize) -> Point {
        let Square { top_left, along, .. } = self.square;
        let across = (column as f32 + 0.5) * self.step;
        let down = (row as f32 + 0.5) * self.step;
        Point {
            x: top_left.x + across * along.x - down * along.y,
            y: top_left.y + across * along.y + down * along.x,
        }
    }

    /// Whether all samples lie between pixels of the image.
    fn is_inside(&self, image: &Luma) -> bool {
        let last = self.samples() - 1;
        let fits = |v: f32, length: u32| (1.0..length as f32 - 1.0).contains(&v);
        [(0, 0), (last, 0), (0, last), (last, last)]
            .iter()
            .all(|&(column, row)| {
                let Point { x, y } = self.place(column, row);
                fits(x, image.width()) && fits(y, image.height())
            })
    }

    fn sample_anywhere(&self, image: &Luma) -> Vec<f32> {
        self.means(|row, sums: &mut [f32; SIDE]| {
            for column in 0..self.samples() {
                let Point { x, y } = self.place(column, row);
                sums[column / self.per_side] += bilinear(image, x, y);
            }
        })
    }

    /// The same in integers, for samples that all lie between pixels. Positions have 32 fractional bits. The weights have 12, so the
    /// product of a pixel and two weights fits into 32 bits.
    fn sample_inside(&self, image: &Luma) -> Vec<f32> {
        const WEIGHT_BITS: u32 = 12;
        const ONE: u32 = 1 << WEIGHT_BITS;
        const HALF_WEIGHT: i64 = 1 << (31 - WEIGHT_BITS);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "positions in an image, and steps, have at most 15 bits"
        )]
        let fixed = |v: f32| (f64::from(v) * 4_294_967_296.0) as i64;
        // After the bounds were checked, neither is negative.
        #[expect(clippy::cast_possible_truncation, reason = "the mask keeps the low bits only")]
        let split = |v: i64| ((v >> 32) as usize, (v >> (32 - WEIGHT_BITS)) as u32 & (ONE - 1));
        let width = image.width() as usize;
        let pixels = image.as_slice();
        let along = self.square.along;
        let (step_x, step_y) = (fixed(along.x * self.step), fixed(along.y * self.step));
        self.means(|row, sums: &mut [f32; SIDE]| {
            let start = self.place(0, row);
            // The centre of pixel 0 is at 0.5. Weights are rounded, not cut.
            let (mut x, mut y) = (fixed(start.x - 0.5) + HALF_WEIGHT, fixed(start.y - 0.5) + HALF_WEIGHT);
            for sum in sums {
                let mut total = 0;
                for _ in 0..self.per_side {
                    let ((column, right), (line, lower)) = (split(x), split(y));
                    let at = line * width + column;
                    let square = &pixels[at..at + width + 2];
                    let [upper_left, upper_right] = [u32::from(square[0]), u32::from(square[1])];
                    let [lower_left, lower_right] = [u32::from(square[width]), u32::from(square[width + 1])];
                    let upper_value = upper_left * (ONE - right) + upper_right * right;
                    let lower_value = lower_left * (ONE - right) + lower_right * right;
                    total += (upper_value * (ONE - lower) + lower_value * lower) >> WEIGHT_BITS;
                    x += step_x;
                    y += step_y;
                }
                *sum += total as f32 / ONE as f32;
            }
        })
    }

    /// The means of the samples of each output pixel. `add` adds the samples of one row to the sums of its output pixels.
    fn means(&self, mut add: impl FnMut(usize, &mut [f32; SIDE])) -> Vec<f32> {
        let count = (self.per_side * self.per_side) as f32;
        let mut face = Vec::with_capacity(SIDE * SIDE);
        for i in 0..SIDE {
            let mut sums = [0.0; SIDE];
            for n in 0..self.per_side {
                add(i * self.per_side + n, &mut sums);
            }
            face.extend(sums.map(|sum| sum / count));
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn integers_give_the_same_samples(
            (x, y) in (20.0f32..70.0, 20.0f32..60.0),
            turn in -3.2f32..3.2,
            side in 1.0f32..60.0,
            seed: u8,
        ) {
            let pixels = (0..90 * 80).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect();
            let image = Luma::new(90, 80, pixels).unwrap();
            let along = Point { x: turn.cos(), y: turn.sin() };
            let grid = Square { top_left: Point { x, y }, along, side }.grid();
            if grid.is_inside(&image) {
                let (a, b) = (grid.sample_inside(&image), grid.sample_anywhere(&image));
                let worst = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                // The encoder's input has steps of at least 0.23.
                prop_assert!(worst < 0.1, "grey values differ by {worst}");
            }
        }
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
