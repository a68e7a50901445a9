//! Whose face is it: ids that stay with a person from one detection to the next, and the choice of the one person
//! affectd speaks of.

use std::time::Duration;

use super::geometry::Face;

/// A detection belongs to a known face if their boxes overlap at least this much.
const SAME_PERSON_IOU: f32 = 0.2;
/// A face that went unseen keeps its id this long.
const MEMORY: Duration = Duration::from_secs(1);
/// Faces at least this large, relative to the largest, count as equally large.
const AS_LARGE: f32 = 0.75;

/// One person's face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Track {
    /// Stable while the face is seen, never used again.
    pub id: u32,
    pub face: Face,
    /// When it was first seen, and last.
    pub since: Duration,
    pub seen: Duration,
}

/// All faces now known.
#[derive(Debug, Default)]
pub struct Tracker {
    tracks: Vec<Track>,
    last_id: u32,
    now: Duration,
}

impl Tracker {
    /// Takes in what the detector found in the picture captured at `at`.
    pub fn update(&mut self, at: Duration, faces: &[Face]) {
        self.now = at;
        self.tracks.retain(|t| at.saturating_sub(t.seen) <= MEMORY);
        // The best overlaps first, each track and each face once.
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
            if !claimed[f] && self.tracks[t].seen != at {
                claimed[f] = true;
                self.tracks[t].face = faces[f];
                self.tracks[t].seen = at;
            }
        }
        for (face, _) in faces.iter().zip(claimed).filter(|(_, claimed)| !claimed) {
            self.last_id += 1;
            self.tracks.push(Track {
                id: self.last_id,
                face: *face,
                since: at,
                seen: at,
            });
        }
    }

    /// Takes in that face `id` was followed to a new place without the detector.
    pub fn follow(&mut self, at: Duration, id: u32, face: Face) {
        self.now = at;
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == id) {
            track.face = face;
            track.seen = at;
        }
    }

    /// The one face affectd speaks of: the largest in the latest picture, and of several about as large the one tracked
    /// longest, so that two people side by side do not take turns.
    pub fn subject(&self) -> Option<Track> {
        let visible = || self.tracks.iter().filter(|t| t.seen == self.now);
        let largest = visible().map(|t| t.face.bounds.area()).fold(0.0, f32::max);
        visible()
            .filter(|t| t.face.bounds.area() >= largest * AS_LARGE)
            .min_by_key(|t| (t.since, t.id))
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
    fn a_short_absence_keeps_the_id_a_long_one_does_not() {
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
    fn the_largest_face_is_the_subject_and_of_equals_the_first_seen() {
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
