//! The two versions of the MQTT protocol.

use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, which every broker supports. A broker cannot say why it denies a message.
    V3,
    V5,
}

/// The versions that a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersionChoice {
    /// MQTT 5, or 3.1.1 if the broker does not support it.
    #[default]
    Automatic,
    Only(Version),
}

impl Version {
    pub fn other(self) -> Version {
        match self {
            Version::V3 => Version::V5,
            Version::V5 => Version::V3,
        }
    }
}

impl VersionChoice {
    /// The version for the first attempt.
    pub fn first(self) -> Version {
        match self {
            VersionChoice::Automatic => Version::V5,
            VersionChoice::Only(version) => version,
        }
    }
}

impl FromStr for VersionChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(VersionChoice::Automatic),
            "3" | "3.1.1" => Ok(VersionChoice::Only(Version::V3)),
            "5" | "5.0" => Ok(VersionChoice::Only(Version::V5)),
            _ => Err("must be auto, 3.1.1 or 5"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V3 => "3.1.1",
            Version::V5 => "5",
        })
    }
}
