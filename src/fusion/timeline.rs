//! Aligns face and voice observations in time.
//!
//! The network's window has [`STEPS`] steps; the newest one ends now. The face features of a step come from all frames that
//! were captured within it, its voice embedding from the second of audio that ends with it. Absent features are zero and
//! masked. Between the frames of a camera with fewer than 2.5 frames per second, the last face counts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::face::{Appearance, EXPRESSIONS, FaceObservation};
use crate::voice::{EMBEDDING_LEN, Embedding};

/// Steps in the network's window.
pub const STEPS: usize = 8;
/// The same, to multiply durations.
const STEPS_U32: u32 = 8;
const _: () = assert!(STEPS_U32 as usize == STEPS);
/// A face of a slow camera counts until the next frame is due, with half a frame interval of tolerance, but not longer than this.
const MAX_HOLD: Duration = Duration::from_millis(1250);
/// Face features per step: mean, maximum and log mean of the eight voted expressions, mean and log mean of the eight shown ones,
/// mean valence and arousal.
pub const FACE_FEATURES: usize = 5 * EXPRESSIONS.len() + 2;

/// The network's input: `[features][step]`, row-major, oldest step first.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    pub face: Vec<f32>,
    pub voice: Vec<f32>,
    /// Two rows, face and voice: 1 if present, else 0.
    pub mask: Vec<f32>,
    /// The newest step has a face.
    pub face_now: bool,
    /// The newest step has a voice.
    pub voice_now: bool,
}

impl Window {
    /// The shares of its steps with a face and with a voice.
    pub fn shares(&self) -> [f32; 2] {
        let share = |row: &[f32]| row.iter().sum::<f32>() / STEPS as f32;
        [share(&self.mask[..STEPS]), share(&self.mask[STEPS..])]
    }
}

/// Observations of the last few seconds.
#[derive(Debug)]
pub struct Timeline {
    step: Duration,
    ticks_per_step: u64,
    /// Oldest first.
    faces: VecDeque<FaceObservation>,
    /// By tick, oldest first.
    voices: VecDeque<(u64, Embedding)>,
}

impl Timeline {
    /// `step` is `ticks_per_step` ticks long.
    pub fn new(step: Duration, ticks_per_step: u64) -> Timeline {
        Timeline {
            step,
            ticks_per_step,
            faces: VecDeque::new(),
            voices: VecDeque::new(),
        }
    }

    /// Forgets all observations.
    pub fn clear(&mut self) {
        self.faces.clear();
        self.voices.clear();
    }

    /// Adds a face. Faces must come in the order of their time. A face with another id is another person: the steps of the person
    /// before are forgotten.
    pub fn add_face(&mut self, face: FaceObservation) {
        if self.faces.back().is_some_and(|last| last.id != face.id) {
            self.faces.clear();
        }
        self.faces.push_back(face);
    }

    /// Adds the voice of the second that ends at `tick`.
    pub fn add_voice(&mut self, tick: u64, embedding: Embedding) {
        self.voices.push_back((tick, embedding));
    }

    /// The newest face within the step that ends at `at`.
    pub fn newest_face(&self, at: Duration) -> Option<&FaceObservation> {
        self.faces_in_step(at).last().or_else(|| self.held_face(at))
    }

    /// The window at `tick`, whose time is `at`. Drops the observations that no later window needs.
    pub fn window(&mut self, tick: u64, at: Duration) -> Window {
        let span = self.step * STEPS_U32;
        self.faces.retain(|f| f.at + span + MAX_HOLD > at);
        let oldest_tick = tick.saturating_sub(self.ticks_per_step * (STEPS as u64 - 1));
        self.voices.retain(|(t, _)| *t >= oldest_tick);

        let mut window = Window {
            face: vec![0.0; FACE_FEATURES * STEPS],
            voice: vec![0.0; EMBEDDING_LEN * STEPS],
            mask: vec![0.0; 2 * STEPS],
            face_now: false,
            voice_now: false,
        };
        for (back, column) in (0..STEPS_U32).zip((0..STEPS).rev()) {
            if let Some(end) = at.checked_sub(self.step * back)
                && let Some(features) =
                    face_features(self.faces_in_step(end)).or_else(|| face_features(self.held_face(end).into_iter()))
            {
                put_column(&mut window.face, column, &features);
                window.mask[column] = 1.0;
                window.face_now |= back == 0;
            }
            if let Some(end) = tick.checked_sub(self.ticks_per_step * u64::from(back))
                && let Some((_, embedding)) = self.voices.iter().find(|(t, _)| *t == end)
            {
                put_column(&mut window.voice, column, embedding);
                window.mask[STEPS + column] = 1.0;
                window.voice_now |= back == 0;
            }
        }
        window
    }

    /// The newest face at `end`, if frames are further apart than a step and the next one is not due yet.
    fn held_face(&self, end: Duration) -> Option<&FaceObservation> {
        let newest = self.faces.iter().rev().find(|f| f.at <= end)?;
        let hold = (newest.frame_interval * 3 / 2).min(MAX_HOLD);
        (newest.frame_interval > self.step && newest.at + hold > end).then_some(newest)
    }

    fn faces_in_step(&self, end: Duration) -> impl Iterator<Item = &FaceObservation> {
        let step = self.step;
        self.faces.iter().filter(move |f| f.at <= end && f.at + step > end)
    }
}

fn put_column(rows: &mut [f32], column: usize, values: &[f32]) {
    for (row, value) in rows.chunks_exact_mut(STEPS).zip(values) {
        row[column] = *value;
    }
}

/// The network's features of the faces in one step, see [`FACE_FEATURES`]. `None` without faces.
fn face_features<'a>(faces: impl Iterator<Item = &'a FaceObservation>) -> Option<[f32; FACE_FEATURES]> {
    const N: usize = EXPRESSIONS.len();
    let mut features = [0.0; FACE_FEATURES];
    let mut count = 0;
    for face in faces {
        let Appearance {
            votes,
            shown,
            valence,
            arousal,
        } = face.appearance;
        for k in 0..N {
            features[k] += votes.0[k];
            features[N + k] = features[N + k].max(votes.0[k]);
            features[3 * N + k] += shown.0[k];
        }
        features[5 * N] += valence;
        features[5 * N + 1] += arousal;
        count += 1;
    }
    if count == 0 {
        return None;
    }
    for mean in [0..N, 3 * N..4 * N, 5 * N..5 * N + 2] {
        features[mean].iter_mut().for_each(|sum| *sum /= count as f32);
    }
    for (mean, log) in [(0, 2 * N), (3 * N, 4 * N)] {
        for k in 0..N {
            features[log + k] = scaled_log(features[mean + k]);
        }
    }
    Some(features)
}

/// The logarithm distinguishes 0.01 from 0.001, which a probability hardly does. It is scaled to about −1..1.
fn scaled_log(probability: f32) -> f32 {
    ((probability + 1e-3).ln() + 3.0) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::Expressions;
    use crate::face::geometry::Rect;
    use std::time::Instant;

    const TICK_MS: u64 = 200;

    fn timeline() -> Timeline {
        Timeline::new(Duration::from_millis(400), 2)
    }

    fn face(at_ms: u64, happiness: f32) -> FaceObservation {
        FaceObservation {
            at: Duration::from_millis(at_ms),
            captured: Instant::now(),
            id: 1,
            bounds: Rect::default(),
            score: 1.0,
            frame_interval: Duration::ZERO,
            appearance: Appearance {
                votes: Expressions([1.0 - happiness, happiness, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
                shown: Expressions([0.5, happiness / 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5 - happiness / 2.0]),
                valence: happiness,
                arousal: -happiness,
            },
            outline: Default::default(),
        }
    }

    fn window(timeline: &mut Timeline, tick: u64) -> Window {
        timeline.window(tick, Duration::from_millis(tick * TICK_MS))
    }

    #[test]
    fn an_empty_timeline_is_all_masked() {
        let w = window(&mut timeline(), 3);
        assert!(w.mask.iter().chain(&w.face).chain(&w.voice).all(|v| *v == 0.0));
        assert!(!w.face_now && !w.voice_now);
    }

    #[test]
    fn a_face_on_a_step_boundary_belongs_to_the_earlier_step() {
        let mut t = timeline();
        t.add_face(face(1600, 0.5));
        t.add_face(face(1601, 0.5));
        let w = window(&mut t, 10);
        // At 2.0 s the newest step is (1.6, 2.0].
        assert_eq!(w.mask[..STEPS], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!(w.shares(), [0.25, 0.0]);
        assert!(w.face_now);
    }

    #[test]
    fn the_face_of_a_slow_camera_counts_until_the_next_frame_is_due() {
        let mut t = timeline();
        for at in [1000, 2000, 3000] {
            t.add_face(FaceObservation {
                frame_interval: Duration::from_secs(1),
                ..face(at, 0.5)
            });
        }
        let w = window(&mut t, 20);
        // At 4.0 s; the first frame is at 1.0 s.
        assert_eq!(w.mask[..STEPS], [1.0; STEPS]);
        assert!(t.newest_face(Duration::from_millis(4200)).is_some());
        assert!(t.newest_face(Duration::from_millis(4300)).is_none());
        let mut fast = timeline();
        fast.add_face(FaceObservation {
            frame_interval: Duration::from_millis(100),
            ..face(3000, 0.5)
        });
        assert!(fast.newest_face(Duration::from_millis(3400)).is_none());
    }

    #[test]
    fn a_step_has_means_maxima_and_log_means_of_its_faces() {
        let mut t = timeline();
        t.add_face(face(1700, 0.2));
        t.add_face(face(1900, 0.8));
        let w = window(&mut t, 10);
        let feature = |k: usize| w.face[k * STEPS + STEPS - 1];
        assert_eq!(feature(1), 0.5);
        assert_eq!(feature(8 + 1), 0.8);
        assert!((feature(16 + 1) - ((0.501f32).ln() + 3.0) / 4.0).abs() < 1e-6);
        assert_eq!(feature(24 + 7), 0.25);
        assert!((feature(32 + 7) - ((0.251f32).ln() + 3.0) / 4.0).abs() < 1e-6);
        assert_eq!((feature(40), feature(41)), (0.5, -0.5));
    }

    #[test]
    fn a_face_later_than_the_tick_is_used_at_the_next() {
        let mut t = timeline();
        t.add_face(face(2100, 0.5));
        assert!(!window(&mut t, 10).face_now);
        assert!(window(&mut t, 11).face_now);
    }

    #[test]
    fn voices_are_read_one_step_apart_and_dropped_after_the_window() {
        let mut t = timeline();
        for tick in 0..20 {
            t.add_voice(tick, [tick as f32; EMBEDDING_LEN]);
        }
        let w = window(&mut t, 19);
        assert_eq!(w.voice[..STEPS], [5.0, 7.0, 9.0, 11.0, 13.0, 15.0, 17.0, 19.0]);
        assert_eq!(t.voices.len(), 15);
    }

    #[test]
    fn another_person_replaces_the_one_before() {
        let mut t = timeline();
        t.add_face(face(1100, 0.5));
        t.add_face(FaceObservation {
            id: 2,
            ..face(1900, 0.5)
        });
        assert_eq!(window(&mut t, 10).mask[..STEPS], [0., 0., 0., 0., 0., 0., 0., 1.]);
    }
}
