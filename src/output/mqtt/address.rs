//! `mqtt://[user@]host[:port][/base][?key=value&…]`, as it stands in `--output` and the configuration.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::packet::Version;

const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;
const DISCOVERY_PREFIX: &str = "homeassistant";
const SPAN: Duration = Duration::from_secs(10 * 60);
/// Two hours of estimates at 10 Hz are some 40 MB.
const LONGEST_SPAN: Duration = Duration::from_secs(2 * 60 * 60);

/// A broker, and how and under which topics to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
    /// `mqtts://`.
    pub tls: Option<TlsFiles>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub version: Version,
    /// Which of many affectd this is: letters, digits, `-` and `_`.
    pub device: String,
    /// What every topic begins with, without a slash at its end.
    pub base: String,
    /// Home Assistant's discovery prefix; `None` where nobody is to discover anything.
    pub discovery: Option<String>,
    /// How much time's estimates wait for a broker that is away.
    pub spool: Duration,
}

/// PEM files; what is `None` is the system's or not needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, for a broker that asks for one.
    pub client: Option<ClientFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Address {
    /// Is this an MQTT address at all?
    pub fn is_one(spec: &str) -> bool {
        spec.starts_with("mqtt://") || spec.starts_with("mqtts://")
    }

    /// Whether both publish under the same topics of the same broker.
    pub fn same_topics(&self, other: &Address) -> bool {
        (&self.host, self.port, &self.base) == (&other.host, other.port, &other.base)
    }

    /// Reads an address; the error is one line that never repeats a password.
    pub fn parse(spec: &str) -> Result<Address, String> {
        let (scheme, rest) = spec.split_once("://").ok_or("must begin with mqtt:// or mqtts://")?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(format!("{other}:// is not known: write mqtt:// or mqtts://")),
        };
        if holds_password(rest) {
            return Err(
                "a password may not stand in the address, where everybody can read it: put it into a file and add \
                 password_file=/path/to/it"
                    .into(),
            );
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, host_port)) => (Some(user), host_port),
            None => (None, authority),
        };
        let user = user.map(decoded).transpose()?;
        let (host, port) = host_and_port(host_port)?;
        let mut keys = Keys::parse(query)?;
        let password_file = keys.path("password_file");
        if password_file.is_some() && user.is_none() {
            return Err("password_file is given but no user: write mqtt://user@host".into());
        }
        let files = tls_files(&mut keys)?;
        if !tls && files != TlsFiles::default() {
            return Err("ca, cert and key are for mqtts://: write that, or leave them out".into());
        }
        let version = match keys.take("version").as_deref() {
            None | Some("3" | "3.1.1") => Version::V3,
            Some("5" | "5.0") => Version::V5,
            Some(other) => return Err(format!("version={other} is not known: write 3.1.1 or 5")),
        };
        let device = match keys.take("device") {
            Some(name) => device(name)?,
            None => host_name(),
        };
        let base = match decoded(path.trim_end_matches('/'))? {
            path if path.is_empty() => format!("affectd/{device}"),
            path => topic("the base topic", path)?,
        };
        let discovery = match keys.take("discovery") {
            None => Some(DISCOVERY_PREFIX.to_string()),
            Some(off) if off == "off" => None,
            Some(prefix) => Some(topic("discovery", prefix)?),
        };
        let spool = match keys.take("spool") {
            None => SPAN,
            Some(text) => span(&text)?,
        };
        keys.nothing_left()?;
        Ok(Address {
            host,
            port: port.unwrap_or(if tls { TLS_PORT } else { PORT }),
            tls: tls.then_some(files),
            user,
            password_file,
            version,
            device,
            base,
            discovery,
            spool,
        })
    }
}

impl fmt::Display for Address {
    /// Short, for the log: where to, as whom, under which topics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        let user = self.user.as_deref().map(|u| format!("{u}@")).unwrap_or_default();
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        write!(f, "{scheme}://{user}{host}:{}/{}", self.port, self.base)
    }
}

/// `spec` as it may be shown: what stands where a password would is left out.
pub fn without_password(spec: &str) -> Cow<'_, str> {
    match spec.split_once("://") {
        Some((scheme, rest)) if holds_password(rest) => {
            let user = rest.split(':').next().unwrap_or_default();
            let host = rest.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{user}:…@{host}").into()
        }
        _ => spec.into(),
    }
}

/// Whether `user:password@` stands at the front. The password may hold whatever ends the authority elsewhere.
fn holds_password(rest: &str) -> bool {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => user.contains(':'),
        None => rest.contains('@') && authority.contains(':') && host_and_port(authority).is_err(),
    }
}

/// What follows the question mark.
struct Keys(Vec<(String, String)>);

impl Keys {
    fn parse(query: &str) -> Result<Keys, String> {
        let mut keys: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair} has no value: write {pair}=…"))?;
            if keys.iter().any(|(k, _)| k == key) {
                return Err(format!("{key} is given twice: keep one"));
            }
            keys.push((key.into(), decoded(value)?));
        }
        Ok(Keys(keys))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.swap_remove(at).1)
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.take(key).map(PathBuf::from)
    }

    fn nothing_left(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) if key == "password" => {
                Err("a password may not stand in the address: put it into a file and give password_file".into())
            }
            Some((key, _)) => Err(format!(
                "{key} is not known: there are version, device, password_file, ca, cert, key, discovery and spool"
            )),
        }
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("has no host: write mqtt://host".into());
    }
    let port = port
        .map(|port| match port.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("port {port} is not a number from 1 to 65535")),
        })
        .transpose()?;
    Ok((host.to_string(), port))
}

fn tls_files(keys: &mut Keys) -> Result<TlsFiles, String> {
    let client = match (keys.path("cert"), keys.path("key")) {
        (Some(cert), Some(key)) => Some(ClientFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => return Err("cert is given without key: give both".into()),
        (None, Some(_)) => return Err("key is given without cert: give both".into()),
    };
    Ok(TlsFiles {
        ca: keys.path("ca"),
        client,
    })
}

/// Home Assistant allows no other letters where the name goes.
fn device(name: String) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.len() <= 64 && name.chars().all(allowed) {
        true => Ok(name),
        false => Err(format!(
            "device={name} is not a name: use up to 64 letters, digits, - and _"
        )),
    }
}

/// This machine's name, with what may not stand in a device's name replaced.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .take(64)
        .collect();
    if name.is_empty() { "affectd".into() } else { name }
}

fn topic(what: &str, name: String) -> Result<String, String> {
    let wrong = ['+', '#', '\0'].iter().find(|c| name.contains(**c));
    if let Some(c) = wrong {
        return Err(format!("{what} {name:?} holds {c:?}, which no topic may: leave it out"));
    }
    if name.is_empty() || name.len() > 256 || name.starts_with('$') {
        return Err(format!(
            "{what} {name:?} is no topic: use 1 to 256 bytes, and no $ at the front"
        ));
    }
    Ok(name)
}

fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span <= LONGEST_SPAN => Ok(span),
        Ok(_) => Err(format!("spool={text} is too long: at most 2h fit into memory")),
        Err(_) => Err(format!("spool={text} is no time: write 10m, for instance")),
    }
}

/// With each `%41` as the letter it stands for.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.ok_or("holds a % that two hexadecimal digits do not follow: write it as %25")?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "holds bytes that are no UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(spec: &str) -> String {
        Address::parse(spec).unwrap_err()
    }

    #[test]
    fn a_host_is_enough() {
        let address = Address::parse("mqtt://broker?device=kitchen").unwrap();
        assert_eq!(
            address,
            Address {
                host: "broker".into(),
                port: 1883,
                tls: None,
                user: None,
                password_file: None,
                version: Version::V3,
                device: "kitchen".into(),
                base: "affectd/kitchen".into(),
                discovery: Some("homeassistant".into()),
                spool: Duration::from_secs(600),
            }
        );
        assert_eq!(address.to_string(), "mqtt://broker:1883/affectd/kitchen");
    }

    #[test]
    fn everything_may_be_given() {
        let spec = "mqtts://li%40home@[fd00::1]:18883/home/mood/?version=5&device=hall&password_file=/run/secret%20s&ca=/ca.pem\
                    &cert=/c.pem&key=/k.pem&discovery=off&spool=30s";
        let address = Address::parse(spec).unwrap();
        assert_eq!(
            address,
            Address {
                host: "fd00::1".into(),
                port: 18883,
                tls: Some(TlsFiles {
                    ca: Some("/ca.pem".into()),
                    client: Some(ClientFiles {
                        cert: "/c.pem".into(),
                        key: "/k.pem".into()
                    }),
                }),
                user: Some("li@home".into()),
                password_file: Some("/run/secret s".into()),
                version: Version::V5,
                device: "hall".into(),
                base: "home/mood".into(),
                discovery: None,
                spool: Duration::from_secs(30),
            }
        );
        assert_eq!(address.to_string(), "mqtts://li@home@[fd00::1]:18883/home/mood");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_mend() {
        insta::assert_snapshot!(refused("mqtt://"), @"has no host: write mqtt://host");
        insta::assert_snapshot!(refused("mqtt://b:99999"), @"port 99999 is not a number from 1 to 65535");
        insta::assert_snapshot!(refused("mqtt://b?version=4"), @"version=4 is not known: write 3.1.1 or 5");
        insta::assert_snapshot!(refused("mqtt://b?qos=1"), @"qos is not known: there are version, device, password_file, ca, cert, key, discovery and spool");
        insta::assert_snapshot!(refused("mqtt://b?device=a/b"), @"device=a/b is not a name: use up to 64 letters, digits, - and _");
        insta::assert_snapshot!(refused("mqtt://b/a/%23"), @r##"the base topic "a/#" holds '#', which no topic may: leave it out"##);
        insta::assert_snapshot!(refused("mqtt://b?ca=/ca.pem"), @"ca, cert and key are for mqtts://: write that, or leave them out");
        insta::assert_snapshot!(refused("mqtts://b?cert=/c.pem"), @"cert is given without key: give both");
        insta::assert_snapshot!(refused("mqtt://b?password_file=/p"), @"password_file is given but no user: write mqtt://user@host");
        insta::assert_snapshot!(refused("mqtt://b?spool=1d"), @"spool=1d is too long: at most 2h fit into memory");
        insta::assert_snapshot!(refused("mqtt://b?device"), @"device has no value: write device=…");
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_never_shown() {
        for spec in [
            "mqtt://li:hunter2@b",
            "mqtts://li:hun/ter2@b",
            "mqtt://li:hun?ter2@b/x",
            "mqtt://b?password=hunter2",
        ] {
            let error = refused(spec);
            assert!(error.contains("password_file"), "{spec}: {error}");
            assert!(!error.contains("ter2"), "{error}");
        }
        assert_eq!(without_password("mqtt://li:hunter2@b/x"), "mqtt://li:…@b/x");
        assert_eq!(without_password("mqtt://li:hun/t?e@r2@b/x"), "mqtt://li:…@b/x");
        for harmless in [
            "mqtt://li@b:1883/x",
            "mqtts://b:8883?ca=/etc/affectd@hall/ca.pem",
            "stdout",
        ] {
            assert_eq!(without_password(harmless), harmless);
        }
        assert!(Address::parse("mqtts://b:8883?ca=/etc/affectd@hall/ca.pem").is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = Address::parse(&format!("mqtt://{text}"));
            let _ = without_password(&text);
        }
    }
}
