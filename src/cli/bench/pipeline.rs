//! The speed of the whole pipeline on the demo clip, stage by stage, on one thread.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::capture::FramePayload;
use crate::capture::clip::Clip;
use crate::cli::error::CommandError;
use crate::cli::progress::{ProgressLine, done};
use crate::config::Config;
use crate::face::{FaceStage, FrameOutcome};
use crate::fusion::FusionStage;
use crate::model::Bundle;
use crate::voice::VoiceStage;

/// The measurements of the pipeline.
#[derive(Debug, Serialize)]
pub struct PipelineReport {
    /// Duration of the clip.
    media_s: f64,
    /// CPU time per second of the clip.
    cpu_s_per_s: f64,
    /// Per analysed frame: decoding, finding the face and encoding it.
    face_ms: f64,
    /// Decoding a frame.
    decode_ms: f64,
    /// Detecting the faces in a frame and encoding the subject's, without decoding.
    detect_ms: f64,
    /// Tracking the subject's face instead and encoding it, without decoding.
    track_ms: f64,
    /// The share of the analysed frames in which faces were detected and not tracked, 0 to 1.
    detect_share: f64,
    /// Per second of audio: voice activity and log-mel.
    audio_ms_per_s: f64,
    /// Per estimate: voice embedding, fusion, smoothing.
    estimate_ms: f64,
    /// Peak memory of the process at the end of the clip.
    peak_rss_mib: Option<f64>,
}

/// Replays `clip` through the stages and measures each.
pub fn measure(
    config: &Config,
    bundle: &Bundle,
    clip: Clip,
    line: &mut ProgressLine,
) -> Result<PipelineReport, CommandError> {
    let mut face = FaceStage::load(bundle, config.face)?;
    let mut voice = VoiceStage::load(bundle)?;
    let mut fusion = FusionStage::load(bundle, config.fusion)?;
    let cpu_before = cpu_time();
    let (mut listening, mut estimating) = (Duration::ZERO, Duration::ZERO);
    let (mut detecting, mut tracking, mut decoding) =
        (Stopwatch::default(), Stopwatch::default(), Stopwatch::default());
    let mut measuring_overhead = Duration::ZERO;
    let mut end = Duration::ZERO;

    let mut observations = Vec::new();
    if let Some(mut video) = clip.video {
        while let Some(frame) = video.next_frame()? {
            end = end.max(frame.at);
            line.show(|elapsed| match clip.extent.fraction(end) {
                Some(fraction) => format!("pipeline, video {}", done(fraction, elapsed)),
                None => "pipeline, video".to_owned(),
            });
            let again = match &frame.payload {
                FramePayload::Jpeg(bytes) => Some(bytes.clone()),
                FramePayload::Luma(_) => None,
            };
            let detections = face.detections();
            let (look, took) = timed(|| face.process(frame));
            let look = look?;
            if matches!(look, FrameOutcome::NotDue) {
                continue;
            }
            match face.detections() > detections {
                true => detecting.add(took),
                false => tracking.add(took),
            }
            if let FrameOutcome::Face(observation) = look {
                observations.push(observation);
            }
            // Decode once more, separately, to measure that part.
            if let Some(bytes) = again {
                let before = cpu_time();
                decoding.add(timed(|| std::hint::black_box(FramePayload::Jpeg(bytes).into_luma().is_ok())).1);
                measuring_overhead += cpu_time().saturating_sub(before);
            }
        }
    }
    let mut observations = observations.into_iter().peekable();
    let (mut samples, mut tick) = (0, 1);
    let mut audio = clip.audio;
    loop {
        let chunk = match &mut audio {
            Some(audio) => audio.next_block()?,
            None => None,
        };
        if let Some(chunk) = &chunk {
            end = end.max(chunk.end());
            samples += chunk.samples.len();
            listening += timed(|| voice.push(chunk)).1;
        }
        let heard = chunk.as_ref().map_or(end, |chunk| chunk.end());
        line.show(|_| "pipeline, sound".to_owned());
        while fusion.time_of(tick) <= heard {
            let time = fusion.time_of(tick);
            while let Some(seen) = observations.next_if(|o| o.at <= time) {
                fusion.add_face(seen);
            }
            let (estimate, took) = timed(|| {
                let heard = voice.observe(time, fusion.period())?;
                fusion.estimate(tick, heard)
            });
            estimate?;
            estimating += took;
            tick += 1;
        }
        if chunk.is_none() {
            break;
        }
    }

    let spent = cpu_time().saturating_sub(cpu_before).saturating_sub(measuring_overhead);
    let each = |total: Duration, count: f64| total.as_secs_f64() * 1e3 / count.max(1e-9);
    let looking = detecting.total + tracking.total;
    let looked = detecting.count + tracking.count;
    Ok(PipelineReport {
        media_s: end.as_secs_f64(),
        cpu_s_per_s: spent.as_secs_f64() / end.as_secs_f64(),
        face_ms: each(looking, f64::from(looked)),
        decode_ms: decoding.mean_ms(),
        detect_ms: (detecting.mean_ms() - decoding.mean_ms()).max(0.0),
        track_ms: (tracking.mean_ms() - decoding.mean_ms()).max(0.0),
        detect_share: f64::from(detecting.count) / f64::from(looked.max(1)),
        audio_ms_per_s: each(listening, samples as f64 / f64::from(crate::capture::AUDIO_RATE_HZ)),
        estimate_ms: each(estimating, (tick - 1) as f64),
        peak_rss_mib: peak_rss_mib(),
    })
}

/// The time that one kind of work took, and how often it was done.
#[derive(Default)]
struct Stopwatch {
    count: u32,
    total: Duration,
}

impl Stopwatch {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
    }

    fn mean_ms(&self) -> f64 {
        self.total.as_secs_f64() * 1e3 / f64::from(self.count.max(1))
    }
}

fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    // SAFETY: `timespec` is plain data for which all-zero bytes are valid, and the pointer is to a live local variable.
    let spent = unsafe {
        let mut spent: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut spent);
        spent
    };
    let seconds = u64::try_from(spent.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(spent.tv_nsec).unwrap_or_default())
}

fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

impl fmt::Display for PipelineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipeline on the demo clip ({:.1} s), one thread:", self.media_s)?;
        writeln!(f, "  {:>7.3} ms per analysed frame, of which", self.face_ms)?;
        writeln!(f, "    {:>7.3} ms decoding", self.decode_ms)?;
        let detected = self.detect_share * 100.0;
        writeln!(
            f,
            "    {:>7.3} ms detecting and encoding, in {detected:.0} % of these frames",
            self.detect_ms
        )?;
        writeln!(f, "    {:>7.3} ms tracking and encoding, in the others", self.track_ms)?;
        writeln!(f, "  {:>7.3} ms per second of audio", self.audio_ms_per_s)?;
        writeln!(f, "  {:>7.3} ms per estimate", self.estimate_ms)?;
        write!(f, "  {:>7.2} % of one core in real time", self.cpu_s_per_s * 100.0)?;
        if let Some(peak) = self.peak_rss_mib {
            write!(f, "\n  {peak:>7.1} MiB of memory at most")?;
        }
        Ok(())
    }
}
