//! Decides which part of an image the detector looks at.
//!
//! While the subject is known, the detector looks at a square around its last position. There it finds faces of any size, with
//! precise landmarks, at the cost of one inference. Every few looks it sees the whole image, to notice newcomers. While nobody is
//! known, it looks at the whole image and at its tiles by turns, one view a frame: in a tile it finds faces that are twice as far
//! away. A new face counts only if the detector is certain or finds it again in a square around it. Patterns that resemble a face
//! in one view rarely do so in another. An empty room in which nothing changes is searched less often.

use crate::capture::Luma;
use crate::model::ModelError;

use super::detector::Detector;
use super::empty_views::EmptyViews;
use super::geometry::{Face, Rect};
use super::tracker::{Coverage, SAME_PERSON_IOU, Tracker};
use super::view::View;

/// While nobody is known, a search of a view in which nothing resembles a face spares so many more while the view looks the same.
/// The whole image has every second turn, a tile every twelfth. So each is searched at least every twelfth or thirty-sixth turn.
const SPARED_WHOLE: u32 = 5;
const SPARED_TILE: u32 = 2;
/// With a known subject, one of this many looks is at the whole image.
const LOOKS_PER_WHOLE_IMAGE: u32 = 2;
/// Smaller faces, in pixels of the detector's input, get their landmarks from a second look. They are imprecise then.
const PRECISE_WIDTH: f32 = 32.0;
/// The lowest score of a face in a tile, and of its confirmation.
const TILE_SCORE: f32 = 0.6;
/// A new face with a lower score in the whole image counts only if a look around it confirms it.
const CERTAIN_SCORE: f32 = 0.7;
/// At most this many faces of a view are looked at again.
const CANDIDATES: usize = 4;
/// Boxes of the same face in two views have at least this intersection over union.
const CONFIRMED_IOU: f32 = 0.3;

/// The faces that one look found.
#[derive(Debug)]
pub struct Look {
    /// In image pixels.
    pub faces: Vec<Face>,
    pub coverage: Coverage,
}

pub struct FaceFinder {
    detector: Detector,
    /// Looks at a part of the image since the last one at the whole image.
    partial_looks: u32,
    /// Looks without a known subject.
    searches: u32,
    empty_views: EmptyViews,
}

impl FaceFinder {
    pub fn new(detector: Detector) -> FaceFinder {
        FaceFinder {
            detector,
            partial_looks: 0,
            searches: 0,
            empty_views: EmptyViews::default(),
        }
    }

    /// How often the detector has run so far.
    pub fn detector_runs(&self) -> u64 {
        self.detector.runs()
    }

    /// Looks for the faces that `tracker` follows, and for new ones: for those in this look at the latest if it is `overdue`.
    pub fn find(&mut self, image: &Luma, tracker: &Tracker, overdue: bool) -> Result<Look, ModelError> {
        let look = match tracker.subject() {
            Some(subject) => self.look_at(image, subject.face.bounds, overdue || tracker.is_contested())?,
            None => self.search(image, tracker.last_place())?,
        };
        self.partial_looks = match look.coverage {
            Coverage::Whole => 0,
            Coverage::Part => self.partial_looks + 1,
        };
        Ok(look)
    }

    /// Looks at a subject, or at the whole image if `whole` or its turn demands it, or the subject is not where it was.
    fn look_at(&mut self, image: &Luma, subject: Rect, whole: bool) -> Result<Look, ModelError> {
        let is_subject = |face: &Face| face.bounds.iou(subject) >= SAME_PERSON_IOU;
        let whole_due = whole || self.partial_looks + 1 >= LOOKS_PER_WHOLE_IMAGE;
        if !whole_due {
            let faces = self.detector.detect(image, View::around(subject))?;
            if faces.iter().any(is_subject) {
                return Ok(Look {
                    faces,
                    coverage: Coverage::Part,
                });
            }
        }
        let view = View::whole(image);
        let mut faces = self.detector.detect(image, view)?;
        let is_precise = |face: &Face| face.bounds.w * view.magnification() >= PRECISE_WIDTH;
        if whole_due && !faces.iter().any(|face| is_subject(face) && is_precise(face)) {
            let close = self.detector.detect(image, View::around(subject))?;
            if let Some(closer) = close.into_iter().find(is_subject) {
                faces.retain(|face| face.bounds.iou(closer.bounds) < CONFIRMED_IOU);
                faces.push(closer);
            }
        }
        Ok(Look {
            faces,
            coverage: Coverage::Whole,
        })
    }

    /// Looks at the whole image, then around the place of a subject that has just been lost, or at the next tile.
    fn search(&mut self, image: &Luma, lost: Option<Rect>) -> Result<Look, ModelError> {
        let turn = self.searches;
        self.searches = self.searches.wrapping_add(1);
        if turn.is_multiple_of(2) {
            return Ok(Look {
                faces: self.confirmed(image, View::whole(image), SPARED_WHOLE, 0.0, CERTAIN_SCORE)?,
                coverage: Coverage::Whole,
            });
        }
        let faces = match lost {
            Some(place) => self.detector.detect(image, View::around(place))?,
            None => self.confirmed(
                image,
                View::tile(image, turn / 2),
                SPARED_TILE,
                TILE_SCORE,
                f32::INFINITY,
            )?,
        };
        Ok(Look {
            faces,
            coverage: Coverage::Part,
        })
    }

    /// The faces in `view` that have a score of `certain`, or that a look around them finds again. Both scores are at least `least`.
    fn confirmed(
        &mut self,
        image: &Luma,
        view: View,
        spared: u32,
        least: f32,
        certain: f32,
    ) -> Result<Vec<Face>, ModelError> {
        let mut faces = Vec::new();
        let candidates = self
            .detector
            .detect_unless_empty(image, view, &mut self.empty_views, spared)?;
        for found in candidates.into_iter().take(CANDIDATES) {
            if found.score >= certain {
                faces.push(found);
            } else if found.score >= least {
                let again = self.detector.detect(image, View::around(found.bounds))?;
                let same = |face: &Face| face.score >= least && face.bounds.iou(found.bounds) >= CONFIRMED_IOU;
                faces.extend(again.into_iter().find(same));
            }
        }
        Ok(faces)
    }
}
