//! Finds a stage that hangs, in a driver or because of a bug. Such a stage reports nothing: it shows only in a counter that no
//! longer grows.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::health::{Health, SourceHealth, SourceState};

/// For face and fusion: far longer than a frame or an estimate takes on the slowest board.
const STAGE_LIMIT: Duration = Duration::from_secs(5);
/// For a running source. It notices itself that its device sends nothing, at the lowest rate within 30 s.
const SOURCE_LIMIT: Duration = Duration::from_secs(35);

/// A thread of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Fusion,
    Face,
    Camera,
    Microphone,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Fusion => "fusion",
            Stage::Face => "face",
            Stage::Camera => "camera",
            Stage::Microphone => "microphone",
        })
    }
}

/// Watches the counters of all stages.
pub struct StallDetector {
    fusion: Progress,
    face: Progress,
    /// The number of frames when the face stage last made progress.
    frames_at_face_progress: u64,
    camera: Progress,
    microphone: Progress,
}

/// A stage's counter, and when it last changed.
#[derive(Clone, Copy)]
struct Progress {
    count: u64,
    changed: Instant,
}

impl Progress {
    /// Records the count at `now`. A stage without work need not make progress.
    fn update(&mut self, count: u64, has_work: bool, now: Instant) {
        if count != self.count || !has_work {
            *self = Progress { count, changed: now };
        }
    }

    fn is_stalled(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.changed) > limit
    }
}

impl StallDetector {
    pub fn new(now: Instant) -> StallDetector {
        let none = Progress { count: 0, changed: now };
        StallDetector {
            fusion: none,
            face: none,
            frames_at_face_progress: 0,
            camera: none,
            microphone: none,
        }
    }

    /// The stage that hangs, if one does. Call it several times a second.
    pub fn find(&mut self, health: &Health, now: Instant) -> Option<Stage> {
        let frames = health.frames.load(Relaxed);
        let processed = health.frames_analyzed.load(Relaxed)
            + health.frames_not_due.load(Relaxed)
            + health.frames_undecodable.load(Relaxed);
        if processed != self.face.count {
            self.frames_at_face_progress = frames;
        }
        // One frame may be in process and one may wait. A third one shows that the stage does not take frames.
        let face_has_work = frames > self.frames_at_face_progress + 2;
        self.face.update(processed, face_has_work, now);
        self.fusion.update(health.estimates.load(Relaxed), true, now);
        let is_running = |source: &SourceHealth| source.get() == SourceState::Running;
        self.camera.update(frames, is_running(&health.camera), now);
        let audio_blocks = health.audio_blocks.load(Relaxed);
        self.microphone
            .update(audio_blocks, is_running(&health.microphone), now);
        let stages = [
            (Stage::Fusion, self.fusion, STAGE_LIMIT),
            (Stage::Face, self.face, STAGE_LIMIT),
            (Stage::Camera, self.camera, SOURCE_LIMIT),
            (Stage::Microphone, self.microphone, SOURCE_LIMIT),
        ];
        let stalled = stages
            .into_iter()
            .find(|(_, stage, limit)| stage.is_stalled(*limit, now));
        stalled.map(|(stage, ..)| stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `update` for each second, and returns what was found after each.
    fn watch(seconds: u64, update: impl Fn(&Health, u64)) -> Vec<Option<Stage>> {
        let (health, start) = (Health::default(), Instant::now());
        let mut detector = StallDetector::new(start);
        (0..seconds)
            .map(|second| {
                update(&health, second);
                detector.find(&health, start + Duration::from_secs(second))
            })
            .collect()
    }

    fn all_progress(health: &Health) {
        health.camera.set(SourceState::Running, None);
        for counter in [&health.frames, &health.frames_analyzed, &health.estimates] {
            counter.fetch_add(5, Relaxed);
        }
    }

    #[test]
    fn stages_that_make_progress_or_have_no_work_do_not_stall() {
        let found = watch(100, |health, second| match second {
            // The camera is disconnected for a minute: there are no frames to analyze.
            20..80 => {
                health.camera.set(SourceState::Absent, Some("not connected".into()));
                health.estimates.fetch_add(5, Relaxed);
            }
            _ => all_progress(health),
        });
        assert_eq!(found, [None; 100]);
    }

    #[test]
    fn a_face_stage_that_ignores_frames_has_stalled() {
        let found = watch(20, |health, second| {
            all_progress(health);
            if second >= 10 {
                health.frames_analyzed.fetch_sub(5, Relaxed);
            }
        });
        assert_eq!(found[..15], [None; 15]);
        assert_eq!(found[16..], [Some(Stage::Face); 4]);
    }

    #[test]
    fn a_fusion_stage_without_estimates_has_stalled() {
        let found = watch(20, |health, second| {
            all_progress(health);
            if second >= 10 {
                health.estimates.fetch_sub(5, Relaxed);
            }
        });
        assert_eq!((found[14], found[16]), (None, Some(Stage::Fusion)));
    }

    #[test]
    fn a_running_camera_without_frames_has_stalled() {
        let found = watch(60, |health, second| match second {
            10.. => {
                health.estimates.fetch_add(5, Relaxed);
            }
            _ => all_progress(health),
        });
        assert_eq!((found[40], found[50]), (None, Some(Stage::Camera)));
    }
}
