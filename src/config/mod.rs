//! The configuration: a TOML file, over which go `AFFECTD_*` environment variables, over which go flags.
//!
//! All three become one TOML table, which is read into [`RawConfig`] (every key optional, no key unknown) and then, once,
//! into [`Config`], which cannot hold a value that affectd could not run with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use crate::capture::camera::negotiate::RequestedMode;
use crate::capture::camera::{self, CameraSettings};
use crate::capture::microphone::{self, MicrophoneSettings};
use crate::face::stage::FaceSettings;
use crate::fusion::{BaselineMode, FusionSettings};
use crate::output::OutputSpec;
use crate::output::mqtt::without_password;

/// Read where no `--config` is given, if it exists.
pub const USUAL_FILE: &str = "/etc/affectd/affectd.toml";
/// Variables that begin like configuration but are not.
const NOT_KEYS: &[&str] = &[
    "AFFECTD_CONFIG",
    #[cfg(feature = "faults")]
    "AFFECTD_FAULT",
    "AFFECTD_KERNEL",
    "AFFECTD_LOG",
];

/// Everything affectd can be told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The model bundle; `None` for the usual places.
    pub models: Option<PathBuf>,
    pub source: Source,
    pub face: FaceSettings,
    pub fusion: FusionSettings,
    /// Never empty.
    pub outputs: Vec<OutputSpec>,
}

/// Where pictures and sound come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Clip { path: PathBuf, pace: Pace },
    Devices(DeviceSettings),
}

/// A camera, a microphone, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSettings {
    pub camera: Option<CameraSettings>,
    pub microphone: Option<MicrophoneSettings>,
}

/// How a clip is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it can, nothing left out: the same clip gives the same lines.
    Replay,
    /// By the clock, as from devices: what comes too fast is skipped and counted.
    Realtime,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read ({reason}): check the path given with --config or AFFECTD_CONFIG", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{origin}: {reason}: correct or remove it")]
    Invalid { origin: String, reason: String },
    #[error("output = \"{spec}\": {reason}")]
    Output { spec: String, reason: String },
    #[error("{key} = {value}: {reason}")]
    OutOfRange {
        key: &'static str,
        value: String,
        reason: String,
    },
}

/// What may stand in the file. Keys missing here are errors, so that a misspelt one is not silently ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    models: Option<PathBuf>,
    output: Option<Vec<String>>,
    camera: RawCamera,
    microphone: RawMicrophone,
    input: RawInput,
    face: RawFace,
    estimate: RawEstimate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCamera {
    device: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    rate_hz: Option<f32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMicrophone {
    device: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawInput {
    clip: Option<PathBuf>,
    realtime: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFace {
    rate_hz: Option<f32>,
    detect_every_s: Option<f32>,
    min_score: Option<f32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawEstimate {
    rate_hz: Option<f32>,
    smoothing_s: Option<f32>,
    baseline: Option<RawBaseline>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawBaseline {
    OnDemand,
    EachPerson,
}

/// What flags say, in the configuration's own terms.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    pub models: Option<PathBuf>,
    pub clip: Option<PathBuf>,
    pub realtime: bool,
    pub outputs: Vec<String>,
}

impl Config {
    /// Reads the file (`file`, or the usual one if it exists), the environment `vars` and the flags.
    pub fn load(
        file: Option<&Path>,
        vars: impl Iterator<Item = (String, String)>,
        flags: &Overrides,
    ) -> Result<Config, ConfigError> {
        let usual = Path::new(USUAL_FILE);
        let file = file.or_else(|| usual.is_file().then_some(usual));
        let mut table = match file {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        for (name, value) in vars {
            if name.starts_with("AFFECTD_") && !NOT_KEYS.contains(&name.as_str()) {
                merge(&mut table, read_variable(&name, &value)?);
            }
        }
        merge(&mut table, flags.to_table());
        let raw: RawConfig = table.try_into().map_err(|e: toml::de::Error| ConfigError::Invalid {
            origin: "configuration".into(),
            reason: one_line(e.message()),
        })?;
        raw.validate()
    }
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    let invalid = |e: toml::de::Error| {
        let line = e.span().map(|span| text[..span.start].matches('\n').count() + 1);
        ConfigError::Invalid {
            origin: match line {
                Some(line) => format!("{} line {line}", path.display()),
                None => path.display().to_string(),
            },
            reason: one_line(e.message()),
        }
    };
    // Once as what it must be, for an error with its line; once as what it is, to lay the rest over it.
    toml::from_str::<RawConfig>(&text).map_err(invalid)?;
    toml::from_str::<Table>(&text).map_err(invalid)
}

/// `AFFECTD_FACE_RATE_HZ=5` is `face.rate_hz = 5`; a list is separated by commas.
fn read_variable(name: &str, value: &str) -> Result<Table, ConfigError> {
    let key = name.trim_start_matches("AFFECTD_").to_lowercase();
    let parsed = match key.as_str() {
        "output" => Value::Array(value.split(',').map(|s| Value::String(s.trim().into())).collect()),
        "models" | "input_clip" | "camera_device" | "microphone_device" => Value::String(value.into()),
        _ => toml::from_str::<Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| Value::String(value.into())),
    };
    let table = match key.split_once('_') {
        Some((section, key)) => {
            let inner = Table::from_iter([(key.to_string(), parsed)]);
            Table::from_iter([(section.to_string(), Value::Table(inner))])
        }
        None => Table::from_iter([(key, parsed)]),
    };
    table
        .clone()
        .try_into::<RawConfig>()
        .map_err(|e| ConfigError::Invalid {
            origin: format!("environment variable {name}"),
            reason: one_line(e.message()),
        })?;
    Ok(table)
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Lays `upper` over `lower`, key by key.
fn merge(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

impl Overrides {
    fn to_table(&self) -> Table {
        let text = |path: &PathBuf| Value::String(path.to_string_lossy().into_owned());
        let mut table = Table::new();
        let mut input = Table::new();
        if let Some(models) = &self.models {
            table.insert("models".into(), text(models));
        }
        if let Some(clip) = &self.clip {
            input.insert("clip".into(), text(clip));
        }
        if self.realtime {
            input.insert("realtime".into(), Value::Boolean(true));
        }
        if !self.outputs.is_empty() {
            let specs = self.outputs.iter().cloned().map(Value::String).collect();
            table.insert("output".into(), Value::Array(specs));
        }
        table.insert("input".into(), Value::Table(input));
        table
    }
}

impl RawConfig {
    fn validate(self) -> Result<Config, ConfigError> {
        let devices = devices(self.camera, self.microphone)?;
        let source = match (self.input.clip, self.input.realtime.unwrap_or(false)) {
            (Some(path), realtime) => Source::Clip {
                path,
                pace: if realtime { Pace::Realtime } else { Pace::Replay },
            },
            (None, false) => Source::Devices(devices),
            (None, true) => {
                return Err(ConfigError::OutOfRange {
                    key: "input.realtime",
                    value: "true".into(),
                    reason: "is about clips, and no clip is given: add --input CLIP or leave it out".into(),
                });
            }
        };
        let seconds = |key, value: Option<f32>, default, max| {
            in_range(key, value.unwrap_or(default), 0.0, max).map(Duration::from_secs_f32)
        };
        Ok(Config {
            models: self.models,
            source,
            face: FaceSettings {
                rate_hz: in_range("face.rate_hz", self.face.rate_hz.unwrap_or(10.0), 1.0, 60.0)?,
                detect_every: seconds("face.detect_every_s", self.face.detect_every_s, 0.4, 5.0)?,
                min_score: in_range("face.min_score", self.face.min_score.unwrap_or(0.5), 0.1, 1.0)?,
            },
            fusion: FusionSettings {
                period: tick_period(self.estimate.rate_hz.unwrap_or(5.0))?,
                time_constant: seconds("estimate.smoothing_s", self.estimate.smoothing_s, 0.5, 10.0)?,
                baseline: match self.estimate.baseline {
                    None | Some(RawBaseline::OnDemand) => BaselineMode::OnDemand,
                    Some(RawBaseline::EachPerson) => BaselineMode::EachPerson,
                },
            },
            outputs: outputs(self.output)?,
        })
    }
}

fn in_range(key: &'static str, value: f32, min: f32, max: f32) -> Result<f32, ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange {
        key,
        value: value.to_string(),
        reason: format!("must be from {min} to {max}"),
    })
}

fn devices(camera: RawCamera, microphone: RawMicrophone) -> Result<DeviceSettings, ConfigError> {
    let pixels = |key, value: Option<u32>, default| match value.unwrap_or(default) {
        value @ 64..=7680 => Ok(value),
        other => Err(ConfigError::OutOfRange {
            key,
            value: other.to_string(),
            reason: "must be from 64 to 7680".into(),
        }),
    };
    let usual = RequestedMode::default();
    let wish = RequestedMode {
        width: pixels("camera.width", camera.width, usual.width)?,
        height: pixels("camera.height", camera.height, usual.height)?,
        rate_hz: in_range("camera.rate_hz", camera.rate_hz.unwrap_or(usual.rate_hz), 1.0, 120.0)?,
    };
    let camera = match camera.device.as_deref() {
        Some("off") => None,
        None | Some("auto") => Some(camera::Choice::Auto),
        Some(path) => Some(camera::Choice::Path(path.into())),
    };
    let microphone = match microphone.device.as_deref() {
        Some("off") => None,
        None | Some("auto") => Some(microphone::Choice::Auto),
        Some(name) => Some(microphone::Choice::Name(name.into())),
    };
    if camera.is_none() && microphone.is_none() {
        return Err(ConfigError::OutOfRange {
            key: "microphone.device",
            value: "\"off\"".into(),
            reason: "and camera.device is off, too: at least one must be on".into(),
        });
    }
    Ok(DeviceSettings {
        camera: camera.map(|device| CameraSettings { device, wish }),
        microphone: microphone.map(|device| MicrophoneSettings { device }),
    })
}

/// The network's steps are 0.4 s long and must hold a whole number of ticks.
fn tick_period(rate_hz: f32) -> Result<Duration, ConfigError> {
    match rate_hz {
        2.5 => Ok(Duration::from_millis(400)),
        5.0 => Ok(Duration::from_millis(200)),
        10.0 => Ok(Duration::from_millis(100)),
        other => Err(ConfigError::OutOfRange {
            key: "estimate.rate_hz",
            value: other.to_string(),
            reason: "must be 2.5, 5 or 10".into(),
        }),
    }
}

fn outputs(specs: Option<Vec<String>>) -> Result<Vec<OutputSpec>, ConfigError> {
    let specs = specs.unwrap_or_else(|| vec!["stdout".into()]);
    if specs.is_empty() {
        return Err(ConfigError::OutOfRange {
            key: "output",
            value: "[]".into(),
            reason: "needs at least one output, \"stdout\" say".into(),
        });
    }
    let mut outputs: Vec<OutputSpec> = Vec::new();
    for spec in specs {
        let refused = |reason: String| ConfigError::Output {
            spec: without_password(&spec).into_owned(),
            reason,
        };
        let output: OutputSpec = spec.parse().map_err(refused)?;
        if let Some(other) = outputs.iter().find(|other| other.same_place(&output)) {
            return Err(refused(format!("writes where {other} does: keep one")));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests;
