//! What the threads count. Every number only grows; reading them disturbs nobody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

#[derive(Debug, Default)]
pub struct Health {
    /// Pictures that came from the source.
    pub pictures: AtomicU64,
    /// Pictures dropped because a newer one came before anybody looked.
    pub pictures_skipped: Arc<AtomicU64>,
    /// Pictures not looked at, to keep to the configured rate.
    pub pictures_passed_over: AtomicU64,
    /// Pictures that could not be decoded.
    pub pictures_broken: AtomicU64,
    /// Pictures looked at, those with a face, and those the detector saw.
    pub looks: AtomicU64,
    pub faces: AtomicU64,
    pub detections: AtomicU64,
    /// Runs of samples that came from the source, and that were lost because nobody took them in time.
    pub chunks: AtomicU64,
    pub chunks_lost: Arc<AtomicU64>,
    pub estimates: AtomicU64,
    /// Estimates an output was too slow for.
    pub estimates_dropped: Arc<AtomicU64>,
    /// Times an output lost what it writes to, a port or a disk, or did not find it.
    pub outputs_lost: Arc<AtomicU64>,
}

impl Health {
    /// The record as of now.
    pub fn report(&self, uptime: Duration) -> HealthReport {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        HealthReport {
            schema: 1,
            uptime_s: uptime.as_secs(),
            camera: SourceState::Running,
            microphone: SourceState::Running,
            pictures: get(&self.pictures),
            pictures_skipped: get(&self.pictures_skipped),
            pictures_broken: get(&self.pictures_broken),
            faces: get(&self.faces),
            chunks_lost: get(&self.chunks_lost),
            estimates: get(&self.estimates),
            estimates_dropped: get(&self.estimates_dropped),
            temperature_c: None,
            problem: None,
        }
    }
}

/// A device or clip, as the health record tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Being opened, nothing captured yet.
    Starting,
    Running,
    /// Open, but nothing comes.
    Stalled,
    /// Not there, or not to be opened for now.
    Absent,
    /// Not wanted, or a clip that has ended.
    Off,
}

/// The health record: one JSON object, on request and every 30 s where an output carries it. Counters are totals since
/// the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthReport {
    pub schema: u8,
    pub uptime_s: u64,
    pub camera: SourceState,
    pub microphone: SourceState,
    pub pictures: u64,
    pub pictures_skipped: u64,
    pub pictures_broken: u64,
    pub faces: u64,
    pub chunks_lost: u64,
    pub estimates: u64,
    pub estimates_dropped: u64,
    /// Of the processor, where the kernel tells.
    pub temperature_c: Option<f32>,
    /// What is wrong, in words; null when nothing is.
    pub problem: Option<String>,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl fmt::Display for Health {
    /// One line for the log, with what is wrong only if something is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        write!(
            f,
            "{} estimates; {} pictures, {} looked at, {} with a face, {} detections",
            get(&self.estimates),
            get(&self.pictures),
            get(&self.looks),
            get(&self.faces),
            get(&self.detections),
        )?;
        for (counter, what) in [
            (&self.pictures_broken, "pictures broken"),
            (&*self.pictures_skipped, "pictures skipped"),
            (&*self.chunks_lost, "runs of sound lost"),
            (&*self.estimates_dropped, "estimates dropped"),
            (&*self.outputs_lost, "times an output was away"),
        ] {
            if get(counter) > 0 {
                write!(f, "; {} {what}", get(counter))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_losses_only_where_there_are_any() {
        let health = Health::default();
        insta::assert_snapshot!(health.to_string(), @"0 estimates; 0 pictures, 0 looked at, 0 with a face, 0 detections");
        count(&health.pictures_broken);
        insta::assert_snapshot!(health.to_string(), @"0 estimates; 0 pictures, 0 looked at, 0 with a face, 0 detections; 1 pictures broken");
    }
}
