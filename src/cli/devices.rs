//! `affectd devices`: what there is to capture with and to write to, under names that stay.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::capture::camera::list::{CameraInfo, ModeInfo, cameras};
use crate::capture::camera::negotiate::RequestedMode;
use crate::capture::microphone::list::{MicrophoneInfo, microphones};
use crate::config::{Config, DeviceSettings, Source};

/// Everything found. A machine without devices has empty lists, which is no error.
#[derive(Debug, Serialize)]
pub struct Devices {
    pub cameras: Vec<CameraInfo>,
    pub microphones: Vec<MicrophoneInfo>,
    pub serial_ports: Vec<SerialPort>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SerialPort {
    /// What to put into the configuration: a name that stays with the port, if there is one.
    pub device: String,
    pub node: String,
}

/// Prints what there is; `config` says of which size cameras are asked.
pub fn print(config: &Config, json: bool) {
    let wish = match &config.source {
        Source::Devices(DeviceSettings {
            camera: Some(camera), ..
        }) => camera.wish,
        _ => RequestedMode::default(),
    };
    let devices = Devices::find(&wish);
    let text = if json {
        serde_json::to_string(&devices).expect("names and numbers serialize into memory") + "\n"
    } else {
        devices.to_string()
    };
    // A reader that closes early, as `head` does, is no fault.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

impl Devices {
    /// Looks; `wish` stands for the sizes of cameras that do any.
    pub fn find(wish: &RequestedMode) -> Devices {
        Devices {
            cameras: cameras(wish),
            microphones: microphones(),
            serial_ports: serial_ports(),
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cameras")?;
        for camera in &self.cameras {
            write!(f, "  {}", camera.device)?;
            entry(
                f,
                &[&camera.card, &camera.driver],
                camera.auto,
                camera.problem.as_deref(),
            )?;
            let mut formats: Vec<&str> = camera.modes.iter().map(|mode| mode.format.as_str()).collect();
            formats.dedup();
            for format in formats {
                let modes = camera.modes.iter().filter(|mode| mode.format == format).map(size);
                writeln!(f, "    {format} {}", modes.collect::<Vec<_>>().join(", "))?;
            }
            if !camera.unread.is_empty() {
                writeln!(f, "    not read by affectd: {}", camera.unread.join(", "))?;
            }
        }
        none(f, self.cameras.is_empty())?;
        writeln!(f, "microphones")?;
        for microphone in &self.microphones {
            write!(f, "  {}", microphone.device)?;
            entry(f, &[&microphone.card], microphone.auto, microphone.problem.as_deref())?;
            if let Some([fewest, most]) = microphone.channels {
                let rates: Vec<String> = microphone.rates_hz.iter().map(u32::to_string).collect();
                let channels = match (fewest, most) {
                    (1, 1) => "1 channel".into(),
                    (a, b) if a == b => format!("{a} channels"),
                    (a, b) => format!("{a} to {b} channels"),
                };
                writeln!(f, "    {} Hz, {channels}", rates.join(", "))?;
            }
        }
        none(f, self.microphones.is_empty())?;
        writeln!(f, "serial ports")?;
        for port in &self.serial_ports {
            let node = if port.node == port.device {
                String::new()
            } else {
                format!(" ({})", port.node)
            };
            writeln!(f, "  {}{node}", port.device)?;
        }
        none(f, self.serial_ports.is_empty())
    }
}

fn size(mode: &ModeInfo) -> String {
    let mut text = format!("{}×{}", mode.width, mode.height);
    if let Some(rate) = mode.rate_hz {
        let _ = write!(text, " at {} Hz", (rate * 10.0).round() / 10.0);
    }
    text
}

/// The rest of a device's line.
fn entry(f: &mut fmt::Formatter<'_>, about: &[&str], auto: bool, problem: Option<&str>) -> fmt::Result {
    let about: Vec<&str> = about.iter().copied().filter(|text| !text.is_empty()).collect();
    if !about.is_empty() {
        write!(f, " ({})", about.join(", "))?;
    }
    if auto {
        write!(f, ", what `auto` takes")?;
    }
    if let Some(problem) = problem {
        write!(f, "\n    {problem}")?;
    }
    writeln!(f)
}

fn none(f: &mut fmt::Formatter<'_>, empty: bool) -> fmt::Result {
    if empty { writeln!(f, "  none") } else { Ok(()) }
}

/// Serial ports that have hardware behind them.
fn serial_ports() -> Vec<SerialPort> {
    let mut names: Vec<(PathBuf, PathBuf)> = links(Path::new("/dev/serial/by-id"));
    names.extend(links(Path::new("/dev/serial/by-path")));
    let mut nodes: Vec<String> = fs::read_dir("/sys/class/tty")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_port(name))
        .collect();
    nodes.sort();
    let port = |name: String| {
        let node = Path::new("/dev").join(name);
        let stable = names.iter().find(|(_, target)| *target == node).map(|(link, _)| link);
        SerialPort {
            device: stable.unwrap_or(&node).display().to_string(),
            node: node.display().to_string(),
        }
    };
    nodes.into_iter().map(port).collect()
}

/// Whether a terminal is a serial port; the kernel keeps four of the PC's whether they are there or not, of type 0.
fn is_port(name: &str) -> bool {
    let folder = Path::new("/sys/class/tty").join(name);
    let kind = fs::read_to_string(folder.join("type")).ok();
    folder.join("device").exists() && kind.is_none_or(|kind| kind.trim() != "0")
}

fn links(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut links: Vec<_> = entries
        .filter_map(|entry| Some((entry.path(), entry.path().canonicalize().ok()?)))
        .collect();
    links.sort();
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_as_such() {
        let nothing = Devices {
            cameras: Vec::new(),
            microphones: Vec::new(),
            serial_ports: Vec::new(),
        };
        insta::assert_snapshot!(nothing.to_string(), @"
        cameras
          none
        microphones
          none
        serial ports
          none
        ");
    }

    #[test]
    fn each_device_is_shown_with_its_name_and_what_it_does() {
        let mode = |format: &str, width, height, rate_hz| ModeInfo {
            format: format.into(),
            width,
            height,
            rate_hz,
        };
        let devices = Devices {
            cameras: vec![CameraInfo {
                device: "/dev/v4l/by-id/usb-HD_Webcam-video-index0".into(),
                node: "/dev/video0".into(),
                card: "HD Webcam".into(),
                driver: "uvcvideo".into(),
                modes: vec![
                    mode("YUYV", 640, 480, Some(30.0)),
                    mode("YUYV", 1280, 720, Some(7.5)),
                    mode("MJPG", 1280, 720, None),
                ],
                unread: vec!["H264".into()],
                problem: None,
                auto: true,
            }],
            microphones: vec![MicrophoneInfo {
                device: "hw:CARD=Device,DEV=0".into(),
                card: "USB Audio".into(),
                rates_hz: vec![44_100, 48_000],
                channels: Some([1, 2]),
                problem: Some("hw:CARD=Device,DEV=0: in use by another program".into()),
                auto: false,
            }],
            serial_ports: vec![SerialPort {
                device: "/dev/ttyAMA0".into(),
                node: "/dev/ttyAMA0".into(),
            }],
        };
        insta::assert_snapshot!(devices.to_string(), @"
        cameras
          /dev/v4l/by-id/usb-HD_Webcam-video-index0 (HD Webcam, uvcvideo), what `auto` takes
            YUYV 640×480 at 30 Hz, 1280×720 at 7.5 Hz
            MJPG 1280×720
            not read by affectd: H264
        microphones
          hw:CARD=Device,DEV=0 (USB Audio)
            hw:CARD=Device,DEV=0: in use by another program
            44100, 48000 Hz, 1 to 2 channels
        serial ports
          /dev/ttyAMA0
        ");
    }
}
