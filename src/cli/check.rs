//! `affectd check`: what would stop `affectd run`, or make it see and hear badly, found before it does.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::capture::camera::{Camera, CameraSettings};
use crate::capture::clip::Clip;
use crate::capture::microphone::{Microphone, MicrophoneSettings};
use crate::capture::{AudioSource, VideoSource};
use crate::config::{Config, DeviceSettings, Source};
use crate::face::{FaceStage, FrameOutcome};
use crate::failure::Failure;
use crate::fusion::FusionStage;
use crate::health::CameraCounters;
use crate::health::MicrophoneCounters;
use crate::model::{Bundle, ModelError};
use crate::output::HostIdentity;
use crate::output::wall_clock::WallClock;
use crate::voice::VoiceStage;

/// How long devices are watched.
const WATCH: Duration = Duration::from_secs(2);
/// Below this a microphone is switched off or covered: a quiet room is at −70 dB of full scale or above.
const SILENCE_DB: f32 = -75.0;
/// Samples this near to full scale are clipped, and this share of them is too much.
const CLIPPED: f32 = 0.99;
const CLIPPED_SHARE: f32 = 0.001;
/// Fewer pictures than this share of what was asked for is worth a word. Cameras take longer exposures in the dark.
const RATE_SHARE: f64 = 0.8;

/// What was found of one part.
enum Finding {
    Well(String),
    /// It works, but not as it should; how to mend it.
    Odd(String),
    Bad(Failure),
}

impl<E: Into<Failure>> From<Result<String, E>> for Finding {
    fn from(result: Result<String, E>) -> Finding {
        match result {
            Ok(what) => Finding::Well(what),
            Err(error) => Finding::Bad(error.into()),
        }
    }
}

/// Prints a line for each part; the first part that is not well decides the exit code, but all are looked at.
pub fn check(config: &Config, host: &HostIdentity) -> Result<(), Failure> {
    println!("ok   configuration");
    let mut first = None;
    let mut report = |part: &str, finding: Finding| match finding {
        Finding::Well(what) => println!("ok   {part}: {what}"),
        Finding::Odd(what) => println!("odd  {part}: {what}"),
        Finding::Bad(failure) => {
            println!("bad  {part}: {failure}");
            first.get_or_insert(failure);
        }
    };
    report("models", models(config).into());
    match &config.source {
        Source::Clip { path, .. } => {
            let opened = Clip::open(path).map(|clip| clip.description);
            report("input", opened.map_err(|e| Failure::Source(e.to_string())).into());
        }
        Source::Devices(devices) => {
            let (seen, heard) = watch(config, devices);
            for (part, findings) in [("camera", seen), ("microphone", heard)] {
                for finding in findings {
                    report(part, finding);
                }
            }
        }
    }
    report("clock", clock());
    for output in &config.outputs {
        let checked = output.check(host).map_err(|e| Failure::Output(e.to_string()));
        report("output", checked.map(|()| output.to_string()).into());
    }
    first.map_or(Ok(()), Err)
}

fn models(config: &Config) -> Result<String, ModelError> {
    let bundle = Bundle::open(config.models.as_deref(), config.kernel)?;
    FaceStage::load(&bundle, config.face)?;
    VoiceStage::load(&bundle)?;
    FusionStage::load(&bundle, config.fusion)?;
    let manifest = bundle.manifest();
    Ok(format!("{} {}, {}", manifest.name, manifest.version, bundle.location()))
}

fn clock() -> Finding {
    match WallClock::default().now() {
        Some(_) => Finding::Well("synchronized".into()),
        None => Finding::Odd(
            "not synchronized, so estimates carry no time of day: wait for the network, or set up NTP (timedatectl)"
                .into(),
        ),
    }
}

/// Watches both devices at once.
fn watch(config: &Config, devices: &DeviceSettings) -> (Vec<Finding>, Vec<Finding>) {
    let off = || vec![Finding::Well("off".into())];
    thread::scope(|scope| {
        let camera = devices.camera.as_ref();
        let seen = scope.spawn(move || camera.map_or_else(off, |settings| camera_findings(config, settings)));
        let heard = devices.microphone.as_ref().map_or_else(off, microphone_findings);
        let seen = seen.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (seen, heard)
    })
}

fn camera_findings(config: &Config, settings: &CameraSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut see = || -> Result<(), Failure> {
        let source = |error: crate::capture::CaptureError| Failure::Source(error.to_string());
        // Without models, which is said elsewhere, the camera can still be watched.
        let bundle = Bundle::open(config.models.as_deref(), config.kernel);
        let mut stage = bundle.and_then(|bundle| FaceStage::load(&bundle, config.face)).ok();
        let faults = CameraCounters::default();
        let mut camera = Camera::open(settings, Instant::now(), &faults).map_err(source)?;
        findings.push(Finding::Well(camera.description().to_owned()));
        let (mut pictures, mut broken, mut face) = (0u32, 0u32, false);
        // Counted from the first picture: cameras take a while to begin.
        let mut first = None;
        while let Some(frame) = camera.next_frame().map_err(source)? {
            let first = *first.get_or_insert(frame.captured);
            let watched = frame.captured.saturating_duration_since(first);
            match stage.as_mut().map(|stage| stage.process(frame)).transpose()? {
                Some(FrameOutcome::Face(_)) => face = true,
                Some(FrameOutcome::Undecodable(_)) => broken += 1,
                _ => {}
            }
            if watched >= WATCH {
                let passed_over = faults.skipped.load(std::sync::atomic::Ordering::Relaxed);
                let rate = (f64::from(pictures) + passed_over as f64) / watched.as_secs_f64();
                findings.push(rate_finding(rate, settings.mode.rate_hz.into()));
                break;
            }
            pictures += 1;
        }
        if broken > 0 {
            findings.push(Finding::Odd(format!(
                "{broken} pictures were damaged: try another cable or USB port"
            )));
        }
        findings.push(match face {
            _ if stage.is_none() => return Ok(()),
            true => Finding::Well("a face is in view".into()),
            false => Finding::Odd("no face in view: sit within two metres, facing it, in good light".into()),
        });
        Ok(())
    };
    if let Err(failure) = see() {
        findings.push(Finding::Bad(failure));
    }
    findings
}

fn rate_finding(rate: f64, asked: f64) -> Finding {
    let rate = (rate * 10.0).round() / 10.0;
    if rate >= asked * RATE_SHARE {
        Finding::Well(format!("{rate} pictures a second"))
    } else {
        Finding::Odd(format!(
            "{rate} pictures a second of the {asked} asked for: more light may help, or a smaller size"
        ))
    }
}

fn microphone_findings(settings: &MicrophoneSettings) -> Vec<Finding> {
    let faults = MicrophoneCounters::default();
    let heard = Microphone::open(settings, Instant::now(), &faults).and_then(|mut microphone| {
        let mut level = Level::default();
        while level.duration() < WATCH {
            let Some(chunk) = microphone.next_block()? else { break };
            level.add(&chunk.samples);
        }
        Ok((microphone.description().to_owned(), level))
    });
    match heard {
        Ok((description, level)) => vec![Finding::Well(description), level.finding()],
        Err(error) => vec![Finding::Bad(Failure::Source(error.to_string()))],
    }
}

/// How loud it was.
#[derive(Debug, Default)]
struct Level {
    energy: f64,
    peak: f32,
    clipped: u64,
    count: u64,
}

impl Level {
    fn add(&mut self, samples: &[f32]) {
        for sample in samples {
            self.energy += f64::from(sample * sample);
            self.peak = self.peak.max(sample.abs());
            self.clipped += u64::from(sample.abs() >= CLIPPED);
        }
        self.count += samples.len() as u64;
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.count as f64 / f64::from(crate::capture::AUDIO_RATE_HZ))
    }

    fn finding(&self) -> Finding {
        let db = |power: f64| 10.0 * power.max(1e-15).log10();
        let level = db(self.energy / self.count.max(1) as f64) as f32;
        let peak = db(f64::from(self.peak * self.peak));
        let mut said = format!("level {level:.0} dB, peak {peak:.0} dB of full scale");
        let clipped = self.clipped as f32 / self.count.max(1) as f32;
        if level < SILENCE_DB {
            let _ = write!(said, ": silent, is it muted or turned down (alsamixer)?");
            Finding::Odd(said)
        } else if clipped > CLIPPED_SHARE {
            let _ = write!(said, ": clipping, turn it down (alsamixer)");
            Finding::Odd(said)
        } else {
            Finding::Well(said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(samples: &[f32]) -> String {
        let mut level = Level::default();
        level.add(samples);
        match level.finding() {
            Finding::Well(what) => format!("ok {what}"),
            Finding::Odd(what) => format!("odd {what}"),
            Finding::Bad(failure) => format!("bad {failure}"),
        }
    }

    #[test]
    fn silence_and_clipping_are_told_from_sound() {
        insta::assert_snapshot!(said(&[0.0; 100]), @"odd level -150 dB, peak -150 dB of full scale: silent, is it muted or turned down (alsamixer)?");
        insta::assert_snapshot!(said(&[0.1, -0.1]), @"ok level -20 dB, peak -20 dB of full scale");
        insta::assert_snapshot!(said(&[1.0, -1.0, 0.5, 0.1]), @"odd level -2 dB, peak 0 dB of full scale: clipping, turn it down (alsamixer)");
    }
}
