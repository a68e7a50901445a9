//! `affectd check --watch`: what camera and microphone see and hear, again and again, for a person who aims them.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::aim::{Aim, FaceAim};
use super::format::Format;
use super::view::{CameraView, Sight};
use crate::capture::camera::{CameraOpener, CameraSettings};
use crate::capture::microphone::{LiveMicrophone, MicrophoneSettings};
use crate::cli::error::CommandError;
use crate::cli::level::{Level, Loudness};
use crate::cli::terminal::Printer;
use crate::config::{Config, DeviceSettings};
use crate::health::{CameraCounters, MicrophoneCounters};
use crate::model::Bundle;
use crate::named_thread;
use crate::voice::activity::Activity;

/// The time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two updates in a terminal.
const UPDATE_INTERVAL: Duration = Duration::from_millis(250);
/// How soon a stop is noticed.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How soon a device that failed is opened again.
const RETRY: Duration = Duration::from_millis(500);
const DAMAGED: &str = "the camera sends damaged frames: try another cable, USB port or power supply";
/// A device that delivers nothing for this long is shown as such, instead of what it delivered before.
const MAX_SILENCE: Duration = Duration::from_secs(3);
const NO_FRAMES: &str = "the camera sends no frames: check its cable";
const NO_SOUND: &str = "the microphone sends no sound: check its cable";

/// The newest of a device.
enum Newest<T> {
    Off,
    /// Nothing yet.
    Starting,
    Failed(String),
    Seen(T),
}

/// The newest of a device, which its thread sets, and the printing thread takes.
struct Latest<T>(Mutex<(Newest<T>, Instant)>);

impl<T> Latest<T> {
    fn of(is_on: bool) -> Latest<T> {
        let first = if is_on { Newest::Starting } else { Newest::Off };
        Latest(Mutex::new((first, Instant::now())))
    }

    fn lock(&self) -> MutexGuard<'_, (Newest<T>, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, newest: Newest<T>) {
        *self.lock() = (newest, Instant::now());
    }

    /// The device has delivered something that is not shown.
    fn confirm(&self) {
        self.lock().1 = Instant::now();
    }

    /// Shows the newest. Something old is replaced by `silent`.
    fn show<S>(&self, silent: &str, show: impl FnOnce(&mut Newest<T>) -> S) -> S {
        let mut latest = self.lock();
        if matches!(latest.0, Newest::Seen(_)) && latest.1.elapsed() > MAX_SILENCE {
            latest.0 = Newest::Failed(silent.to_owned());
        }
        show(&mut latest.0)
    }
}

#[derive(Serialize)]
struct Heard {
    #[serde(flatten)]
    loudness: Loudness,
    /// Somebody speaks.
    voice: bool,
}

/// What has been heard since the last line.
#[derive(Default)]
struct Hearing {
    level: Level,
    activity: Activity,
    /// Samples until the last line, and until now.
    reported: u64,
    samples: u64,
}

impl Hearing {
    fn add(&mut self, samples: &[f32]) {
        self.level.add(samples);
        self.activity.push(samples);
        self.samples += samples.len() as u64;
    }

    fn take(&mut self) -> Heard {
        let heard = Heard {
            loudness: std::mem::take(&mut self.level).loudness(),
            voice: self.activity.share(self.reported, self.samples) > 0.0,
        };
        self.reported = self.samples;
        heard
    }
}

/// Prints what the devices see and hear until `stop`, or until nobody reads it.
pub fn watch(config: &Config, devices: &DeviceSettings, format: Format, stop: &AtomicBool) -> Result<(), CommandError> {
    let bundle = Bundle::open(config.models.as_deref(), config.kernel)?;
    let camera = Latest::of(devices.camera.is_some());
    let microphone = Latest::of(devices.microphone.is_some());
    // Also set if a thread fails or nobody reads any more.
    let finished = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed) || finished.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let work = || -> Result<(), CommandError> {
            if let Some(settings) = &devices.camera {
                let work = || watch_camera(config, &bundle, settings, &camera, &stopped);
                named_thread::spawn_scoped(scope, "camera", work)?;
            }
            if let Some(settings) = &devices.microphone {
                named_thread::spawn_scoped(scope, "microphone", || hear(settings, &microphone, &stopped))?;
            }
            print(format, &camera, &microphone, &stopped)
        };
        let result = work();
        finished.store(true, Ordering::Relaxed);
        result
    })
}

fn pause(time: Duration, stopped: &dyn Fn() -> bool) {
    let end = Instant::now() + time;
    while !stopped() && Instant::now() < end {
        thread::sleep(CHECK_INTERVAL.min(end.saturating_duration_since(Instant::now())));
    }
}

fn watch_camera(
    config: &Config,
    bundle: &Bundle,
    settings: &CameraSettings,
    newest: &Latest<Aim>,
    stopped: &dyn Fn() -> bool,
) {
    let mut opener = CameraOpener::new(settings.clone(), Instant::now(), CameraCounters::default());
    while !stopped() {
        let mut look = || -> Result<(), CommandError> {
            let mut view = CameraView::new(bundle, config)?;
            let mut camera = opener.open(stopped)?;
            while let Some(frame) = camera.next_frame()? {
                if stopped() {
                    break;
                }
                let at = frame.at;
                match view.see(frame)? {
                    Sight::Skipped => newest.confirm(),
                    Sight::Undecodable => newest.set(Newest::Failed(DAMAGED.to_owned())),
                    Sight::Seen(mut aim) => {
                        aim.rotate = view.recent_missing_rotation(at)?;
                        newest.set(Newest::Seen(aim));
                    }
                }
            }
            Ok(())
        };
        if let Err(error) = look()
            && !stopped()
        {
            newest.set(Newest::Failed(error.to_string()));
            pause(RETRY, stopped);
        }
    }
}

fn hear(settings: &MicrophoneSettings, newest: &Latest<Hearing>, stopped: &dyn Fn() -> bool) {
    let counters = MicrophoneCounters::default();
    while !stopped() {
        let listen = || -> Result<(), CommandError> {
            let mut microphone = LiveMicrophone::open(settings, Instant::now(), &counters, stopped)?;
            while let Some(block) = microphone.next_block()? {
                if stopped() {
                    break;
                }
                let mut latest = newest.lock();
                if !matches!(latest.0, Newest::Seen(_)) {
                    latest.0 = Newest::Seen(Hearing::default());
                }
                if let (Newest::Seen(hearing), at) = &mut *latest {
                    hearing.add(&block.samples);
                    *at = Instant::now();
                }
            }
            Ok(())
        };
        if let Err(error) = listen()
            && !stopped()
        {
            newest.set(Newest::Failed(error.to_string()));
            pause(RETRY, stopped);
        }
    }
}

fn print(
    format: Format,
    camera: &Latest<Aim>,
    microphone: &Latest<Hearing>,
    stopped: &dyn Fn() -> bool,
) -> Result<(), CommandError> {
    let mut printer = Printer::default();
    let in_place = format == Format::Text && io::stdout().is_terminal();
    let interval = if in_place { UPDATE_INTERVAL } else { LINE_INTERVAL };
    while !stopped() && !printer.is_reader_gone() {
        pause(interval, stopped);
        if stopped() {
            break;
        }
        let heard = microphone.show(NO_SOUND, |newest| match newest {
            Newest::Seen(hearing) => Newest::Seen(hearing.take()),
            Newest::Off => Newest::Off,
            Newest::Starting => Newest::Starting,
            Newest::Failed(why) => Newest::Failed(why.clone()),
        });
        // The lock is not held while a slow terminal is written to.
        let shown = camera.show(NO_FRAMES, |camera| match format {
            Format::Json => as_json(camera, &heard).to_string(),
            Format::Text => as_text(camera, &heard),
        });
        match in_place {
            true => printer.replace_line(&shown)?,
            false => printer.line(&shown)?,
        }
    }
    if in_place {
        printer.line("")?;
    }
    Ok(())
}

fn as_json(camera: &Newest<Aim>, microphone: &Newest<Heard>) -> serde_json::Value {
    fn device<T: Serialize>(newest: &Newest<T>) -> serde_json::Value {
        let (state, problem, seen) = match newest {
            Newest::Off => ("off", None, None),
            Newest::Starting => ("starting", None, None),
            Newest::Failed(why) => ("failed", Some(why), None),
            Newest::Seen(seen) => ("running", None, Some(seen)),
        };
        json!({ "state": state, "problem": problem, "seen": seen })
    }
    json!({ "schema": 1, "camera": device(camera), "microphone": device(microphone) })
}

/// One line, most important first, because a narrow terminal cuts its end.
fn as_text(camera: &Newest<Aim>, microphone: &Newest<Heard>) -> String {
    let camera = match camera {
        Newest::Off => "camera off".to_owned(),
        Newest::Starting => "camera starting".to_owned(),
        Newest::Failed(why) => why.clone(),
        Newest::Seen(aim) => {
            let face = aim.face.as_ref().map(|face| {
                let FaceAim {
                    width_px, needed_px, ..
                } = face;
                format!("face {width_px} px (needs {needed_px}), ")
            });
            let advice = aim.advice();
            match advice.first() {
                Some(advice) => advice.clone(),
                None => format!(
                    "ok: {}brightness {:.0} %",
                    face.unwrap_or_default(),
                    aim.brightness * 100.0
                ),
            }
        }
    };
    let microphone = match microphone {
        Newest::Off => "microphone off".to_owned(),
        Newest::Starting => "microphone starting".to_owned(),
        Newest::Failed(why) => why.clone(),
        Newest::Seen(heard) => {
            let Loudness { level_db, .. } = heard.loudness;
            let what = heard
                .loudness
                .advice()
                .unwrap_or(if heard.voice { "voice" } else { "no voice" });
            format!("[{}] {level_db:.0} dB, {what}", heard.loudness.meter())
        }
    };
    format!("{microphone}  {camera}")
}

#[cfg(test)]
mod tests {
    use super::super::aim::Light;
    use super::*;

    fn seen(width_px: u32, light: Light) -> Newest<Aim> {
        Newest::Seen(Aim {
            brightness: 0.45,
            light,
            face: Some(FaceAim {
                width_px,
                height_px: 140,
                needed_px: 54,
                frontal: true,
                score: 0.97,
            }),
            rotate: None,
        })
    }

    fn heard(samples: &[f32]) -> Newest<Heard> {
        let mut hearing = Hearing::default();
        hearing.add(samples);
        Newest::Seen(hearing.take())
    }

    #[test]
    fn what_a_silent_device_delivered_before_is_not_shown() {
        let camera = Latest::of(true);
        let shown = |camera: &Latest<Aim>| camera.show(NO_FRAMES, |newest| as_text(newest, &Newest::Off));
        camera.set(seen(112, Light::Good));
        assert!(shown(&camera).contains("ok: face 112 px"));
        camera.lock().1 -= MAX_SILENCE;
        insta::assert_snapshot!(shown(&camera), @"microphone off  the camera sends no frames: check its cable");
        camera.set(seen(112, Light::Good));
        camera.lock().1 -= MAX_SILENCE;
        camera.confirm();
        assert!(shown(&camera).contains("ok: face 112 px"));
        let starting = Latest::of(true);
        starting.lock().1 -= MAX_SILENCE;
        assert!(shown(&starting).contains("camera starting"));
    }

    #[test]
    fn a_line_shows_the_level_and_the_most_important_fault() {
        let speech = heard(&[0.1, -0.1]);
        insta::assert_snapshot!(as_text(&seen(112, Light::Good), &speech), @"[############----] -20 dB, no voice  ok: face 112 px (needs 54), brightness 45 %");
        insta::assert_snapshot!(as_text(&seen(40, Light::Dark), &heard(&[0.0; 100])), @"[----------------] -150 dB, silent: unmute it or turn it up (alsamixer)  the face is 40 pixels wide, and the models need 54: come closer");
        let gone = Newest::Failed("camera /dev/video0: not connected".into());
        insta::assert_snapshot!(as_text(&gone, &Newest::Off), @"microphone off  camera /dev/video0: not connected");
    }

    #[test]
    fn json_has_the_state_of_each_device_and_what_it_sees_and_hears() {
        let json = as_json(&seen(112, Light::Good), &heard(&[0.1, -0.1]));
        let face = json!({"width_px": 112, "height_px": 140, "needed_px": 54, "frontal": true, "score": 0.97});
        let seen = json!({"brightness": 0.45, "light": "good", "face": face, "rotate": null});
        assert_eq!(
            json["camera"],
            json!({"state": "running", "problem": null, "seen": seen})
        );
        let heard = json!({"level_db": -20.0, "peak_db": -20.0, "clipping": false, "voice": false});
        assert_eq!(
            json["microphone"],
            json!({"state": "running", "problem": null, "seen": heard})
        );
        let json = as_json(&Newest::Failed("gone".into()), &Newest::Starting);
        assert_eq!(
            json["camera"],
            json!({"state": "failed", "problem": "gone", "seen": null})
        );
        assert_eq!(
            json["microphone"],
            json!({"state": "starting", "problem": null, "seen": null})
        );
    }
}
