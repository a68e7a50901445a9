//! `serial:PATH?baud=…&wire=…`.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::encoder::Wire;
use super::port::{Port, PortError};
use crate::output::contract::OutputError;
use crate::output::options::Options;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialSpec {
    path: PathBuf,
    baud: Baud,
    wire: Wire,
}

/// Bits per second, from 300 to 4 000 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Baud(u32);

impl SerialSpec {
    /// `path` is the text between the colon and the question mark.
    pub fn parse(path: impl AsRef<OsStr>, options: &Options) -> Result<SerialSpec, String> {
        let path = path.as_ref();
        if !path.as_encoded_bytes().starts_with(b"/") {
            return Err("the path of a port is missing: write, for example, serial:/dev/ttyUSB0".into());
        }
        options.allow_only(&["baud", "wire"])?;
        Ok(SerialSpec {
            path: path.into(),
            baud: options.get_or("baud", Baud(115_200))?,
            wire: options.get_or("wire", Wire::Json)?,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bits per second.
    pub fn baud(&self) -> u32 {
        self.baud.0
    }

    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Whether the port is there and can be used.
    pub fn check(&self) -> Result<(), OutputError> {
        match self.open_port()? {
            Some(_) => Ok(()),
            None => Err(OutputError::Failed(format!(
                "{}: not plugged in: plug the adapter in, or list the ports with ls -l /dev/serial/by-id; affectd run waits for it",
                self.path.display()
            ))),
        }
    }

    /// Opens the port; `None` if it does not exist but may appear later.
    pub fn open_port(&self) -> Result<Option<Port>, OutputError> {
        let path = self.path.display();
        match self.reopen_port()? {
            None if !is_hot_pluggable(&self.path) => Err(OutputError::Failed(format!(
                "{path}: no such port: list the ports with ls -l /dev/serial/by-id /dev/serial[01]; \
                 a UART of the board must be enabled first (sudo raspi-config)"
            ))),
            port => Ok(port),
        }
    }

    /// Opens a port that was open before, so that it may come back whatever it is called; `None` if it does not exist now.
    pub fn reopen_port(&self) -> Result<Option<Port>, OutputError> {
        match Port::open(&self.path, self.baud.0) {
            Ok(port) => Ok(Some(port)),
            Err(PortError::Absent) => Ok(None),
            Err(PortError::Unusable(why)) => Err(OutputError::Failed(format!("{}: {why}", self.path.display()))),
        }
    }
}

/// Whether the port appears when an adapter is plugged in.
fn is_hot_pluggable(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    name.starts_with("ttyUSB") || name.starts_with("ttyACM") || folder == "by-id" || folder == "by-path"
}

impl fmt::Display for SerialSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, baud, wire) = (self.path.display(), self.baud.0, self.wire);
        write!(f, "serial:{path}?baud={baud}&wire={wire}")
    }
}

impl FromStr for Baud {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(baud @ 300..=4_000_000) => Ok(Baud(baud)),
            _ => Err("must be a number from 300 to 4000000, for example 115200"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<SerialSpec, String> {
        let (path, options) = spec.split_once('?').unwrap_or((spec, ""));
        SerialSpec::parse(path, &Options::parse(options)?)
    }

    #[test]
    fn displayed_specs_contain_the_defaults() {
        let full = |spec: &str| parse(spec).unwrap().to_string();
        assert_eq!(full("/dev/ttyAMA0"), "serial:/dev/ttyAMA0?baud=115200&wire=json");
        assert_eq!(
            full("/dev/x?wire=frame&baud=9600"),
            "serial:/dev/x?baud=9600&wire=frame"
        );
    }

    #[test]
    fn invalid_specs_are_rejected_with_the_valid_values() {
        let error = |spec: &str| parse(spec).unwrap_err();
        insta::assert_snapshot!(error("ttyUSB0"), @"the path of a port is missing: write, for example, serial:/dev/ttyUSB0");
        insta::assert_snapshot!(error("/dev/x?baud=fast"), @"baud=fast: must be a number from 300 to 4000000, for example 115200");
        insta::assert_snapshot!(error("/dev/x?baud=0"), @"baud=0: must be a number from 300 to 4000000, for example 115200");
        insta::assert_snapshot!(error("/dev/x?wire=morse"), @"wire=morse: must be json or frame");
        insta::assert_snapshot!(error("/dev/x?parity=odd"), @"unknown option parity: the options are baud, wire");
    }

    #[test]
    fn only_usb_ports_are_hot_pluggable() {
        for path in [
            "/dev/ttyUSB0",
            "/dev/ttyACM3",
            "/dev/serial/by-id/usb-FTDI_X",
            "/dev/serial/by-path/p",
        ] {
            assert!(is_hot_pluggable(Path::new(path)), "{path}");
        }
        for path in ["/dev/ttyAMA0", "/dev/serial0", "/dev/nothing"] {
            assert!(!is_hot_pluggable(Path::new(path)), "{path}");
        }
    }
}
