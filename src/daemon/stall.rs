//! Whether every stage moves that has something to do. A stage that hangs, in a driver or for a fault of ours, does not say
//! so: it is known by the count that no longer grows.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::health::{Health, SourceHealth, SourceState};

/// For a stage between queues: far longer than any picture or tick takes on the slowest board.
const STAGE: Duration = Duration::from_secs(5);
/// For a source that says it runs: it notices by itself when a device sends nothing, within 30 s at the slowest rate.
const SOURCE: Duration = Duration::from_secs(35);

/// How far each stage had come, and when that last changed.
pub struct StallDetector {
    fusion: Mark,
    face: Mark,
    /// Pictures there were when the face stage last moved.
    pictures: u64,
    camera: Mark,
    microphone: Mark,
}

#[derive(Clone, Copy)]
struct Mark {
    count: u64,
    moved: Instant,
}

impl Mark {
    /// Takes the count as of `now`. A stage without work is not held to it.
    fn note(&mut self, count: u64, has_work: bool, now: Instant) {
        if count != self.count || !has_work {
            *self = Mark { count, moved: now };
        }
    }

    fn rests(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) > limit
    }
}

impl StallDetector {
    pub fn new(now: Instant) -> StallDetector {
        let mark = Mark { count: 0, moved: now };
        StallDetector {
            fusion: mark,
            face: mark,
            pictures: 0,
            camera: mark,
            microphone: mark,
        }
    }

    /// The stage that hangs, if one does. To be asked several times a second.
    pub fn find(&mut self, health: &Health, now: Instant) -> Option<&'static str> {
        let pictures = health.frames.load(Relaxed);
        let faced = [&health.looks, &health.frames_not_due, &health.frames_undecodable];
        let faced = faced.iter().map(|counter| counter.load(Relaxed)).sum();
        if faced != self.face.count {
            self.pictures = pictures;
        }
        // One may be in work and one may wait: a third shows that nobody looks.
        self.face.note(faced, pictures > self.pictures + 2, now);
        self.fusion.note(health.estimates.load(Relaxed), true, now);
        let runs = |source: &SourceHealth| source.get() == SourceState::Running;
        self.camera.note(pictures, runs(&health.camera), now);
        let chunks = health.audio_blocks.load(Relaxed);
        self.microphone.note(chunks, runs(&health.microphone), now);
        let stages = [
            ("fusion", self.fusion, STAGE),
            ("face", self.face, STAGE),
            ("camera", self.camera, SOURCE),
            ("microphone", self.microphone, SOURCE),
        ];
        let hangs = |(_, mark, limit): &(_, Mark, _)| mark.rests(*limit, now);
        stages.into_iter().find(hangs).map(|(stage, ..)| stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `second` happen to the counters once a second, and gives what was found after each.
    fn watch(seconds: u64, second: impl Fn(&Health, u64)) -> Vec<Option<&'static str>> {
        let (health, start) = (Health::default(), Instant::now());
        let mut stall = StallDetector::new(start);
        (0..seconds)
            .map(|s| {
                second(&health, s);
                stall.find(&health, start + Duration::from_secs(s))
            })
            .collect()
    }

    fn all_move(health: &Health) {
        health.camera.set(SourceState::Running, None);
        for counter in [&health.frames, &health.looks, &health.estimates] {
            counter.fetch_add(5, Relaxed);
        }
    }

    #[test]
    fn what_moves_does_not_hang_and_what_has_no_work_neither() {
        let found = watch(100, |health, s| match s {
            // The camera is pulled out for a minute: no pictures to look at.
            20..80 => {
                health.camera.set(SourceState::Absent, Some("not connected".into()));
                health.estimates.fetch_add(5, Relaxed);
            }
            _ => all_move(health),
        });
        assert_eq!(found, [None; 100]);
    }

    #[test]
    fn a_face_stage_that_looks_at_nothing_any_more_hangs() {
        let found = watch(20, |health, s| {
            all_move(health);
            if s >= 10 {
                health.looks.fetch_sub(5, Relaxed);
            }
        });
        assert_eq!(found[..15], [None; 15]);
        assert_eq!(found[16..], [Some("face"); 4]);
    }

    #[test]
    fn no_estimates_are_the_fusion_stages_fault() {
        let found = watch(20, |health, s| {
            all_move(health);
            if s >= 10 {
                health.estimates.fetch_sub(5, Relaxed);
            }
        });
        assert_eq!((found[14], found[16]), (None, Some("fusion")));
    }

    #[test]
    fn a_camera_that_says_it_runs_and_sends_nothing_hangs_in_its_driver() {
        let found = watch(60, |health, s| match s {
            10.. => {
                health.estimates.fetch_add(5, Relaxed);
            }
            _ => all_move(health),
        });
        assert_eq!((found[40], found[50]), (None, Some("camera")));
    }
}
