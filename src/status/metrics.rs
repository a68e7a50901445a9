//! Metrics for Prometheus, in OpenMetrics or in the older text format.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::accept::MetricsFormat;
use super::context::{OutputState, StatusContext};
use super::events::VERSION;
use crate::fusion::Estimate;
use crate::health::{Health, SourceState, temperature_c};

/// Upper bounds of the buckets of the latency.
const LATENCY_BOUNDS_MS: [u32; 9] = [5, 10, 20, 50, 100, 200, 300, 500, 999];

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that a scrape reads, as of now.
pub struct Snapshot {
    pub health: Arc<Health>,
    pub uptime: Duration,
    pub paused: bool,
    pub model: String,
    pub outputs: Vec<OutputState>,
    pub last: Option<Arc<Estimate>>,
}

impl Snapshot {
    pub fn of(
        context: &StatusContext,
        uptime: Duration,
        outputs: Vec<OutputState>,
        last: Option<Arc<Estimate>>,
    ) -> Self {
        Snapshot {
            health: Arc::clone(&context.health),
            uptime,
            paused: context.pause.is_paused(),
            model: context.model.get(),
            outputs,
            last,
        }
    }

    /// The metrics as a text, and its media type.
    pub fn encode(self, format: MetricsFormat) -> (String, &'static str) {
        let mut registry = Registry::with_prefix("affectd");
        registry.register_collector(Box::new(self));
        let mut buffer = String::new();
        let (written, media_type) = match format {
            MetricsFormat::PlainText => (
                prometheus_text::encode(&mut buffer, &registry),
                prometheus_text::CONTENT_TYPE,
            ),
            MetricsFormat::OpenMetrics => (text::encode(&mut buffer, &registry), OPEN_METRICS),
        };
        written.expect("writing into a string cannot fail");
        (buffer, media_type)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_counters(&mut encoder)?;
        self.encode_stages(&mut encoder)?;
        self.encode_sources(&mut encoder)?;
        self.encode_outputs(&mut encoder)?;
        self.encode_estimate(&mut encoder)?;
        self.encode_process(&mut encoder)
    }
}

impl Snapshot {
    fn encode_counters(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let health = &self.health;
        let skipped = health.frames_skipped.load(Relaxed) + health.camera_counters.skipped.load(Relaxed);
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        for (name, help, value) in [
            ("frames", "Frames that the source delivered", get(&health.frames)),
            (
                "frames_skipped",
                "Frames dropped because a newer one was there",
                skipped,
            ),
            (
                "frames_not_due",
                "Frames not analysed, to keep to the face rate",
                get(&health.frames_not_due),
            ),
            (
                "frames_undecodable",
                "Frames that cannot be decoded",
                get(&health.frames_undecodable),
            ),
            (
                "frames_malformed",
                "Frames whose content differs from what the driver announced",
                get(&health.camera_counters.malformed),
            ),
            (
                "frames_missed",
                "Frames that the driver dropped because it had no free buffer",
                get(&health.camera_counters.missed),
            ),
            ("frames_analyzed", "Frames analysed", get(&health.frames_analyzed)),
            ("frames_with_face", "Frames with a face", get(&health.frames_with_face)),
            ("face_detections", "Runs of the face detector", get(&health.detections)),
            (
                "audio_blocks",
                "Audio blocks that the source delivered",
                get(&health.audio_blocks),
            ),
            (
                "audio_blocks_lost",
                "Audio blocks dropped because the fusion stage was too slow",
                get(&health.audio_blocks_lost),
            ),
            (
                "audio_overruns",
                "Overruns of the microphone's buffer",
                get(&health.microphone_counters.xruns),
            ),
            ("estimates", "Estimates made", get(&health.estimates)),
            (
                "estimates_dropped",
                "Estimates that an output dropped because it was too slow or absent",
                get(&health.estimates_dropped),
            ),
            (
                "estimates_skipped",
                "Estimates left out because the process was suspended",
                get(&health.estimates_skipped),
            ),
            (
                "output_outages",
                "How often an output lost its port, disk or broker, or did not find it at the start",
                get(&health.output_outages),
            ),
        ] {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(encoder)?;
        }
        Ok(())
    }

    fn encode_stages(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut busy = encoder.encode_descriptor(
            "stage_busy",
            "Time that a stage has worked",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        for (stage, time) in [
            ("face", &self.health.face_busy),
            ("voice", &self.health.voice_busy),
            ("fusion", &self.health.fusion_busy),
        ] {
            ConstCounter::new(time.total().as_secs_f64()).encode(busy.encode_family(&[("stage", stage)])?)?;
        }
        let histogram = self.health.latency.histogram(&LATENCY_BOUNDS_MS);
        encoder
            .encode_descriptor(
                "latency",
                "From the capture of the newest input of an estimate to its output; more than a second counts as one",
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(histogram.sum_s, histogram.count, &histogram.buckets, None)
    }

    fn encode_sources(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "The state of a source: 1 for the present state, 0 for the others";
        let mut states = encoder.encode_descriptor("source_state", help, None, MetricType::Gauge)?;
        for (source, current) in [
            ("camera", self.health.camera.get()),
            ("microphone", self.health.microphone.get()),
        ] {
            for state in SourceState::ALL {
                let name = state.to_string();
                let labels = [("source", source), ("state", name.as_str())];
                ConstGauge::new(i64::from(state == current)).encode(states.encode_family(&labels)?)?;
            }
        }
        let rate = f64::from(self.health.face_rate_hz.get());
        let hertz = Unit::Other("hertz".into());
        let help = "Frames analysed per second, at most";
        gauge(encoder, "face_rate", help, Some(&hertz), Some(rate))?;
        let paused = f64::from(u8::from(self.paused));
        gauge(
            encoder,
            "paused",
            "1 while the camera and the microphone are closed, on request or by privacy.off",
            None,
            Some(paused),
        )
    }

    fn encode_outputs(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "1 while the output runs, 0 once it has failed or its reader is gone";
        let mut running = encoder.encode_descriptor("output_running", help, None, MetricType::Gauge)?;
        for output in &self.outputs {
            let labels = [("output", output.spec.as_str())];
            ConstGauge::new(i64::from(output.running)).encode(running.encode_family(&labels)?)?;
        }
        let help = "Estimates and reports that wait in the queue of an output";
        let mut queued = encoder.encode_descriptor("output_queue_length", help, None, MetricType::Gauge)?;
        for output in &self.outputs {
            let length = i64::try_from(output.queued).unwrap_or(i64::MAX);
            let labels = [("output", output.spec.as_str())];
            ConstGauge::new(length).encode(queued.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// The last estimate. What is unknown is left out.
    fn encode_estimate(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let last = self.last.as_deref();
        let affect = last.and_then(|last| last.affect.as_ref());
        let voice = last.and_then(|last| last.voice.as_ref());
        let valence = affect.map(|affect| affect.valence);
        let help = "Valence of the last estimate, from -1 to 1";
        gauge(encoder, "valence", help, None, valence.map(f64::from))?;
        let arousal = affect.map(|affect| affect.arousal);
        let help = "Arousal of the last estimate, from -1 to 1";
        gauge(encoder, "arousal", help, None, arousal.map(f64::from))?;
        let confidence = affect.map(|affect| affect.confidence);
        let help = "Confidence of the last estimate, from 0 to 1";
        gauge(encoder, "confidence", help, None, confidence.map(f64::from))?;
        let speaks = voice.map(|voice| f64::from(u8::from(voice.active)));
        gauge(encoder, "voice_active", "1 while somebody speaks", None, speaks)?;
        let level = voice.and_then(|voice| voice.level_db).map(f64::from);
        let decibels = Unit::Other("decibels".into());
        let help = "Level of the microphone, relative to full scale";
        gauge(encoder, "microphone_level", help, Some(&decibels), level)
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let temperature = temperature_c().map(f64::from);
        let help = "Temperature of the processor";
        gauge(encoder, "temperature", help, Some(&Unit::Celsius), temperature)?;
        let board = self.health.board.get();
        let flag = |flag: Option<bool>| flag.map(|flag| f64::from(u8::from(flag)));
        let help = "1 while the voltage of the board is too low";
        gauge(encoder, "low_voltage", help, None, flag(board.low_voltage))?;
        let help = "1 while the processor is slowed down";
        gauge(encoder, "throttled", help, None, flag(board.throttled))?;
        let uptime = Some(self.uptime.as_secs_f64());
        gauge(encoder, "uptime", "Time since the start", Some(&Unit::Seconds), uptime)?;
        let labels = [("version", VERSION), ("models", self.model.as_str())];
        let help = "Version of affectd and of its models";
        let mut build = encoder.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        ConstGauge::new(1i64).encode(build.encode_family(&labels)?)
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: Option<f64>,
) -> fmt::Result {
    match value.filter(|value| value.is_finite()) {
        Some(value) => ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?),
        None => Ok(()),
    }
}
