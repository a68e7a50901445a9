//! `mqtt://[user@]host[:port][/base][?key=value&…]`, as in `--output` and the configuration.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::message::Qos;
use super::version::VersionChoice;
use crate::output::contract::HostIdentity;
use crate::output::options::{Options, percent_decoded, percent_encoded};
use crate::secrets::{has_secret_option, login_password};

const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;
const DISCOVERY_PREFIX: &str = "homeassistant";
const OPTIONS: [&str; 11] = [
    "version",
    "device",
    "password_file",
    "ca",
    "cert",
    "key",
    "discovery",
    "prefix",
    "spool",
    "qos",
    "retain",
];
/// Characters besides letters and digits that are shown as they are. All others could end the part, or hide in a log line.
const PLAIN_IN_USER: &str = "-._~!$*+,=";
const PLAIN_IN_TOPIC: &str = "-._~!$*+,=/:";
const PASSWORD_IN_ADDRESS: &str = "the address contains a password, which everybody on this machine can read: put the \
                                   password into a file and add password_file=/path/to/the/file";

/// A broker, the topics, and how to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
    /// `None` for a connection without TLS.
    pub tls: Option<TlsFiles>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub version: VersionChoice,
    pub device: DeviceName,
    /// The first part of every topic.
    pub base: Topic,
    pub discovery: Discovery,
    /// Home Assistant's discovery prefix.
    pub discovery_prefix: Topic,
    /// Estimates of this time span are kept while the broker is away.
    pub spool: SpoolSpan,
    /// How estimates are delivered.
    pub qos: Qos,
    /// Whether the broker keeps the newest status, health report and announcement for later readers.
    pub retain: Retain,
}

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Certificates to trust; `None` for those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The client certificate, for brokers that require one.
    pub client: Option<ClientFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The name of this device among others: 1 to 64 letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName(String);

/// A topic to publish under: 1 to 256 bytes, no wildcard, no `$` at the front.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic(String);

/// Whether the device announces itself to Home Assistant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discovery {
    #[default]
    On,
    /// Not announced. An earlier announcement is removed.
    Off,
}

/// Whether messages are retained by the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retain {
    #[default]
    On,
    Off,
}

/// How much time the waiting estimates may span, at most two hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolSpan(Duration);

impl Address {
    /// Whether `spec` is an MQTT address, valid or not.
    pub fn is_address(spec: &str) -> bool {
        spec.starts_with("mqtt://") || spec.starts_with("mqtts://")
    }

    /// What to write instead of a text that begins like an address and is none: with another scheme, or without the slashes. `None` if it
    /// may be something else, such as a path.
    pub fn mend_of_scheme(text: &str) -> Option<String> {
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let lower = scheme.to_ascii_lowercase();
        let has_slashes = rest.starts_with("//");
        Some(match lower.as_str() {
            "mqtt" | "mqtts" if !has_slashes => format!("the slashes are missing: write {lower}://HOST"),
            "mqtt" | "mqtts" if scheme != lower => {
                format!("unknown scheme {scheme}://: write {lower}:// in small letters")
            }
            "mqtt" | "mqtts" => return None,
            _ if !has_slashes || !is_scheme => return None,
            "https" | "wss" | "ssl" | "tls" => format!("unknown scheme {scheme}://: a broker with TLS is mqtts://HOST"),
            _ => format!("unknown scheme {scheme}://: a broker is mqtt://HOST"),
        })
    }

    /// Whether both publish under the same topics of the same broker.
    pub fn same_topics(&self, other: &Address) -> bool {
        let same_broker = (broker_name(&self.host), self.port) == (broker_name(&other.host), other.port);
        same_broker && self.base == other.base
    }

    /// Parses an address. The default device name comes from `host`. The error is one line that never contains a password.
    pub fn parse(spec: &str, host: &HostIdentity) -> Result<Address, String> {
        let (scheme, rest) = spec
            .split_once("://")
            .ok_or("the address must begin with mqtt:// or mqtts://")?;
        let uses_tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(format!("unknown scheme {other}://: write mqtt:// or mqtts://")),
        };
        if login_password(spec).is_some() {
            return Err(PASSWORD_IN_ADDRESS.into());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Before the options are parsed, whose errors show the values. Without a question mark, the password would be a part of the
        // topic.
        if has_secret_option(&format!("?{query}")) || has_secret_option(path) {
            return Err(PASSWORD_IN_ADDRESS.into());
        }
        // Not quoted: what is before it may be a password.
        if path.contains('@') {
            return Err(
                "the base topic has an @: write %40 for it; if it belongs to a login, write mqtt://user@host".into(),
            );
        }
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, host_port)) => (Some(user), host_port),
            None => (None, authority),
        };
        let user = user
            .map(|user| percent_decoded(user).map_err(|why| format!("user {user}: {why}")))
            .transpose()?;
        let (broker, port) = host_and_port(host_port)?;
        let options = Options::parse(query)?;
        options.allow_only(&OPTIONS)?;
        let password_file = options.get("password_file")?;
        if password_file.is_some() && user.is_none() {
            return Err("password_file is given without a user: write mqtt://user@host".into());
        }
        let files = tls_files(&options)?;
        if !uses_tls && files != TlsFiles::default() {
            return Err("ca, cert and key need TLS: write mqtts://, or remove them".into());
        }
        let device = options.get("device")?.unwrap_or_else(|| DeviceName::of_host(host));
        let base = match path.trim_end_matches('/') {
            "" => Topic::of_device(&device),
            path => percent_decoded(path)
                .and_then(|path| path.parse())
                .map_err(|why| format!("base topic {path}: {why}"))?,
        };
        Ok(Address {
            host: broker,
            port: port.unwrap_or(if uses_tls { TLS_PORT } else { PORT }),
            tls: uses_tls.then_some(files),
            user,
            password_file,
            version: options.get_or("version", VersionChoice::default())?,
            device,
            base,
            discovery: options.get_or("discovery", Discovery::default())?,
            discovery_prefix: options.get_or("prefix", Topic(DISCOVERY_PREFIX.into()))?,
            spool: options.get_or("spool", SpoolSpan::default())?,
            qos: options.get_or("qos", Qos::default())?,
            retain: options.get_or("retain", Retain::default())?,
        })
    }
}

impl fmt::Display for Address {
    /// A short form for the log: the user, the broker and the base topic. It can be parsed again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        let user = self
            .user
            .as_deref()
            .map(|user| format!("{}@", percent_encoded(user, PLAIN_IN_USER)));
        let user = user.unwrap_or_default();
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let base = percent_encoded(self.base.as_str(), PLAIN_IN_TOPIC);
        write!(f, "{scheme}://{user}{host}:{}/{base}", self.port)
    }
}

/// One text for all names of a host that need no look-up in the network.
fn broker_name(host: &str) -> String {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match name.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if address.is_loopback() => "localhost".into(),
        Ok(address) => address.to_string(),
        Err(_) => name,
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, "")) => (host, None),
        // Text without a colon becomes an empty port, which is rejected below.
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or_default())),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing: write mqtt://host".into());
    }
    // Not quoted: an option that follows the host without a question mark may be a password.
    if !host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c)) {
        return Err("the host has a character that no host name has: write mqtt://host?option=value".into());
    }
    let port = port
        .map(|port| match port.parse() {
            Ok(port) if port > 0 => Ok(port),
            // Not quoted: it may be a password.
            _ => Err("the port must be a number from 1 to 65535".to_owned()),
        })
        .transpose()?;
    Ok((host.to_string(), port))
}

fn tls_files(options: &Options) -> Result<TlsFiles, String> {
    let client = match (options.get("cert")?, options.get("key")?) {
        (Some(cert), Some(key)) => Some(ClientFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => return Err("cert is given without key: give both".into()),
        (None, Some(_)) => return Err("key is given without cert: give both".into()),
    };
    Ok(TlsFiles {
        ca: options.get("ca")?,
        client,
    })
}

impl DeviceName {
    const MAX_BYTES: usize = 64;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `NAME-SUFFIX`. A long name is shortened.
    pub fn with_suffix(&self, suffix: &str) -> DeviceName {
        let kept = DeviceName::MAX_BYTES.saturating_sub(suffix.len() + 1);
        DeviceName(format!("{:.kept$}-{suffix}", self.0))
    }

    /// The host name, with `_` for characters that a device name cannot contain.
    fn of_host(host: &HostIdentity) -> DeviceName {
        let name: String = host
            .host_name
            .chars()
            .map(|c| if is_allowed_in_device_name(c) { c } else { '_' })
            .take(DeviceName::MAX_BYTES)
            .collect();
        DeviceName(if name.is_empty() { "affectd".into() } else { name })
    }
}

/// Home Assistant allows no other characters in the identifiers made of the device name.
fn is_allowed_in_device_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl FromStr for DeviceName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let valid = (1..=DeviceName::MAX_BYTES).contains(&name.len()) && name.chars().all(is_allowed_in_device_name);
        valid
            .then(|| DeviceName(name.into()))
            .ok_or("must be 1 to 64 letters, digits, - and _")
    }
}

impl Topic {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The base topic of a device that has no other.
    pub fn of_device(device: &DeviceName) -> Topic {
        Topic(format!("affectd/{}", device.as_str()))
    }

    /// Whether this is `prefix`, or a topic below it.
    pub fn is_under(&self, prefix: &Topic) -> bool {
        let rest = self.0.strip_prefix(&prefix.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// `TOPIC-SUFFIX`.
    pub fn with_suffix(&self, suffix: &str) -> Topic {
        Topic(format!("{}-{suffix}", self.0))
    }
}

impl FromStr for Topic {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let valid = (1..=256).contains(&name.len())
            && !name.starts_with('$')
            && !name.ends_with('/')
            && !name.contains(['+', '#', '\0']);
        valid.then(|| Topic(name.into())).ok_or(
            "a topic must have 1 to 256 bytes, without +, # and zero bytes, and must not begin with $ or end with /",
        )
    }
}

impl FromStr for Discovery {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Discovery::On),
            "off" => Ok(Discovery::Off),
            _ => Err("must be on or off: write prefix=… for a discovery prefix other than homeassistant"),
        }
    }
}

impl Retain {
    pub fn is_on(self) -> bool {
        self == Retain::On
    }
}

impl FromStr for Retain {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Retain::On),
            "off" => Ok(Retain::Off),
            _ => Err("must be on or off"),
        }
    }
}

impl SpoolSpan {
    /// Two hours of estimates at 10 Hz need about 40 MB.
    const MAX: Duration = Duration::from_secs(2 * 60 * 60);

    pub fn as_duration(self) -> Duration {
        self.0
    }
}

impl Default for SpoolSpan {
    fn default() -> SpoolSpan {
        SpoolSpan(Duration::from_secs(10 * 60))
    }
}

impl FromStr for SpoolSpan {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match humantime::parse_duration(text) {
            Ok(span) if span <= SpoolSpan::MAX => Ok(SpoolSpan(span)),
            _ => Err("must be a time span up to 2h, for example 10m"),
        }
    }
}

#[cfg(test)]
mod tests;
