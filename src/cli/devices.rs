//! `affectd devices`: cameras, microphones and serial ports, under stable names.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::capture::camera::list::{CameraInfo, ModeInfo, cameras};
use crate::capture::camera::negotiate::RequestedMode;
use crate::capture::microphone::list::{ChannelRange, MicrophoneInfo, microphones};
use crate::config::{Config, DeviceSettings, Source};
use crate::printable::{printable, printable_json};
use crate::udev::{preferred_name, stable_names};

/// The devices of this machine. The lists may be empty.
#[derive(Debug, Serialize)]
pub struct Devices {
    pub cameras: Vec<CameraInfo>,
    pub microphones: Vec<MicrophoneInfo>,
    pub serial_ports: Vec<SerialPort>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SerialPort {
    /// The name to put into the configuration. It stays with the port if udev has such a name.
    pub device: String,
    pub node: String,
}

/// All devices, as text or as one JSON object. The camera settings of `config` give the requested frame size.
pub fn list(config: &Config, json: bool) -> String {
    let requested = match &config.source {
        Source::Devices(DeviceSettings {
            camera: Some(camera), ..
        }) => camera.mode,
        _ => RequestedMode::default(),
    };
    let devices = Devices::find(&requested);
    if json {
        printable_json(&serde_json::to_string(&devices).expect("names and numbers serialize into memory")) + "\n"
    } else {
        devices.to_string()
    }
}

impl Devices {
    /// Finds all devices. Cameras that support any size are listed with the requested one.
    pub fn find(requested: &RequestedMode) -> Devices {
        Devices {
            cameras: cameras(requested),
            microphones: microphones(),
            serial_ports: serial_ports(),
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cameras")?;
        for camera in &self.cameras {
            write!(f, "  {}", printable(&camera.device))?;
            device_details(
                f,
                &[&camera.card, &camera.driver],
                camera.auto,
                camera.problem.as_deref(),
            )?;
            let mut formats: Vec<&str> = camera.modes.iter().map(|mode| mode.format.as_str()).collect();
            formats.dedup();
            for format in formats {
                let modes = camera.modes.iter().filter(|mode| mode.format == format).map(mode_size);
                writeln!(f, "    {format} {}", modes.collect::<Vec<_>>().join(", "))?;
            }
            if !camera.unsupported.is_empty() {
                writeln!(f, "    not supported by affectd: {}", camera.unsupported.join(", "))?;
            }
        }
        write_none_if(f, self.cameras.is_empty())?;
        writeln!(f, "microphones")?;
        for microphone in &self.microphones {
            write!(f, "  {}", printable(&microphone.device))?;
            device_details(f, &[&microphone.card], microphone.auto, microphone.problem.as_deref())?;
            if let Some(ChannelRange { min, max }) = microphone.channels {
                let rates: Vec<String> = microphone.rates_hz.iter().map(u32::to_string).collect();
                let channels = match (min, max) {
                    (1, 1) => "1 channel".into(),
                    _ if min == max => format!("{min} channels"),
                    _ => format!("{min} to {max} channels"),
                };
                writeln!(f, "    {} Hz, {channels}", rates.join(", "))?;
            }
        }
        write_none_if(f, self.microphones.is_empty())?;
        writeln!(f, "serial ports")?;
        for port in &self.serial_ports {
            let node = if port.node == port.device {
                String::new()
            } else {
                format!(" ({})", port.node)
            };
            writeln!(f, "  {}", printable(&format!("{}{node}", port.device)))?;
        }
        write_none_if(f, self.serial_ports.is_empty())
    }
}

fn mode_size(mode: &ModeInfo) -> String {
    let mut text = format!("{}×{}", mode.width, mode.height);
    if let Some(rate) = mode.rate_hz {
        let _ = write!(text, " at {} Hz", (rate * 10.0).round() / 10.0);
    }
    text
}

/// Writes the rest of a device's line, and its problem on a second line.
fn device_details(f: &mut fmt::Formatter<'_>, description: &[&str], auto: bool, problem: Option<&str>) -> fmt::Result {
    let description: Vec<&str> = description.iter().copied().filter(|text| !text.is_empty()).collect();
    if !description.is_empty() {
        write!(f, " ({})", printable(&description.join(", ")))?;
    }
    if auto {
        write!(f, ", selected by `auto`")?;
    }
    if let Some(problem) = problem {
        write!(f, "\n    {}", printable(problem))?;
    }
    writeln!(f)
}

fn write_none_if(f: &mut fmt::Formatter<'_>, empty: bool) -> fmt::Result {
    if empty { writeln!(f, "  none") } else { Ok(()) }
}

/// The serial ports that have hardware.
fn serial_ports() -> Vec<SerialPort> {
    let names = stable_names(Path::new("/dev/serial"));
    let mut ports: Vec<String> = fs::read_dir("/sys/class/tty")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_serial_port(name))
        .collect();
    ports.sort();
    let serial_port = |name: String| {
        let node = Path::new("/dev").join(name);
        SerialPort {
            device: preferred_name(&names, &node).display().to_string(),
            node: node.display().to_string(),
        }
    };
    ports.into_iter().map(serial_port).collect()
}

/// Whether a terminal is a serial port. On PCs the kernel always lists four ports; absent ones have type 0.
fn is_serial_port(name: &str) -> bool {
    let folder = Path::new("/sys/class/tty").join(name);
    let port_type = fs::read_to_string(folder.join("type")).ok();
    folder.join("device").exists() && port_type.is_none_or(|port_type| port_type.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_devices_lists_none() {
        let devices = Devices {
            cameras: Vec::new(),
            microphones: Vec::new(),
            serial_ports: Vec::new(),
        };
        insta::assert_snapshot!(devices.to_string(), @"
        cameras
          none
        microphones
          none
        serial ports
          none
        ");
    }

    #[test]
    fn each_device_is_listed_with_its_name_and_capabilities() {
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
                unsupported: vec!["H264".into()],
                problem: None,
                auto: true,
            }],
            microphones: vec![MicrophoneInfo {
                device: "hw:CARD=Device,DEV=0".into(),
                card: "USB Audio".into(),
                rates_hz: vec![44_100, 48_000],
                channels: Some(ChannelRange { min: 1, max: 2 }),
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
          /dev/v4l/by-id/usb-HD_Webcam-video-index0 (HD Webcam, uvcvideo), selected by `auto`
            YUYV 640×480 at 30 Hz, 1280×720 at 7.5 Hz
            MJPG 1280×720
            not supported by affectd: H264
        microphones
          hw:CARD=Device,DEV=0 (USB Audio)
            hw:CARD=Device,DEV=0: in use by another program
            44100, 48000 Hz, 1 to 2 channels
        serial ports
          /dev/ttyAMA0
        ");
    }
}
