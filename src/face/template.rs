//! Follows a face between two detections by template matching.
//!
//! A small patch of the detected face is searched around its last position by normalized cross-correlation. This costs a
//! hundredth of a detection and tolerates changes of the light. A low correlation shows that the face is lost.

use crate::capture::Luma;

use super::crop::bilinear;
use super::geometry::{Point, Rect};

/// Side of the patch, in samples.
const SIDE: usize = 24;
/// How far the face may have moved in each direction, in samples: a third of its width.
const REACH: usize = 8;
const FIELD: usize = SIDE + 2 * REACH;
/// Places of the patch in the field, in each direction.
const OFFSETS: usize = 2 * REACH + 1;
/// Values that the compiler adds at once.
const LANES: usize = 8;
const _: () = assert!(SIDE.is_multiple_of(LANES));
/// With a lower correlation, the face is lost.
const MIN_CORRELATION: f32 = 0.75;
/// With at least this correlation, the face has hardly turned, moved its mouth or come closer.
const CLOSE_CORRELATION: f32 = 0.9;
/// A patch with a lower standard deviation, in grey levels, would match anywhere.
const MIN_DEVIATION: f32 = 4.0;

/// Where the face is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// How far it has moved, in image pixels.
    pub dx: f32,
    pub dy: f32,
    /// Whether the face looks as it did when it was detected, so that its landmarks are still where they were.
    pub is_close: bool,
}

/// The appearance of a face when it was detected.
pub struct Template {
    /// Zero mean, unit norm.
    patch: Vec<f32>,
    /// Image pixels per sample.
    step: f32,
}

impl Template {
    /// `None` if the face has too little contrast.
    pub fn of(image: &Luma, bounds: Rect) -> Option<Template> {
        let step = bounds.w / SIDE as f32;
        let mut patch = sample(image, bounds.centre(), step, SIDE);
        let norm = centre_and_norm(&mut patch);
        if norm < MIN_DEVIATION * SIDE as f32 {
            return None;
        }
        patch.iter_mut().for_each(|v| *v /= norm);
        Some(Template { patch, step })
    }

    /// Looks for the face around its last centre `from`. `None` if it is lost.
    pub fn find(&self, image: &Luma, from: Point) -> Option<Match> {
        let field = Field::of(sample(image, from, self.step, FIELD));
        let mut scores = [[0.0f32; OFFSETS]; OFFSETS];
        let mut best = (f32::MIN, REACH, REACH);
        for (dy, row) in scores.iter_mut().enumerate() {
            for (dx, score) in row.iter_mut().enumerate() {
                *score = field.correlation(&self.patch, dx, dy);
                if *score > best.0 {
                    best = (*score, dx, dy);
                }
            }
        }
        let (score, dx, dy) = best;
        // If the best match is on the rim of the search field, the face may be outside of it.
        let inside = |d: usize| (1..OFFSETS - 1).contains(&d);
        if score < MIN_CORRELATION || !inside(dx) || !inside(dy) {
            return None;
        }
        let x = dx as f32 + peak(scores[dy][dx - 1], score, scores[dy][dx + 1]);
        let y = dy as f32 + peak(scores[dy - 1][dx], score, scores[dy + 1][dx]);
        let moved = |d: f32| (d - REACH as f32) * self.step;
        Some(Match {
            dx: moved(x),
            dy: moved(y),
            is_close: score >= CLOSE_CORRELATION,
        })
    }
}

/// Where the patch is searched: [`FIELD`] × [`FIELD`] grey values.
struct Field {
    values: Vec<f32>,
    /// The norm of every square of [`SIDE`] × [`SIDE`] values about its mean, by its upper left corner.
    norms: [[f32; OFFSETS]; OFFSETS],
}

impl Field {
    fn of(values: Vec<f32>) -> Field {
        let sums = square_sums(&values, f64::from);
        let squares = square_sums(&values, |v| f64::from(v) * f64::from(v));
        let norms = std::array::from_fn(|dy| {
            std::array::from_fn(|dx| {
                let (sum, squares) = (sums[dy][dx], squares[dy][dx]);
                #[expect(clippy::cast_possible_truncation, reason = "computed in f64, needed as f32")]
                let spread = (squares - sum * sum / (SIDE * SIDE) as f64) as f32;
                spread.max(0.0).sqrt()
            })
        });
        Field { values, norms }
    }

    /// Of a patch of zero mean and unit norm with the square whose upper left corner is at (`dx`, `dy`). A square of one grey
    /// correlates with nothing.
    fn correlation(&self, patch: &[f32], dx: usize, dy: usize) -> f32 {
        // Eight sums, because the compiler does not reorder additions by itself.
        let mut sums = [0.0f32; LANES];
        for (y, patch) in patch.as_chunks::<SIDE>().0.iter().enumerate() {
            let row: &[f32; SIDE] = self.values[(dy + y) * FIELD + dx..]
                .first_chunk()
                .expect("a square lies within the field");
            for (patch, row) in patch.as_chunks::<LANES>().0.iter().zip(row.as_chunks::<LANES>().0) {
                for lane in 0..LANES {
                    sums[lane] += patch[lane] * row[lane];
                }
            }
        }
        let norm = self.norms[dy][dx];
        if norm > 1.0 {
            sums.iter().sum::<f32>() / norm
        } else {
            0.0
        }
    }
}

/// The sums of `term` over all squares of [`SIDE`] × [`SIDE`] values of a field: first over the rows, then over the columns.
fn square_sums(field: &[f32], term: impl Fn(f32) -> f64) -> [[f64; OFFSETS]; OFFSETS] {
    let mut columns = [0.0; FIELD];
    let mut add = |row: usize, sign: f64| {
        for (column, &value) in columns.iter_mut().zip(&field[row * FIELD..][..FIELD]) {
            *column += sign * term(value);
        }
        columns
    };
    for row in 0..SIDE - 1 {
        add(row, 1.0);
    }
    std::array::from_fn(|dy| {
        let columns = add(dy + SIDE - 1, 1.0);
        add(dy, -1.0);
        let mut sum: f64 = columns[..SIDE - 1].iter().sum();
        std::array::from_fn(|dx| {
            sum += columns[dx + SIDE - 1];
            let whole = sum;
            sum -= columns[dx];
            whole
        })
    })
}

/// `side` × `side` grey values around `centre`, `step` pixels apart.
fn sample(image: &Luma, centre: Point, step: f32, side: usize) -> Vec<f32> {
    let middle = (side as f32 - 1.0) / 2.0;
    let mut values = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            values.push(bilinear(
                image,
                centre.x + (x as f32 - middle) * step,
                centre.y + (y as f32 - middle) * step,
            ));
        }
    }
    values
}

/// Subtracts the mean. Returns the norm of the result.
fn centre_and_norm(values: &mut [f32]) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    values.iter_mut().for_each(|v| *v -= mean);
    values.iter().map(|v| v * v).sum::<f32>().sqrt()
}

/// Peak of the parabola through three equally spaced values, relative to the middle one, which is the largest.
fn peak(before: f32, at: f32, after: f32) -> f32 {
    let curvature = before - 2.0 * at + after;
    if curvature < -1e-9 {
        (0.5 * (before - after) / curvature).clamp(-0.5, 0.5)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob-like texture that moves with (dx, dy).
    fn scene(dx: f32, dy: f32, gain: f32) -> Luma {
        let grey = |x: f32, y: f32| {
            let (x, y) = (x - 80.0 - dx, y - 60.0 - dy);
            let bump = 90.0 * (-(x * x + y * y) / 900.0).exp();
            let eyes = 60.0 * (-((x.abs() - 14.0).powi(2) + (y + 8.0).powi(2)) / 40.0).exp();
            let mouth = 50.0 * (-(x * x / 120.0 + (y - 16.0).powi(2) / 20.0)).exp();
            (30.0 + gain * (bump - eyes - mouth)).clamp(0.0, 255.0) as u8
        };
        let data = (0..160 * 120)
            .map(|i| grey((i % 160) as f32, (i / 160) as f32))
            .collect();
        Luma::new(160, 120, data).unwrap()
    }

    const FACE: Rect = Rect {
        x: 50.0,
        y: 30.0,
        w: 60.0,
        h: 60.0,
    };

    #[test]
    fn the_correlation_is_that_of_its_definition() {
        let field: Vec<f32> = (0..FIELD * FIELD).map(|i| ((i * i / 3 + 7 * i) % 251) as f32).collect();
        let mut patch: Vec<f32> = (0..SIDE * SIDE).map(|i| ((i * 31) % 97) as f32).collect();
        let norm = centre_and_norm(&mut patch);
        patch.iter_mut().for_each(|v| *v /= norm);
        let measured = Field::of(field.clone());
        for (dx, dy) in [(0, 0), (REACH, 3), (OFFSETS - 1, OFFSETS - 1)] {
            let mut square: Vec<f32> = (0..SIDE * SIDE)
                .map(|i| field[(dy + i / SIDE) * FIELD + dx + i % SIDE])
                .collect();
            let norm = centre_and_norm(&mut square);
            let expected = patch.iter().zip(&square).map(|(p, v)| p * v).sum::<f32>() / norm;
            let correlation = measured.correlation(&patch, dx, dy);
            assert!(
                (correlation - expected).abs() < 1e-5,
                "{correlation} instead of {expected}"
            );
        }
    }

    #[test]
    fn a_moved_face_is_found_with_subsample_accuracy() {
        let template = Template::of(&scene(0.0, 0.0, 1.0), FACE).unwrap();
        for (dx, dy) in [(0.0, 0.0), (7.0, -4.0), (-11.0, 9.0)] {
            let Match { dx: x, dy: y, is_close } = template.find(&scene(dx, dy, 1.0), FACE.centre()).unwrap();
            assert!(is_close);
            assert!(
                (x - dx).abs() < 1.3 && (y - dy).abs() < 1.3,
                "({dx}, {dy}) found at ({x}, {y})"
            );
        }
    }

    #[test]
    fn a_change_of_light_does_not_lose_the_face() {
        let template = Template::of(&scene(0.0, 0.0, 1.0), FACE).unwrap();
        assert!(template.find(&scene(3.0, 3.0, 0.5), FACE.centre()).is_some());
    }

    #[test]
    fn a_face_that_has_left_is_lost() {
        let template = Template::of(&scene(0.0, 0.0, 1.0), FACE).unwrap();
        assert!(template.find(&scene(70.0, 0.0, 1.0), FACE.centre()).is_none());
        let wall = Luma::new(160, 120, vec![128; 160 * 120]).unwrap();
        assert!(template.find(&wall, FACE.centre()).is_none());
    }

    #[test]
    fn a_flat_patch_gives_no_template() {
        let wall = Luma::new(160, 120, vec![128; 160 * 120]).unwrap();
        assert!(Template::of(&wall, FACE).is_none());
    }
}
