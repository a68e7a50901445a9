//! What the threads count. Every number only grows; reading them disturbs nobody.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

mod latency;
mod source;

pub use latency::Latency;
pub use source::{CameraCounters, MicrophoneCounters, SourceHealth, SourceState};

#[derive(Debug, Default)]
pub struct Health {
    pub camera: SourceHealth,
    pub microphone: SourceHealth,
    pub camera_counters: CameraCounters,
    pub microphone_counters: MicrophoneCounters,
    /// Pictures looked at a second, at most, in thousandths.
    pub face_rate_mhz: AtomicU64,
    /// Pictures that came from the source.
    pub frames: AtomicU64,
    /// Pictures dropped because a newer one came before anybody looked.
    pub frames_skipped: Arc<AtomicU64>,
    /// Pictures not looked at, to keep to the configured rate.
    pub frames_not_due: AtomicU64,
    /// Pictures that could not be decoded.
    pub frames_undecodable: AtomicU64,
    /// Pictures looked at, those with a face, and those the detector saw.
    pub looks: AtomicU64,
    pub faces: AtomicU64,
    pub detections: AtomicU64,
    /// Runs of samples that came from the source, and that were lost because nobody took them in time.
    pub audio_blocks: AtomicU64,
    pub audio_blocks_lost: Arc<AtomicU64>,
    pub estimates: AtomicU64,
    /// Estimates an output was too slow for.
    pub estimates_dropped: Arc<AtomicU64>,
    /// Times an output lost what it writes to, a port or a disk, or did not find it.
    pub outputs_lost: Arc<AtomicU64>,
    /// Ticks left out since the process stood still for longer than a tick is worth making up for.
    pub estimates_skipped: AtomicU64,
    /// From capture to having been written.
    pub latency: Latency,
}

impl Health {
    /// The record as of now.
    pub fn report(&self, uptime: Duration) -> HealthReport {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        HealthReport {
            schema: 1,
            uptime_s: uptime.as_secs(),
            camera: self.camera.get(),
            microphone: self.microphone.get(),
            face_rate_hz: get(&self.face_rate_mhz) as f32 / 1000.0,
            frames: get(&self.frames),
            frames_skipped: get(&self.frames_skipped) + get(&self.camera_counters.skipped),
            frames_undecodable: get(&self.frames_undecodable),
            frames_malformed: get(&self.camera_counters.malformed),
            frames_missed: get(&self.camera_counters.missed),
            faces: get(&self.faces),
            xruns: get(&self.microphone_counters.xruns),
            audio_blocks_lost: get(&self.audio_blocks_lost),
            estimates: get(&self.estimates),
            estimates_dropped: get(&self.estimates_dropped),
            estimates_skipped: get(&self.estimates_skipped),
            latency_p50_ms: self.latency.quantile_ms(0.5),
            latency_p99_ms: self.latency.quantile_ms(0.99),
            temperature_c: temperature_c(),
            problem: self.problem(),
        }
    }

    /// What is wrong with the devices, if anything is.
    fn problem(&self) -> Option<String> {
        let sources = [("camera", &self.camera), ("microphone", &self.microphone)];
        let problems: Vec<String> = sources
            .iter()
            .filter_map(|(what, source)| source.problem().map(|why| format!("{what} {}: {why}", source.get())))
            .collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// The part of the record that somebody acts on: it is told as soon as it changes.
    pub fn condition(&self) -> impl PartialEq + use<> {
        let states = (self.camera.get(), self.microphone.get());
        (states, self.face_rate_mhz.load(Relaxed), self.problem())
    }
}

/// The hottest of the kernel's thermal zones: on boards they are all of the one chip.
pub fn temperature_c() -> Option<f32> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?.flatten();
    let read = |zone: fs::DirEntry| {
        let text = fs::read_to_string(zone.path().join("temp")).ok()?;
        let thousandths: f32 = text.trim().parse().ok()?;
        Some(thousandths / 1000.0)
    };
    // Sensors that are switched off say nonsense.
    zones
        .filter_map(read)
        .filter(|t| (-40.0..150.0).contains(t))
        .max_by(f32::total_cmp)
}

/// The health record: one JSON object, on request, every 30 s and whenever a device's state changes, where an output carries
/// it. Counters are totals since the start.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct HealthReport {
    pub schema: u8,
    pub uptime_s: u64,
    pub camera: SourceState,
    pub microphone: SourceState,
    /// Pictures looked at a second, at most: less than configured while the board is too busy or too hot.
    pub face_rate_hz: f32,
    pub frames: u64,
    pub frames_skipped: u64,
    pub frames_undecodable: u64,
    /// Pictures that were not what the camera's driver said, and pictures it had no room for.
    pub frames_malformed: u64,
    pub frames_missed: u64,
    pub faces: u64,
    /// Times the microphone's buffer overran.
    pub xruns: u64,
    pub audio_blocks_lost: u64,
    pub estimates: u64,
    pub estimates_dropped: u64,
    /// Ticks left out since the process stood still.
    pub estimates_skipped: u64,
    /// From capture to having been written, since the start; null before the first estimate.
    pub latency_p50_ms: Option<u32>,
    pub latency_p99_ms: Option<u32>,
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
            get(&self.frames),
            get(&self.looks),
            get(&self.faces),
            get(&self.detections),
        )?;
        for (counter, what) in [
            (&self.frames_undecodable, "pictures broken"),
            (&*self.camera_counters.malformed, "pictures not what the driver said"),
            (&*self.camera_counters.missed, "pictures missed by the driver"),
            (&*self.microphone_counters.xruns, "overruns"),
            (&self.estimates_skipped, "ticks missed"),
            (&*self.frames_skipped, "pictures skipped"),
            (&*self.audio_blocks_lost, "runs of sound lost"),
            (&*self.estimates_dropped, "estimates dropped"),
            (&*self.outputs_lost, "times an output was away"),
        ] {
            if get(counter) > 0 {
                write!(f, "; {} {what}", get(counter))?;
            }
        }
        if let (Some(half), Some(most)) = (self.latency.quantile_ms(0.5), self.latency.quantile_ms(0.99)) {
            write!(f, "; latency {half} ms, 99 % within {most} ms")?;
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
        count(&health.frames_undecodable);
        insta::assert_snapshot!(health.to_string(), @"0 estimates; 0 pictures, 0 looked at, 0 with a face, 0 detections; 1 pictures broken");
        health.latency.record(Duration::from_millis(17));
        assert!(health.to_string().ends_with("; latency 17 ms, 99 % within 17 ms"));
    }

    #[test]
    fn the_record_says_what_each_source_does_and_what_is_wrong() {
        let health = Health::default();
        health.camera.set(
            SourceState::Stalled,
            Some("/dev/video0: sent no picture for 1.0 s".into()),
        );
        health.microphone.set(SourceState::Running, None);
        let report = HealthReport {
            temperature_c: Some(51.5),
            ..health.report(Duration::from_secs(3600))
        };
        insta::assert_snapshot!(serde_json::to_string(&report).unwrap(), @r#"{"schema":1,"uptime_s":3600,"camera":"stalled","microphone":"running","face_rate_hz":0.0,"frames":0,"frames_skipped":0,"frames_undecodable":0,"frames_malformed":0,"frames_missed":0,"faces":0,"xruns":0,"audio_blocks_lost":0,"estimates":0,"estimates_dropped":0,"estimates_skipped":0,"latency_p50_ms":null,"latency_p99_ms":null,"temperature_c":51.5,"problem":"camera stalled: /dev/video0: sent no picture for 1.0 s"}"#);
    }
}
