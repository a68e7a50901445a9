//! From the raw form to a [`Config`], which holds only values that affectd can run with.

use std::ffi::OsString;
use std::time::Duration;

use super::checked::{Config, DeviceSettings, Pace, PrivacySettings, Source};
use super::error::ConfigError;
use super::raw::{
    RawBaseline, RawCamera, RawChannel, RawEstimate, RawFace, RawInput, RawMicrophone, RawPrivacy, RawStatus,
};
use super::settings::{Layers, Settings};
use crate::capture::camera::negotiate::{RequestedMode, pixel_format, pixel_format_names};
use crate::capture::camera::program::CameraProgram;
use crate::capture::camera::{self, CameraSettings};
use crate::capture::microphone::program::MicrophoneProgram;
use crate::capture::microphone::{self, MicrophoneSettings};
use crate::capture::mono::ParseChannelError;
use crate::capture::orientation::{Orientation, Rotation};
use crate::capture::program::{CommandLine, address_error};
use crate::face::stage::FaceSettings;
use crate::fusion::{BaselineMode, FusionSettings};
use crate::model::KernelChoice;
use crate::output::{Conflict, HostIdentity, OutputSpec};
use crate::privacy::ButtonLine;
use crate::secrets::{has_secret_option, masked};
use crate::status::{HostName, StatusSettings, parse_listen};

impl Config {
    /// Reads and checks the configuration. `host` gives the default device name of an MQTT output.
    pub fn load(layers: &Layers, host: &HostIdentity) -> Result<Config, ConfigError> {
        Config::from_settings(&Settings::read(layers)?, host)
    }

    /// Checks each value.
    pub fn from_settings(settings: &Settings, host: &HostIdentity) -> Result<Config, ConfigError> {
        let raw = settings.raw()?;
        let specs = settings.output_specs(&raw);
        let check = Check { settings };
        let orientation = check.orientation(&raw.camera)?;
        let devices = check.devices(raw.camera, raw.microphone)?;
        Ok(Config {
            models: raw.models,
            kernel: KernelChoice::fastest(),
            source: check.source(raw.input, devices)?,
            face: check.face(&raw.face, orientation)?,
            fusion: check.fusion(&raw.estimate)?,
            outputs: check.outputs(specs, host)?,
            privacy: check.privacy(raw.privacy)?,
            status: check.status(raw.status)?,
        })
    }
}

/// A longer delay is a mistake.
const MAX_DELAY_S: f64 = 10.0;

/// Names the origin of a rejected value.
struct Check<'a> {
    settings: &'a Settings,
}

impl Check<'_> {
    fn invalid(&self, key: &'static str, value: &str, reason: &str) -> ConfigError {
        ConfigError::Invalid {
            key,
            value: masked(value),
            origin: self.settings.origin(key),
            reason: reason.to_owned(),
        }
    }

    fn in_range(&self, key: &'static str, value: f64, min: f64, max: f64) -> Result<f32, ConfigError> {
        if !(min..=max).contains(&value) {
            return Err(ConfigError::OutOfRange {
                key,
                value,
                origin: self.settings.origin(key),
                min,
                max,
            });
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the ranges are small, and the nearest f32 is exact enough for a setting"
        )]
        Ok(value as f32)
    }

    fn seconds(&self, key: &'static str, value: f64, max: f64) -> Result<Duration, ConfigError> {
        // Other modules compute durations from f32 seconds. So 0.4 s is the same duration everywhere.
        self.in_range(key, value, 0.0, max).map(Duration::from_secs_f32)
    }

    fn pixels(&self, key: &'static str, value: u32) -> Result<u32, ConfigError> {
        self.in_range(key, value.into(), 64.0, 7680.0).map(|_| value)
    }

    fn devices(&self, camera: RawCamera, microphone: RawMicrophone) -> Result<DeviceSettings, ConfigError> {
        for (key, device) in [
            ("camera.device", &camera.device),
            ("microphone.device", &microphone.device),
        ] {
            let command = device.strip_prefix("command:");
            if command.is_some_and(|command| command.trim().is_empty()) {
                return Err(self.invalid(key, device, "names no program: write command:PROGRAM and its arguments"));
            }
            if let Some(reason) = address_error(device) {
                return Err(self.invalid(key, device, reason));
            }
        }
        let format = match camera.format.as_str() {
            "auto" => None,
            name => Some(pixel_format(name).ok_or_else(|| {
                let reason = format!("must be auto or one of {}", pixel_format_names());
                self.invalid("camera.format", name, &reason)
            })?),
        };
        let mode = RequestedMode {
            format,
            width: self.pixels("camera.width", camera.width)?,
            height: self.pixels("camera.height", camera.height)?,
            rate_hz: self.in_range("camera.rate_hz", camera.rate_hz, 1.0, 120.0)?,
        };
        let camera = match camera.device.as_str() {
            "off" => None,
            "auto" => Some(camera::Choice::Auto),
            device => Some(match CommandLine::of_camera(device, &mode) {
                Some(command) => camera::Choice::Program(CameraProgram {
                    command,
                    delay: self.seconds("camera.delay_s", camera.delay_s, MAX_DELAY_S)?,
                }),
                None => camera::Choice::Path(device.into()),
            }),
        };
        let channel = match &microphone.channel {
            RawChannel::Number(number) => number.to_string(),
            RawChannel::Name(name) => name.clone(),
        };
        let channel = channel
            .parse()
            .map_err(|e: ParseChannelError| self.invalid("microphone.channel", &channel, &e.to_string()))?;
        let microphone = match microphone.device.as_str() {
            "off" => None,
            "auto" => Some(microphone::Choice::Auto),
            device => Some(match CommandLine::of_microphone(device) {
                Some(command) => microphone::Choice::Program(MicrophoneProgram {
                    command,
                    delay: self.seconds("microphone.delay_s", microphone.delay_s, MAX_DELAY_S)?,
                }),
                None => microphone::Choice::Name(device.into()),
            }),
        };
        Ok(DeviceSettings {
            camera: camera.map(|device| CameraSettings { device, mode }),
            microphone: microphone.map(|device| MicrophoneSettings { device, channel }),
        })
    }

    /// It applies to clips as well, which may come from the same camera.
    fn orientation(&self, camera: &RawCamera) -> Result<Orientation, ConfigError> {
        let rotation = Rotation::from_degrees(camera.rotate).ok_or_else(|| {
            let reason = "must be 0, 90, 180 or 270 (degrees, clockwise)";
            self.invalid("camera.rotate", &camera.rotate.to_string(), reason)
        })?;
        Ok(Orientation {
            rotation,
            flip: camera.flip,
        })
    }

    fn source(&self, input: RawInput, devices: DeviceSettings) -> Result<Source, ConfigError> {
        match (input.clip, input.realtime) {
            (Some(path), true) => Ok(Source::Clip {
                path,
                pace: Pace::Realtime,
            }),
            (Some(path), false) => Ok(Source::Clip {
                path,
                pace: Pace::Replay,
            }),
            (None, false) if devices.camera.is_none() && devices.microphone.is_none() => {
                let reason = "camera.device is off, too: switch at least one of them on";
                Err(self.invalid("microphone.device", "\"off\"", reason))
            }
            (None, false) => Ok(Source::Devices(devices)),
            (None, true) => {
                let reason = "applies to clips only, and no clip is given: add --input CLIP, or remove it";
                Err(self.invalid("input.realtime", "true", reason))
            }
        }
    }

    fn face(&self, face: &RawFace, orientation: Orientation) -> Result<FaceSettings, ConfigError> {
        Ok(FaceSettings {
            orientation,
            rate_hz: self.in_range("face.rate_hz", face.rate_hz, 1.0, 60.0)?,
            detect_every: self.seconds("face.detect_every_s", face.detect_every_s, 5.0)?,
            min_score: self.in_range("face.min_score", face.min_score, 0.1, 1.0)?,
        })
    }

    fn fusion(&self, estimate: &RawEstimate) -> Result<FusionSettings, ConfigError> {
        Ok(FusionSettings {
            period: self.period(estimate.rate_hz)?,
            time_constant: self.seconds("estimate.smoothing_s", estimate.smoothing_s, 10.0)?,
            baseline: match estimate.baseline {
                RawBaseline::OnDemand => BaselineMode::OnDemand,
                RawBaseline::EachPerson => BaselineMode::EachPerson,
            },
        })
    }

    fn privacy(&self, privacy: RawPrivacy) -> Result<PrivacySettings, ConfigError> {
        if let Some(light) = privacy.light.as_ref().filter(|path| !path.is_absolute()) {
            let reason = "must be the folder of an LED, for example /sys/class/leds/ACT";
            return Err(self.invalid("privacy.light", &light.display().to_string(), reason));
        }
        let button = privacy.button.as_ref().map(|line| {
            let parsed = line.parse::<ButtonLine>();
            parsed.map_err(|why| self.invalid("privacy.button", line, why))
        });
        let off_hours = privacy.off.parse();
        Ok(PrivacySettings {
            off_hours: off_hours.map_err(|why: String| self.invalid("privacy.off", &privacy.off, &why))?,
            light: privacy.light,
            button: button.transpose()?,
        })
    }

    /// The time between two estimates. A step of the network lasts 0.4 s and must hold a whole number of them.
    fn period(&self, rate_hz: f64) -> Result<Duration, ConfigError> {
        match rate_hz {
            2.5 => Ok(Duration::from_millis(400)),
            5.0 => Ok(Duration::from_millis(200)),
            10.0 => Ok(Duration::from_millis(100)),
            other => Err(self.invalid("estimate.rate_hz", &other.to_string(), "must be 2.5, 5 or 10")),
        }
    }

    fn status(&self, raw: RawStatus) -> Result<Option<StatusSettings>, ConfigError> {
        let hosts = raw.hosts.iter().map(|host| {
            HostName::parse(host).ok_or_else(|| {
                let reason = "must be a name without a port, for example \"board.lan\"";
                self.invalid("status.hosts", host, reason)
            })
        });
        let hosts = hosts.collect::<Result<_, _>>()?;
        if raw.listen == "off" {
            return Ok(None);
        }
        if raw.token.as_ref().is_some_and(|path| path.components().count() < 2) {
            let reason = "must be the path of a file that holds the token, with a slash in it, not the token itself";
            return Err(self.invalid("status.token", "…", reason));
        }
        let listen = parse_listen(&raw.listen).ok_or_else(|| {
            let reason = "must be an address with a port, for example 127.0.0.1:8787, or off";
            self.invalid("status.listen", &raw.listen, reason)
        })?;
        Ok(Some(StatusSettings {
            listen,
            token_file: raw.token,
            preview: raw.preview,
            unencrypted_image: raw.unencrypted_image,
            hosts,
        }))
    }

    fn outputs(&self, specs: Vec<OsString>, host: &HostIdentity) -> Result<Vec<OutputSpec>, ConfigError> {
        if specs.is_empty() {
            return Err(self.invalid("output", "[]", "needs at least one output, for example \"stdout\""));
        }
        let mut outputs: Vec<OutputSpec> = Vec::new();
        for spec in specs {
            let text = spec.to_string_lossy();
            let rejected = |reason: String| ConfigError::Output {
                spec: masked(&text),
                // The parser's reason may quote a part of the password.
                reason: if has_secret_option(&text) {
                    "a password cannot be an option: write it into a file, and name the file with password_file=PATH"
                        .into()
                } else {
                    reason
                },
            };
            let output = OutputSpec::parse_os(&spec, host).map_err(rejected)?;
            for other in &outputs {
                match output.conflict(other) {
                    None => {}
                    Some(Conflict::SamePlace) => {
                        return Err(rejected(format!("writes to the same place as {other}: keep one")));
                    }
                    Some(Conflict::NameOfOldFile) => {
                        let reason =
                            format!("an old file of one would get the name of the other, {other}: use another name");
                        return Err(rejected(reason));
                    }
                }
            }
            outputs.push(output);
        }
        Ok(outputs)
    }
}
