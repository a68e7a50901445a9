//! Assigns ids to faces, which stay the same from one detection to the next, and chooses the subject: the one face that the
//! estimates describe.

use std::time::Duration;

use super::geometry::{Face, Rect};

/// A detection belongs to a known face if their boxes have at least this intersection over union.
pub const SAME_PERSON_IOU: f32 = 0.2;
/// How long a face keeps its id while it is not detected.
const MEMORY: Duration = Duration::from_secs(1);
/// Faces with at least this share of the largest face's area count as equally large.
const EQUAL_AREA: f32 = 0.75;
/// How long a larger face must have been seen before it replaces the subject. A pattern that resembles a face for a moment does
/// not last as long.
const NEWCOMER_AGE: Duration = Duration::from_secs(1);
/// A larger face with less than this share of the subject's score does not replace it.
const NEWCOMER_SCORE: f32 = 0.8;

/// Which part of the frame a detection covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All of it: a face that is not detected is not there.
    Whole,
    Part,
}

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
    last_whole: Duration,
    /// The subject of the latest frame that had one.
    subject: Option<u32>,
}

impl Tracker {
    pub fn last_id(&self) -> u32 {
        self.last_id
    }

    /// Gives new faces ids above `id`, so that a tracker that replaces another one uses none of its ids again.
    pub fn continue_ids_after(&mut self, id: u32) {
        self.last_id = self.last_id.max(id);
    }

    /// Adds the detected faces of the frame captured at `at`.
    pub fn update(&mut self, at: Duration, faces: &[Face], coverage: Coverage) {
        self.now = at;
        let last_whole = self.last_whole;
        self.tracks
            .retain(|t| at.saturating_sub(t.last_seen) <= MEMORY || t.last_seen >= last_whole);
        if coverage == Coverage::Whole {
            self.last_whole = at;
        }
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
            self.last_id = self.last_id.wrapping_add(1);
            self.tracks.push(Track {
                id: self.last_id,
                face: *face,
                first_seen: at,
                last_seen: at,
            });
        }
        self.choose_subject();
    }

    /// Moves face `id` to a position found without the detector.
    pub fn follow(&mut self, at: Duration, id: u32, face: Face) {
        self.now = at;
        if let Some(track) = self.tracks.iter_mut().find(|t| t.id == id) {
            track.face = face;
            track.last_seen = at;
        }
    }

    /// The subject, if it is visible in the latest frame. A visible subject stays the subject until a larger face has been
    /// visible for a while. Among faces of about equal size, the first seen is chosen, so that the subject does not alternate
    /// between two people side by side.
    pub fn subject(&self) -> Option<Track> {
        self.visible().find(|t| Some(t.id) == self.subject).copied()
    }

    /// Whether a larger face than the subject was in the last whole frame, and may soon replace it.
    pub fn is_contested(&self) -> bool {
        let Some(subject) = self.subject() else {
            return false;
        };
        let mut recent = self.tracks.iter().filter(|t| t.last_seen >= self.last_whole);
        recent.any(|t| is_rival(t, &subject))
    }

    /// The last place of a subject that is not visible in the latest frame, but keeps its id.
    pub fn last_place(&self) -> Option<Rect> {
        self.remembered_subject()
            .filter(|t| t.last_seen != self.now)
            .map(|t| t.face.bounds)
    }

    fn remembered_subject(&self) -> Option<&Track> {
        self.tracks
            .iter()
            .find(|t| Some(t.id) == self.subject && self.now.saturating_sub(t.last_seen) <= MEMORY)
    }

    fn visible(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|t| t.last_seen == self.now)
    }

    /// The largest visible face that is larger than the subject's, and of comparable score.
    fn rival(&self, subject: &Track) -> Option<&Track> {
        self.visible()
            .filter(|t| is_rival(t, subject))
            .max_by(|a, b| a.face.bounds.area().total_cmp(&b.face.bounds.area()))
    }

    fn choose_subject(&mut self) {
        let chosen = match self.remembered_subject() {
            Some(subject) if subject.last_seen == self.now => {
                let replaces = |rival: &&Track| self.now.saturating_sub(rival.first_seen) >= NEWCOMER_AGE;
                self.rival(subject).filter(replaces).or(Some(subject))
            }
            // A weak face does not replace a subject that is hidden for a moment.
            Some(subject) => self
                .first_of_the_largest(|t| is_credible_beside(t, subject))
                .or(Some(subject)),
            None => self.first_of_the_largest(|_| true),
        };
        self.subject = chosen.map(|t| t.id);
    }

    fn first_of_the_largest(&self, is_candidate: impl Fn(&Track) -> bool) -> Option<&Track> {
        let candidates = || self.visible().filter(|t| is_candidate(t));
        let largest = candidates().map(|t| t.face.bounds.area()).fold(0.0, f32::max);
        candidates()
            .filter(|t| t.face.bounds.area() >= largest * EQUAL_AREA)
            .min_by_key(|t| (t.first_seen, t.id))
    }
}

fn is_rival(face: &Track, subject: &Track) -> bool {
    is_credible_beside(face, subject) && face.face.bounds.area() * EQUAL_AREA > subject.face.bounds.area()
}

fn is_credible_beside(face: &Track, subject: &Track) -> bool {
    face.face.score >= subject.face.score * NEWCOMER_SCORE
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
        tracker.update(ms(0), &[face(0.0, 100.0)], Coverage::Whole);
        tracker.update(ms(400), &[face(300.0, 50.0), face(30.0, 100.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 1);
        tracker.update(ms(800), &[face(300.0, 50.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    #[test]
    fn a_face_keeps_its_id_after_a_short_absence_only() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)], Coverage::Whole);
        tracker.update(ms(500), &[], Coverage::Whole);
        assert_eq!(tracker.subject(), None);
        tracker.update(ms(900), &[face(0.0, 100.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 1);
        tracker.update(ms(1500), &[], Coverage::Whole);
        tracker.update(ms(2000), &[face(0.0, 100.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    #[test]
    fn a_larger_face_becomes_the_subject_when_it_has_been_seen_for_a_second() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)], Coverage::Whole);
        tracker.update(ms(400), &[face(0.0, 100.0), face(300.0, 105.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 1);
        tracker.update(ms(800), &[face(0.0, 100.0), face(300.0, 130.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 1);
        tracker.update(ms(1400), &[face(0.0, 100.0), face(300.0, 130.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    #[test]
    fn two_detections_never_share_an_id() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)], Coverage::Whole);
        tracker.update(ms(400), &[face(5.0, 100.0), face(20.0, 100.0)], Coverage::Whole);
        let mut ids: Vec<_> = tracker.tracks.iter().map(|t| t.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn among_faces_of_equal_size_the_first_seen_is_the_subject() {
        let mut tracker = Tracker::default();
        tracker.update(
            ms(0),
            &[face(0.0, 100.0), face(300.0, 105.0), face(600.0, 50.0)],
            Coverage::Whole,
        );
        assert_eq!(tracker.subject().unwrap().id, 1);
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0), face(300.0, 200.0)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    fn scored(x: f32, size: f32, score: f32) -> Face {
        Face { score, ..face(x, size) }
    }

    #[test]
    fn a_weak_larger_face_never_replaces_the_subject() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)], Coverage::Whole);
        for at in [400, 800, 1200, 1600, 2000] {
            tracker.update(ms(at), &[face(0.0, 100.0), scored(300.0, 300.0, 0.6)], Coverage::Whole);
            assert_eq!(tracker.subject().unwrap().id, 1);
            assert!(!tracker.is_contested());
        }
        tracker.update(ms(2400), &[scored(300.0, 300.0, 0.6)], Coverage::Whole);
        assert_eq!(tracker.subject(), None);
        assert!(tracker.last_place().is_some());
    }

    #[test]
    fn a_weak_face_becomes_the_subject_when_nobody_else_has_been_there_for_a_second() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0)], Coverage::Whole);
        tracker.update(ms(1200), &[scored(300.0, 300.0, 0.6)], Coverage::Whole);
        assert_eq!(tracker.subject().unwrap().id, 2);
    }

    #[test]
    fn a_face_outside_the_detected_part_keeps_its_id_until_the_whole_frame_is_detected() {
        let mut tracker = Tracker::default();
        tracker.update(ms(0), &[face(0.0, 100.0), face(300.0, 90.0)], Coverage::Whole);
        for at in [400, 800, 1200] {
            tracker.update(ms(at), &[face(0.0, 100.0)], Coverage::Part);
        }
        tracker.update(ms(1600), &[face(0.0, 100.0), face(300.0, 90.0)], Coverage::Whole);
        assert_eq!(tracker.tracks.len(), 2);
    }
}
