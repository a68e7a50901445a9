//! Face detection with BlazeFace short-range.
//!
//! In: a view of an image of any size. Out: boxes, scores and six landmarks of its faces, in image pixels.
//!
//! The view is letterboxed to 128 × 128. A face must span about a tenth of its longer side to be found. The graph returns raw
//! scores and offsets for 896 anchors. The decoding follows the publication (Bazarevsky et al. 2019, arXiv 1907.05047):
//! box = offset / 128 + anchor centre, and sigmoid scores. Overlapping boxes are averaged by score instead of suppressed, which
//! reduces jitter between frames.

use crate::capture::Luma;
use crate::model::{Bundle, GraphName, ModelError, Session};

use super::empty_views::EmptyViews;
use super::geometry::{Face, Landmarks, Point, Rect};
use super::view::{CANVAS as SIDE, Letterbox, View};

/// Boxes with a higher intersection over union are the same face.
const SAME_FACE_IOU: f32 = 0.3;
/// Values per anchor: centre x, centre y, width and height of the box, then six points.
const VALUES: usize = 16;

/// One feature map of the graph.
struct Scale {
    cells: usize,
    anchors_per_cell: usize,
}

const SCALES: [Scale; 2] = [
    Scale {
        cells: 16,
        anchors_per_cell: 2,
    },
    Scale {
        cells: 8,
        anchors_per_cell: 6,
    },
];

pub struct Detector {
    session: Session,
    min_score: f32,
    canvas: Vec<f32>,
    runs: u64,
}

impl Detector {
    /// Faces with a score below `min_score`, 0..1, are ignored.
    pub fn load(bundle: &Bundle, min_score: f32) -> Result<Detector, ModelError> {
        let session = Session::load(
            bundle,
            GraphName::FaceDetector,
            &[("image", &[1, 1, SIDE, SIDE])],
            &[
                ("score_8", &[1, 2, 16, 16]),
                ("box_8", &[1, 32, 16, 16]),
                ("score_16", &[1, 6, 8, 8]),
                ("box_16", &[1, 96, 8, 8]),
            ],
        )?;
        Ok(Detector {
            session,
            min_score,
            canvas: vec![0.0; SIDE * SIDE],
            runs: 0,
        })
    }

    /// How often the graph has run so far.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// All faces in `view`, highest score first, in pixels of `image`.
    pub fn detect(&mut self, image: &Luma, view: View) -> Result<Vec<Face>, ModelError> {
        let letterbox = self.draw(image, view);
        Ok(self.search(&letterbox)?.faces)
    }

    /// As [`Detector::detect`], but without a search if `views` knows that `view` is empty. It may then spare `most` searches.
    pub fn detect_unless_empty(
        &mut self,
        image: &Luma,
        view: View,
        views: &mut EmptyViews,
        most: u32,
    ) -> Result<Vec<Face>, ModelError> {
        let letterbox = self.draw(image, view);
        if views.contain(view, &self.canvas, most) {
            return Ok(Vec::new());
        }
        let Search { faces, best_score } = self.search(&letterbox)?;
        views.searched(view, &self.canvas, best_score);
        Ok(faces)
    }

    fn draw(&mut self, image: &Luma, view: View) -> Letterbox {
        let letterbox = Letterbox::of(view);
        letterbox.fill(image, &mut self.canvas);
        letterbox
    }

    /// Searches what was drawn.
    fn search(&mut self, letterbox: &Letterbox) -> Result<Search, ModelError> {
        self.runs += 1;
        let min_score = self.min_score;
        let (candidates, best_score) = self.session.run(&[&self.canvas], |outputs| {
            let (mut found, mut best) = (Vec::new(), f32::MIN);
            for (scale, maps) in SCALES.iter().zip(outputs.chunks(2)) {
                scale.collect(maps[0], maps[1], min_score, &mut found);
                best = maps[0].iter().copied().fold(best, f32::max);
            }
            (found, sigmoid(best))
        })?;
        let faces = blend_overlapping(candidates).into_iter();
        Ok(Search {
            faces: faces.map(|face| letterbox.to_image(face)).collect(),
            best_score,
        })
    }
}

/// What the graph finds in a view.
struct Search {
    /// In image pixels.
    faces: Vec<Face>,
    /// The highest score of all anchors, 0..1.
    best_score: f32,
}

impl Scale {
    /// Appends the faces of this scale's anchors, in canvas pixels.
    fn collect(&self, scores: &[f32], offsets: &[f32], min_score: f32, found: &mut Vec<Face>) {
        let plane = self.cells * self.cells;
        let stride = (SIDE / self.cells) as f32;
        let least_raw = (min_score / (1.0 - min_score)).ln() - 0.01;
        for (index, raw) in scores.iter().enumerate() {
            // Almost all anchors have far lower scores, and an exponential costs more than this comparison.
            if *raw < least_raw {
                continue;
            }
            let score = sigmoid(*raw);
            if score < min_score {
                continue;
            }
            let (anchor, cell) = (index / plane, index % plane);
            debug_assert!(anchor < self.anchors_per_cell);
            let centre = Point {
                x: ((cell % self.cells) as f32 + 0.5) * stride,
                y: ((cell / self.cells) as f32 + 0.5) * stride,
            };
            let value = |k: usize| offsets[(anchor * VALUES + k) * plane + cell];
            let (w, h) = (value(2), value(3));
            if !(w > 0.0 && h > 0.0) {
                continue;
            }
            let middle = centre.moved(value(0), value(1));
            let points = std::array::from_fn(|k| centre.moved(value(4 + 2 * k), value(5 + 2 * k)));
            found.push(Face {
                bounds: Rect {
                    x: middle.x - w / 2.0,
                    y: middle.y - h / 2.0,
                    w,
                    h,
                },
                score,
                landmarks: Landmarks::from_points(points),
            });
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Non-maximum suppression with blending: each best box becomes the score-weighted mean of the boxes that overlap it.
fn blend_overlapping(mut candidates: Vec<Face>) -> Vec<Face> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut faces = Vec::new();
    while let Some(&best) = candidates.first() {
        let (same, rest): (Vec<Face>, Vec<Face>) = candidates
            .into_iter()
            .partition(|c| c.bounds.iou(best.bounds) > SAME_FACE_IOU || *c == best);
        candidates = rest;
        faces.push(weighted_mean(&same, best.score));
    }
    faces
}

fn weighted_mean(faces: &[Face], score: f32) -> Face {
    let total: f32 = faces.iter().map(|f| f.score).sum();
    let mean = |value: &dyn Fn(&Face) -> f32| faces.iter().map(|f| f.score * value(f)).sum::<f32>() / total;
    let points = std::array::from_fn(|k| Point {
        x: mean(&|f| f.landmarks.to_points()[k].x),
        y: mean(&|f| f.landmarks.to_points()[k].y),
    });
    Face {
        bounds: Rect {
            x: mean(&|f| f.bounds.x),
            y: mean(&|f| f.bounds.y),
            w: mean(&|f| f.bounds.w),
            h: mean(&|f| f.bounds.h),
        },
        score,
        landmarks: Landmarks::from_points(points),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, score: f32) -> Face {
        Face {
            bounds: Rect {
                x,
                y: 0.0,
                w: 10.0,
                h: 10.0,
            },
            score,
            landmarks: Landmarks::default(),
        }
    }

    #[test]
    fn overlapping_boxes_are_averaged_by_score() {
        let faces = blend_overlapping(vec![face(0.0, 0.6), face(2.0, 0.9), face(50.0, 0.7)]);
        assert_eq!(faces.len(), 2);
        assert_eq!(faces[0].score, 0.9);
        assert!((faces[0].bounds.x - 1.2).abs() < 1e-5);
        assert_eq!(faces[1].bounds.x, 50.0);
    }
}
