//! `affectd check`: tests everything that `affectd run` needs, and says how to fix what is wrong.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::error::CommandError;
use super::terminal::Printer;
use crate::capture::camera::{CameraOpener, CameraSettings};
use crate::capture::clip::Clip;
use crate::capture::microphone::{LiveMicrophone, MicrophoneSettings};
use crate::capture::orientation::Rotation;
use crate::capture::{AUDIO_RATE_HZ, CaptureError};
use crate::config::{Config, DeviceSettings, PrivacySettings, Source};
use crate::daemon::DaemonError;
use crate::face::upright::missing_turn;
use crate::face::{FaceStage, FrameOutcome};
use crate::fusion::FusionStage;
use crate::health::{CameraCounters, MicrophoneCounters};
use crate::model::{Bundle, ModelError};
use crate::named_thread::{self, ThreadRefused};
use crate::output::HostIdentity;
use crate::output::wall_clock::WallClock;
use crate::privacy::{CaptureLight, is_set_by_battery_clock};
use crate::voice::VoiceStage;

/// How long devices are watched.
const WATCH: Duration = Duration::from_secs(2);
/// A microphone below this level is switched off or covered. Even a quiet room is at −70 dB of full scale or above.
const SILENCE_DB: f64 = -75.0;
/// A sample of this absolute value or more is clipped.
const CLIPPED: f32 = 0.99;
/// A larger share of clipped samples is too much.
const MAX_CLIPPED_SHARE: f64 = 0.001;
/// A smaller share of the requested frame rate is reported. In the dark, cameras expose for longer.
const MIN_RATE_SHARE: f64 = 0.8;

/// The state of one part.
enum Finding {
    Good(String),
    /// It works, but badly. The text says how to improve it.
    Poor(String),
    Failed(CommandError),
}

impl<E: Into<CommandError>> From<Result<String, E>> for Finding {
    fn from(result: Result<String, E>) -> Finding {
        match result {
            Ok(description) => Finding::Good(description),
            Err(error) => Finding::Failed(error.into()),
        }
    }
}

/// Checks all parts and prints a line for each. The error is that of the first part that fails.
pub fn check(config: &Config, host: &HostIdentity) -> Result<(), CommandError> {
    let mut printer = Printer::default();
    printer.line("ok   configuration")?;
    let mut first = None;
    let mut report = |part: &str, finding: Finding| match finding {
        Finding::Good(text) => printer.line(&format!("ok   {part}: {text}")),
        Finding::Poor(text) => printer.line(&format!("warn {part}: {text}")),
        Finding::Failed(error) => {
            let printed = printer.line(&format!("fail {part}: {error}"));
            first.get_or_insert(error);
            printed
        }
    };
    report("models", models(config).into())?;
    match &config.source {
        Source::Clip { path, .. } => report("input", Clip::open(path).map(|clip| clip.description).into())?,
        Source::Devices(devices) => {
            let findings = watch(config, devices)?;
            for finding in findings.camera {
                report("camera", finding)?;
            }
            for finding in findings.microphone {
                report("microphone", finding)?;
            }
        }
    }
    if let Some(led) = &config.privacy.light {
        report(
            "light",
            CaptureLight::check(led)
                .map(|()| led.display().to_string())
                .map_err(DaemonError::from)
                .into(),
        )?;
    }
    report("clock", clock(&config.privacy))?;
    for output in &config.outputs {
        report("output", output.check(host).into())?;
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

fn clock(privacy: &PrivacySettings) -> Finding {
    match WallClock::default().now() {
        Some(_) => Finding::Good("synchronized".into()),
        None if !privacy.off_hours.is_empty() && !is_set_by_battery_clock(SystemTime::now()) => Finding::Poor(
            "not synchronized, so privacy.off keeps the devices closed: wait for the network, or set up NTP (timedatectl)".into(),
        ),
        None => Finding::Poor(
            "not synchronized, so estimates have no time of day: wait for the network, or set up NTP (timedatectl)"
                .into(),
        ),
    }
}

struct DeviceFindings {
    camera: Vec<Finding>,
    microphone: Vec<Finding>,
}

/// Watches both devices at the same time.
fn watch(config: &Config, devices: &DeviceSettings) -> Result<DeviceFindings, ThreadRefused> {
    let off = || vec![Finding::Good("off".into())];
    thread::scope(|scope| {
        let camera = devices.camera.as_ref();
        let camera = named_thread::spawn_scoped(scope, "camera", move || {
            camera.map_or_else(off, |settings| watch_camera(config, settings))
        })?;
        let microphone = devices.microphone.as_ref().map_or_else(off, watch_microphone);
        let camera = camera.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(DeviceFindings { camera, microphone })
    })
}

fn watch_camera(config: &Config, settings: &CameraSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = add_camera_findings(config, settings, &mut findings) {
        findings.push(Finding::Failed(error));
    }
    findings
}

fn add_camera_findings(
    config: &Config,
    settings: &CameraSettings,
    findings: &mut Vec<Finding>,
) -> Result<(), CommandError> {
    // The camera can be watched without models. Their error is reported on its own line.
    let bundle = Bundle::open(config.models.as_deref(), config.kernel);
    let bundle = bundle.ok();
    let mut stage = bundle
        .as_ref()
        .and_then(|bundle| FaceStage::load(bundle, config.face).ok());
    let counters = CameraCounters::default();
    let mut opener = CameraOpener::new(settings.clone(), Instant::now(), counters.clone());
    let mut camera = opener.open(&|| false)?;
    findings.push(Finding::Good(camera.description().to_owned()));
    let (mut frames, mut undecodable, mut face_seen) = (0u64, 0u64, false);
    let mut last = None;
    // The time counts from the first frame: cameras take a while to start.
    let mut first = None;
    while let Some(frame) = camera.next_frame()? {
        let first = *first.get_or_insert(frame.captured);
        let watched = frame.captured.saturating_duration_since(first);
        last = Some(frame.payload.clone());
        match stage.as_mut().map(|stage| stage.process(frame)).transpose()? {
            Some(FrameOutcome::Face(_)) => face_seen = true,
            Some(FrameOutcome::Undecodable(_)) => undecodable += 1,
            _ => {}
        }
        if watched >= WATCH {
            let all = frames + counters.skipped.load(Ordering::Relaxed);
            let rate_hz = all as f64 / watched.as_secs_f64();
            findings.push(rate_finding(rate_hz, settings.mode.rate_hz.into()));
            break;
        }
        frames += 1;
    }
    if undecodable > 0 {
        findings.push(Finding::Poor(format!(
            "{undecodable} frames were damaged: try another cable, USB port or power supply"
        )));
    }
    if let Some(bundle) = &bundle
        && stage.is_some()
    {
        let last = last.and_then(|payload| payload.into_luma().ok());
        let last = last.map(|image| config.face.orientation.apply(image));
        let turn = last
            .map(|image| missing_turn(bundle, config.face.min_score, &image))
            .transpose()?;
        findings.push(face_finding(
            face_seen,
            turn.flatten(),
            config.face.orientation.rotation,
        ));
    }
    Ok(())
}

/// `turn` shows an upright face, while the frames are turned by `configured`.
fn face_finding(seen: bool, turn: Option<Rotation>, configured: Rotation) -> Finding {
    match (turn, seen) {
        (Some(turn), _) => Finding::Poor(format!(
            "the face in view is not upright: set rotate = {} under [camera]",
            turn.after(configured).degrees()
        )),
        (None, true) => Finding::Good("a face is in view".into()),
        (None, false) => Finding::Poor("no face in view: face the camera, within two metres and in good light".into()),
    }
}

fn rate_finding(rate_hz: f64, requested_hz: f64) -> Finding {
    let rate_hz = (rate_hz * 10.0).round() / 10.0;
    if rate_hz >= requested_hz * MIN_RATE_SHARE {
        Finding::Good(format!("{rate_hz} frames per second"))
    } else {
        Finding::Poor(format!(
            "{rate_hz} frames per second instead of {requested_hz}: try more light or a smaller frame size"
        ))
    }
}

fn watch_microphone(settings: &MicrophoneSettings) -> Vec<Finding> {
    match measure_level(settings) {
        Ok((description, level)) => vec![Finding::Good(description), level.finding()],
        Err(error) => vec![Finding::Failed(error.into())],
    }
}

/// The microphone's description, and its level during [`WATCH`].
fn measure_level(settings: &MicrophoneSettings) -> Result<(String, Level), CaptureError> {
    let counters = MicrophoneCounters::default();
    let mut microphone = LiveMicrophone::open(settings, Instant::now(), &counters, &|| false)?;
    let mut level = Level::default();
    while level.duration() < WATCH {
        let Some(block) = microphone.next_block()? else { break };
        level.add(&block.samples);
    }
    Ok((microphone.description().to_owned(), level))
}

/// The loudness of some samples.
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
        Duration::from_secs_f64(self.count as f64 / f64::from(AUDIO_RATE_HZ))
    }

    fn finding(&self) -> Finding {
        let db = |power: f64| 10.0 * power.max(1e-15).log10();
        let count = self.count.max(1) as f64;
        let level = db(self.energy / count);
        let peak = db(f64::from(self.peak * self.peak));
        let text = format!("level {level:.0} dB, peak {peak:.0} dB of full scale");
        if level < SILENCE_DB {
            Finding::Poor(format!("{text}: silent: unmute it or turn it up (alsamixer)"))
        } else if self.clipped as f64 / count > MAX_CLIPPED_SHARE {
            Finding::Poor(format!("{text}: clipping: turn it down (alsamixer)"))
        } else {
            Finding::Good(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(samples: &[f32]) -> String {
        let mut level = Level::default();
        level.add(samples);
        match level.finding() {
            Finding::Good(text) => format!("ok {text}"),
            Finding::Poor(text) => format!("warn {text}"),
            Finding::Failed(error) => format!("fail {error}"),
        }
    }

    #[test]
    fn silence_and_clipping_are_reported() {
        insta::assert_snapshot!(finding(&[0.0; 100]), @"warn level -150 dB, peak -150 dB of full scale: silent: unmute it or turn it up (alsamixer)");
        insta::assert_snapshot!(finding(&[0.1, -0.1]), @"ok level -20 dB, peak -20 dB of full scale");
        insta::assert_snapshot!(finding(&[1.0, -1.0, 0.5, 0.1]), @"warn level -2 dB, peak 0 dB of full scale: clipping: turn it down (alsamixer)");
    }

    #[test]
    fn a_face_that_is_not_upright_is_reported_with_the_setting() {
        let finding = |turn, configured| match face_finding(true, turn, configured) {
            Finding::Good(text) | Finding::Poor(text) => text,
            Finding::Failed(error) => panic!("{error}"),
        };
        assert_eq!(finding(None, Rotation::None), "a face is in view");
        let wrong = finding(Some(Rotation::HalfTurn), Rotation::Clockwise270);
        assert_eq!(wrong, "the face in view is not upright: set rotate = 90 under [camera]");
    }

    #[test]
    fn a_low_frame_rate_is_reported() {
        assert!(matches!(rate_finding(29.0, 30.0), Finding::Good(_)));
        assert!(matches!(rate_finding(15.0, 30.0), Finding::Poor(_)));
    }
}
