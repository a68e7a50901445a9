//! `affectd check`: tests everything that `affectd run` needs, and says how to fix what is wrong.

mod aim;
mod format;
mod view;
mod watch;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::error::CommandError;
use super::level::{Level, Loudness};
use super::terminal::Printer;
use crate::capture::CaptureError;
use crate::capture::camera::{CameraOpener, CameraSettings};
use crate::capture::clip::Clip;
use crate::capture::microphone::{LiveMicrophone, MicrophoneSettings};
use crate::config::{Config, DeviceSettings, PrivacySettings, Source};
use crate::daemon::DaemonError;
use crate::face::FaceStage;
use crate::fusion::FusionStage;
use crate::health::{CameraCounters, MicrophoneCounters};
use crate::model::{Bundle, ModelError};
use crate::named_thread::{self, ThreadRefused};
use crate::output::HostIdentity;
use crate::output::wall_clock::WallClock;
use crate::privacy::{CaptureLight, is_set_by_battery_clock};
use crate::status::PreparedPage;
use crate::voice::VoiceStage;
use aim::Aim;
pub use format::Format;
use view::{CameraView, Sight};
pub use watch::watch;

/// How long devices are watched.
const WATCH: Duration = Duration::from_secs(2);
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

/// Checks all parts and prints a line for each, or one object for all. The error is that of the first part that fails.
pub fn check(config: &Config, host: &HostIdentity, format: Format) -> Result<(), CommandError> {
    let mut printer = Printer::default();
    let mut first = None;
    let mut checks = Vec::new();
    let mut report = |part: &str, finding: Finding| {
        let (state, text) = match finding {
            Finding::Good(text) => ("ok", text),
            Finding::Poor(text) => ("warn", text),
            Finding::Failed(error) => {
                let text = error.to_string();
                first.get_or_insert(error);
                ("fail", text)
            }
        };
        match format {
            Format::Text if text.is_empty() => printer.line(&format!("{state:4} {part}")),
            Format::Text => printer.line(&format!("{state:4} {part}: {text}")),
            Format::Json => {
                checks.push(json!({ "part": part, "state": state, "text": text }));
                Ok(())
            }
        }
    };
    report("configuration", Finding::Good(String::new()))?;
    let (mut aim, mut loudness) = (None, None);
    report("models", models(config).into())?;
    match &config.source {
        Source::Clip { path, .. } => report("input", Clip::open(path).map(|clip| clip.description).into())?,
        Source::Devices(devices) => {
            let findings = watch_both(config, devices)?;
            for finding in findings.camera {
                report("camera", finding)?;
            }
            for finding in findings.microphone {
                report("microphone", finding)?;
            }
            (aim, loudness) = (findings.aim, findings.loudness);
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
    if let Some(line) = &config.privacy.button {
        let opened = line.open().map(|_| line.to_string());
        report("button", opened.map_err(DaemonError::from).into())?;
    }
    report("clock", clock(&config.privacy))?;
    for output in &config.outputs {
        report("output", output.check(host).into())?;
    }
    if let Some(settings) = &config.status {
        report("status page", PreparedPage::check(settings, host).into())?;
    }
    if format == Format::Json {
        let ok = first.is_none();
        printer.line(
            &json!({ "schema": 1, "ok": ok, "checks": checks, "camera": aim, "microphone": loudness }).to_string(),
        )?;
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
    aim: Option<Aim>,
    microphone: Vec<Finding>,
    loudness: Option<Loudness>,
}

/// Watches both devices at the same time.
fn watch_both(config: &Config, devices: &DeviceSettings) -> Result<DeviceFindings, ThreadRefused> {
    fn off<T>() -> (Vec<Finding>, Option<T>) {
        (vec![Finding::Good("off".into())], None)
    }
    thread::scope(|scope| {
        let camera = devices.camera.as_ref();
        let camera = named_thread::spawn_scoped(scope, "camera", move || {
            camera.map_or_else(off, |settings| watch_camera(config, settings))
        })?;
        let microphone = devices.microphone.as_ref().map_or_else(off, watch_microphone);
        let camera = camera.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(DeviceFindings {
            camera: camera.0,
            aim: camera.1,
            microphone: microphone.0,
            loudness: microphone.1,
        })
    })
}

fn watch_camera(config: &Config, settings: &CameraSettings) -> (Vec<Finding>, Option<Aim>) {
    let mut findings = Vec::new();
    let aim = match add_camera_findings(config, settings, &mut findings) {
        Ok(aim) => aim,
        Err(error) => {
            findings.push(Finding::Failed(error));
            None
        }
    };
    (findings, aim)
}

fn add_camera_findings(
    config: &Config,
    settings: &CameraSettings,
    findings: &mut Vec<Finding>,
) -> Result<Option<Aim>, CommandError> {
    // The camera can be watched without models. Their error is reported on its own line.
    let bundle = Bundle::open(config.models.as_deref(), config.kernel);
    let bundle = bundle.ok();
    let mut view = bundle.as_ref().and_then(|bundle| CameraView::new(bundle, config).ok());
    let counters = CameraCounters::default();
    let mut opener = CameraOpener::new(settings.clone(), Instant::now(), counters.clone());
    let mut camera = opener.open(&|| false)?;
    findings.push(Finding::Good(camera.description().to_owned()));
    let (mut frames, mut undecodable) = (0u64, 0u64);
    // The newest frame with a face, else the newest.
    let mut best: Option<Aim> = None;
    // The time counts from the first frame: cameras take a while to start.
    let mut first = None;
    while let Some(frame) = camera.next_frame()? {
        let first = *first.get_or_insert(frame.captured);
        let watched = frame.captured.saturating_duration_since(first);
        match view.as_mut().map(|view| view.see(frame)).transpose()? {
            Some(Sight::Undecodable) => undecodable += 1,
            Some(Sight::Seen(aim)) if aim.face.is_some() || best.as_ref().is_none_or(|best| best.face.is_none()) => {
                best = Some(aim);
            }
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
    if let (Some(view), Some(aim)) = (&view, &mut best) {
        aim.rotate = view.missing_rotation()?;
        findings.extend(aim_findings(aim));
    }
    Ok(best)
}

fn aim_findings(aim: &Aim) -> Vec<Finding> {
    let advice = aim.advice();
    match &aim.face {
        Some(face) if advice.is_empty() => vec![Finding::Good(format!(
            "a face is in view, {}×{} pixels (the models need {} across), brightness {:.0} %",
            face.width_px,
            face.height_px,
            face.needed_px,
            aim.brightness * 100.0
        ))],
        _ => advice.into_iter().map(Finding::Poor).collect(),
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

fn watch_microphone(settings: &MicrophoneSettings) -> (Vec<Finding>, Option<Loudness>) {
    match measure_level(settings) {
        Ok((description, level)) => {
            let loudness = level.loudness();
            let findings = vec![Finding::Good(description), level_finding(&loudness)];
            (findings, Some(loudness))
        }
        Err(error) => (vec![Finding::Failed(error.into())], None),
    }
}

fn level_finding(loudness: &Loudness) -> Finding {
    let Loudness { level_db, peak_db, .. } = loudness;
    let text = format!("level {level_db:.0} dBFS, peak {peak_db:.0} dBFS");
    match loudness.advice() {
        Some(advice) => Finding::Poor(format!("{text}: {advice}")),
        None => Finding::Good(text),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_reported_with_what_to_do() {
        let finding = |samples: &[f32]| {
            let mut level = Level::default();
            level.add(samples);
            match level_finding(&level.loudness()) {
                Finding::Good(text) => format!("ok {text}"),
                Finding::Poor(text) => format!("warn {text}"),
                Finding::Failed(error) => panic!("{error}"),
            }
        };
        insta::assert_snapshot!(finding(&[0.0; 100]), @"warn level -150 dBFS, peak -150 dBFS: silent: unmute it or turn it up (alsamixer)");
        insta::assert_snapshot!(finding(&[0.1, -0.1]), @"ok level -20 dBFS, peak -20 dBFS");
    }

    #[test]
    fn a_low_frame_rate_is_reported() {
        assert!(matches!(rate_finding(29.0, 30.0), Finding::Good(_)));
        assert!(matches!(rate_finding(15.0, 30.0), Finding::Poor(_)));
    }
}
