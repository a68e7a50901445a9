//! Counters and states that the threads keep, and the health record made from them. Counters only grow, and reading them
//! never blocks a thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::privacy::PauseSwitch;

mod atomic_f32;
mod board;
mod busy_time;
mod latency;
mod report;
mod source;
mod temperature;

pub use atomic_f32::AtomicF32;
pub use board::{BoardState, SharedBoardState};
pub use busy_time::BusyTime;
pub use latency::{Latency, LatencyHistogram};
pub use report::{HealthReport, MqttHealth};
pub use source::{CameraCounters, MicrophoneCounters, SourceHealth, SourceState};
pub use temperature::temperature_c;

/// The problem of a board whose voltage is low. Then cameras disconnect, and SD cards lose data.
pub const LOW_VOLTAGE: &str = "board: low voltage: use a stronger power supply and a shorter cable";

#[derive(Debug, Default)]
pub struct Health {
    pub camera: SourceHealth,
    pub microphone: SourceHealth,
    /// Says why the devices are closed.
    pub pause: Arc<PauseSwitch>,
    pub camera_counters: CameraCounters,
    pub microphone_counters: MicrophoneCounters,
    /// Frames analyzed per second, at most.
    pub face_rate_hz: AtomicF32,
    /// Frames that the source delivered.
    pub frames: AtomicU64,
    /// Frames dropped because a newer one came before the face stage was free.
    pub frames_skipped: Arc<AtomicU64>,
    /// Frames not analyzed, to keep to the face rate.
    pub frames_not_due: AtomicU64,
    pub frames_undecodable: AtomicU64,
    pub frames_analyzed: AtomicU64,
    pub frames_with_face: AtomicU64,
    /// Time that each stage has worked.
    pub face_busy: BusyTime,
    pub voice_busy: BusyTime,
    pub fusion_busy: BusyTime,
    /// Runs of the face detector.
    pub detections: AtomicU64,
    /// Audio blocks that the source delivered.
    pub audio_blocks: AtomicU64,
    /// Audio blocks dropped because the fusion stage was too slow.
    pub audio_blocks_lost: Arc<AtomicU64>,
    pub estimates: AtomicU64,
    /// Estimates that an output dropped because it was too slow or absent.
    pub estimates_dropped: Arc<AtomicU64>,
    /// How often an output lost its port, disk or broker, or did not find it at the start.
    pub output_outages: Arc<AtomicU64>,
    /// Estimates that were left out because the process was suspended.
    pub estimates_skipped: AtomicU64,
    /// From capture to output.
    pub latency: Latency,
    pub board: SharedBoardState,
}

impl Health {
    /// The health record as of now.
    pub fn report(&self, uptime: Duration) -> HealthReport {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let BoardState { low_voltage, throttled } = self.board.get();
        HealthReport {
            schema: 1,
            uptime_s: uptime.as_secs(),
            camera: self.camera.get(),
            microphone: self.microphone.get(),
            paused_by: self.pause.reasons(),
            face_rate_hz: self.face_rate_hz.get(),
            frames: get(&self.frames),
            frames_skipped: get(&self.frames_skipped) + get(&self.camera_counters.skipped),
            frames_undecodable: get(&self.frames_undecodable),
            frames_malformed: get(&self.camera_counters.malformed),
            frames_missed: get(&self.camera_counters.missed),
            frames_with_face: get(&self.frames_with_face),
            xruns: get(&self.microphone_counters.xruns),
            audio_blocks_lost: get(&self.audio_blocks_lost),
            estimates: get(&self.estimates),
            estimates_dropped: get(&self.estimates_dropped),
            estimates_skipped: get(&self.estimates_skipped),
            latency_p50_ms: self.latency.percentile_ms(50),
            latency_p99_ms: self.latency.percentile_ms(99),
            temperature_c: temperature_c(),
            low_voltage,
            throttled,
            problem: self.problem(),
            mqtt: None,
        }
    }

    /// A device that may be open, or that is waited for; `None` if all are closed and stay closed.
    pub fn device_in_use(&self) -> Option<&'static str> {
        let in_use = |source: &SourceHealth| !matches!(source.get(), SourceState::Paused | SourceState::Off);
        [("camera", &self.camera), ("microphone", &self.microphone)]
            .into_iter()
            .find_map(|(name, source)| in_use(source).then_some(name))
    }

    /// What is wrong with the devices and the board; `None` if nothing is.
    fn problem(&self) -> Option<String> {
        let sources = [("camera", &self.camera), ("microphone", &self.microphone)];
        let devices = sources
            .iter()
            .filter_map(|(name, source)| source.problem().map(|why| format!("{name} {}: {why}", source.get())));
        let low_voltage = (self.board.get().low_voltage == Some(true)).then(|| LOW_VOLTAGE.to_owned());
        let problems: Vec<String> = devices.chain(low_voltage).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// The part of the record whose changes are reported at once.
    pub fn condition(&self) -> impl PartialEq + use<> {
        let states = (self.camera.get(), self.microphone.get(), self.pause.reasons());
        (states, self.face_rate_hz.get(), self.board.get(), self.problem())
    }
}

/// Gives health reports as of now.
#[derive(Debug, Clone)]
pub struct LiveHealth {
    health: Arc<Health>,
    started: Instant,
}

impl LiveHealth {
    /// The uptime in the reports counts from now.
    pub fn of(health: Arc<Health>) -> LiveHealth {
        LiveHealth {
            health,
            started: Instant::now(),
        }
    }

    pub fn report(&self) -> HealthReport {
        self.health.report(self.started.elapsed())
    }

    /// See [`Health::device_in_use`].
    pub fn device_in_use(&self) -> Option<&'static str> {
        self.health.device_in_use()
    }
}

impl Default for LiveHealth {
    fn default() -> LiveHealth {
        LiveHealth::of(Arc::default())
    }
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl fmt::Display for Health {
    /// One line for the log. Faults are mentioned only if there were any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        write!(
            f,
            "{}; {} frames, {} analyzed, {} with a face, {} detections",
            match get(&self.estimates) {
                1 => "1 estimate".to_owned(),
                estimates => format!("{estimates} estimates"),
            },
            get(&self.frames),
            get(&self.frames_analyzed),
            get(&self.frames_with_face),
            get(&self.detections),
        )?;
        for (label, counter) in [
            ("undecodable frames", &self.frames_undecodable),
            ("malformed frames", &*self.camera_counters.malformed),
            ("frames missed by the driver", &*self.camera_counters.missed),
            ("audio overruns", &*self.microphone_counters.xruns),
            ("estimates left out", &self.estimates_skipped),
            ("skipped frames", &*self.frames_skipped),
            ("lost audio blocks", &*self.audio_blocks_lost),
            ("dropped estimates", &*self.estimates_dropped),
            ("output outages", &*self.output_outages),
        ] {
            if get(counter) > 0 {
                write!(f, "; {label}: {}", get(counter))?;
            }
        }
        if let (Some(median), Some(p99)) = (self.latency.percentile_ms(50), self.latency.percentile_ms(99)) {
            write!(f, "; latency: median {median} ms, 99th percentile {p99} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::Closed;

    #[test]
    fn the_summary_mentions_faults_only_if_there_were_any() {
        let health = Health::default();
        insta::assert_snapshot!(health.to_string(), @"0 estimates; 0 frames, 0 analyzed, 0 with a face, 0 detections");
        count(&health.frames_undecodable);
        insta::assert_snapshot!(health.to_string(), @"0 estimates; 0 frames, 0 analyzed, 0 with a face, 0 detections; undecodable frames: 1");
        health.latency.record(Duration::from_millis(17));
        let summary = health.to_string();
        assert!(
            summary.ends_with("; latency: median 17 ms, 99th percentile 17 ms"),
            "{summary}"
        );
    }

    #[test]
    fn the_record_holds_the_state_of_each_source_and_the_problem() {
        let health = Health::default();
        health.camera.set(
            SourceState::Stalled,
            Some("/dev/video0: sent no frame for 1.0 s".into()),
        );
        health.microphone.set(SourceState::Running, None);
        health.face_rate_hz.set(2.5);
        health.pause.set_closed(Some(Closed::OffHours));
        health.board.set(BoardState {
            low_voltage: Some(true),
            throttled: None,
        });
        let report = HealthReport {
            temperature_c: Some(51.5),
            ..health.report(Duration::from_secs(3600))
        };
        insta::assert_snapshot!(serde_json::to_string(&report).unwrap(), @r#"{"schema":1,"uptime_s":3600,"camera":"stalled","microphone":"running","paused_by":["off_hours"],"face_rate_hz":2.5,"frames":0,"frames_skipped":0,"frames_undecodable":0,"frames_malformed":0,"frames_missed":0,"frames_with_face":0,"xruns":0,"audio_blocks_lost":0,"estimates":0,"estimates_dropped":0,"estimates_skipped":0,"latency_p50_ms":null,"latency_p99_ms":null,"temperature_c":51.5,"low_voltage":true,"throttled":null,"problem":"camera stalled: /dev/video0: sent no frame for 1.0 s; board: low voltage: use a stronger power supply and a shorter cable"}"#);
    }
}
