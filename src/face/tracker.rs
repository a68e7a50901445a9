//! Assigns ids to faces, which stay the same from one detection to the next, and chooses the subject: the one face that the
//! estimates describe.

use std::time::Duration;

use super::geometry::Face;

/// A detection belongs to a known face if their boxes have at least this intersection over union.
const SAME_PERSON_IOU: f32 = 0.2;
/// How long a face keeps its id while it is not detected.
const MEMORY: Duration = Duration::from_secs(1);
/// Faces with at least this share of the largest face's area count as equally large.
const EQUAL_AREA: f32 = 0.75;

/// One person's face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Track {
    /// Never reused for another face.
    pub id: u32,
    pub face: Face,
    pub first_seen: Duration,
    pub last_seen: Duration,
}

/// All known faces.
#[derive(Debug, Default)]
pub struct Tracker {
    tracks: Vec<Track>,
    last_id: u32,
    now: Duration,
}

impl Tracker {
    /// Adds the detected faces of the frame captured at `at`.
    pub fn update(&mut self, at: Duration, faces: &[Face]) {
        self.now = at;
        self.tracks.retain(|t| at.saturating_sub(t.last_seen) <= MEMORY);
        // Matches the largest overlaps first. Each track and each face matches once.
        let mut pairs: Vec<(usize, usize, f32)> = Vec::new();
        for (t, track) in self.tracks.iter().enumerate() {
            for (f, face) in faces.iter().enumerate() {
                let overlap = track.face.bounds.iou(face.bounds);
                if overlap >= SAME_PERSON_IOU {
                    pairs.push((t, f, overlap));
                }
            }
        }
        pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
        let mut claimed = vec![false; faces.len()];
        for (t, f, _) in pairs {
            if !claimed[f] && self.tracks[t].last_seen != at {
                claimed[f] = true;
                self.tracks[t].face = faces[f];
                self.tracks[t].last_seen = at;
            }
        }
        for (face, _) in faces.iter().zip(claimed).filter(|(_, claimed)| !claimed) {
            self.last_id += 1;
            self.tracks.push(Track {
                id: self.last_id,
                face: *face,
                first_seen: at,
                last_seen: at,
            });
        }
    }

    /// Moves face `id` to a position found without the detector.
    pub fn follow(&mut self, at: Duration, id: u32, face: Face) {
        self.now = at;
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == id) {
            track.face = face;
            track.last_seen = at;
        }
    }

    /// The subject: the largest face in the latest frame. Among faces of about equal size it is the one seen first, so that
    /// the subject does not alternate between two people side by side.
    pub fn subject(&self) -> Option<Track> {
        let visible = || self.tracks.iter().filter(|t| t.last_seen == self.now);
        let largest = visible().map(|t| t.face.bounds.area()).fold(0.0, f32::max);
        visible()
            .filter(|t| t.face.bounds.area() >= largest * EQUAL_AREA)
            .min_by_key(|t| (t.first_seen, t.id))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::{Landmarks, Rect};
    use super::*;

    fn face(x: f32, size: f32) -> Face {
        Face {
            bounds: Rect {
                x,
                y: 0.0,
                w: size,
                h: size,
            },
            score: 0.9,
            landmarks: Landmarks::default(),
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_moving_face_keeps_its_id_and_a_new_one_gets_another() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)]);
        tracker.update(ms(400), &[face(300.0, 50.0), face(30.0, 100.0)]);
        assert_eq!(tracker.subject().unwrap().id, 1);
        tracker.update(ms(800), &[face(300.0, 50.0)]);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    #[test]
    fn a_face_keeps_its_id_after_a_short_absence_only() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)]);
        tracker.update(ms(500), &[]);
        assert_eq!(tracker.subject(), None);
        tracker.update(ms(900), &[face(0.0, 100.0)]);
        assert_eq!(tracker.subject().unwrap().id, 1);
        tracker.update(ms(2000), &[face(0.0, 100.0)]);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    #[test]
    fn the_subject_is_the_largest_face_and_among_equals_the_first_seen() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)]);
        tracker.update(ms(400), &[face(0.0, 100.0), face(300.0, 105.0)]);
        assert_eq!(tracker.subject().unwrap().id, 1);
        tracker.update(ms(800), &[face(0.0, 100.0), face(300.0, 130.0)]);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    #[test]
    fn two_detections_never_share_an_id() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)]);
        tracker.update(ms(400), &[face(5.0, 100.0), face(20.0, 100.0)]);
        let mut ids: Vec<_> = tracker.tracks.iter().map(|t| t.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
    }
}
