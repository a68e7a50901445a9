//! The topics of a device, and its client identifier.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::address::{Address, Topic};
use crate::output::contract::HostIdentity;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Each message is an estimate, as on standard output.
    pub estimate: String,
    /// The health report, retained.
    pub health: String,
    /// `online` or `offline`, retained. The last will is `offline`.
    pub status: String,
    /// What the device sees at present, for home automation.
    pub state: String,
    /// Commands to the device.
    pub command: String,
    /// Answers to commands that name no response topic.
    pub response: String,
    /// The identifier of the board that publishes under these topics, retained.
    pub board: String,
}

impl Topics {
    /// The topics below `base`, for example `affectd/kitchen`.
    pub fn under(base: &Topic) -> Topics {
        let topic = |name: &str| format!("{}/{name}", base.as_str());
        Topics {
            estimate: topic("estimate"),
            health: topic("health"),
            status: topic("status"),
            state: topic("state"),
            command: topic("command"),
            response: topic("response"),
            board: topic("board"),
        }
    }
}

/// The purpose of a connection to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRole {
    /// Publishes a device's estimates.
    Device,
    /// Reads estimates. The process id keeps two readers apart: clients with the same identifier disconnect each other.
    Reader { process_id: u32 },
}

/// The identifier of a machine: `affectd` and 16 hexadecimal digits. It stays the same when the device gets another name.
/// machine-id(5) says that the machine's identifier is confidential, so only a hash of it is sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoardId(String);

impl BoardId {
    const PREFIX: &str = "affectd";
    const DIGITS: usize = 16;

    pub fn of(host: &HostIdentity) -> BoardId {
        // Without an identifier, at least machines with different host names differ.
        let machine = host.machine().unwrap_or_else(|| host.host_name.clone());
        BoardId(hashed_id(&["affectd board", &machine]))
    }

    /// `None` if `id` is not an identifier.
    pub fn parse(id: &[u8]) -> Option<BoardId> {
        let id = str::from_utf8(id).ok()?;
        let digits = id.strip_prefix(BoardId::PREFIX)?;
        let valid = digits.len() == BoardId::DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| BoardId(id.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last four digits, which tell two boards apart.
    pub fn suffix(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

/// The identifier of a service's configuration file: 16 hexadecimal digits. Its path may be confidential, so only a hash of it is
/// sent. Two services on one board have different ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigurationId(String);

impl ConfigurationId {
    pub fn of(host: &HostIdentity) -> ConfigurationId {
        let path = host.configuration.as_deref().unwrap_or_else(|| Path::new(""));
        ConfigurationId(hashed_digits(&["affectd configuration", &path.to_string_lossy()]))
    }
}

/// The client identifier: `affectd` and 16 hexadecimal digits. It is the same at every start and differs between machines,
/// devices and base topics. It has 23 characters, the longest identifier that every broker must accept.
pub fn client_id(address: &Address, host: &HostIdentity, role: ClientRole) -> String {
    let machine = host.machine().unwrap_or_default();
    let base = match role {
        ClientRole::Device => address.base.as_str().into(),
        ClientRole::Reader { process_id } => format!("reader {process_id}"),
    };
    hashed_id(&["affectd mqtt client", &machine, address.device.as_str(), &base])
}

/// What is wrong with the name or the identity of this device, and how to correct it. In containers, both are often missing or
/// different at every start.
pub fn identity_problems(address: &Address, host: &HostIdentity) -> Vec<String> {
    let mut problems = Vec::new();
    let device = address.device.as_str();
    let is_container_id = device.len() == 12 && device.bytes().all(|b| b.is_ascii_hexdigit());
    if is_container_id && device == host.host_name {
        problems.push(format!(
            "the device is called {device}, which looks like the identifier of a container and changes with it: add \
             device=NAME to this output"
        ));
    }
    if host.machine().is_none() {
        problems.push(
            "/etc/machine-id is missing or empty, so boards with the same device name get the same MQTT client identifier and \
             disconnect each other: create it with systemd-machine-id-setup, mount it into the container, or add device=NAME \
             to this output with a different name on each board"
                .into(),
        );
    }
    problems
}

fn hashed_id(parts: &[&str]) -> String {
    format!("{}{}", BoardId::PREFIX, hashed_digits(parts))
}

fn hashed_digits(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize()[..BoardId::DIGITS / 2]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
impl BoardId {
    pub fn sample() -> BoardId {
        BoardId("affectd0123456789abcdef".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(machine_id: Option<&str>, host_name: &str) -> HostIdentity {
        HostIdentity {
            machine_id: machine_id.map(str::to_owned),
            host_name: host_name.into(),
            ..HostIdentity::default()
        }
    }

    #[test]
    fn client_ids_are_stable_and_unique_and_have_at_most_23_characters() {
        let id = |machine: &str, spec: &str| {
            let host = host(Some(machine), "pi");
            client_id(&Address::parse(spec, &host).unwrap(), &host, ClientRole::Device)
        };
        let kitchen = id("0123456789abcdef0123456789abcdef", "mqtt://b?device=kitchen");
        insta::assert_snapshot!(kitchen, @"affectd5d53da3fb8d04c0d");
        assert!(kitchen.len() <= 23 && kitchen.chars().all(|c| c.is_ascii_alphanumeric()));
        for (machine, spec) in [
            ("another", "mqtt://b?device=kitchen"),
            ("0123456789abcdef0123456789abcdef", "mqtt://b?device=hall"),
            ("0123456789abcdef0123456789abcdef", "mqtt://b/home?device=kitchen"),
        ] {
            assert_ne!(id(machine, spec), kitchen);
        }
    }

    #[test]
    fn board_ids_depend_on_the_machine_alone() {
        let id = |machine, name| BoardId::of(&host(machine, name));
        assert_eq!(id(Some("m"), "a"), id(Some("m"), "b"));
        assert_ne!(id(Some("m"), "a"), id(Some("n"), "a"));
        assert_ne!(id(None, "a"), id(None, "b"));
        // Boards with copies of one SD card.
        let board = |serial: &str| HostIdentity {
            board_serial: Some(serial.into()),
            ..host(Some("m"), "a")
        };
        assert_ne!(BoardId::of(&board("1")), BoardId::of(&board("2")));
        assert_eq!(
            BoardId::parse(id(Some("m"), "a").as_str().as_bytes()),
            Some(id(Some("m"), "a"))
        );
        for wrong in [
            &b"affectd"[..],
            b"affectd0123456789abcdeG",
            b"\xff",
            b"",
            b"affectd0123456789abcdef0",
        ] {
            assert_eq!(BoardId::parse(wrong), None);
        }
    }

    #[test]
    fn a_container_without_a_name_is_warned_about_with_the_key_to_set() {
        let problems = |spec: &str, machine| {
            let host = host(machine, "3f2a9c0d1e4b");
            identity_problems(&Address::parse(spec, &host).unwrap(), &host)
        };
        insta::assert_snapshot!(problems("mqtt://b", Some("m")).join("\n"), @"the device is called 3f2a9c0d1e4b, which looks like the identifier of a container and changes with it: add device=NAME to this output");
        insta::assert_snapshot!(problems("mqtt://b?device=hall", None).join("\n"), @"/etc/machine-id is missing or empty, so boards with the same device name get the same MQTT client identifier and disconnect each other: create it with systemd-machine-id-setup, mount it into the container, or add device=NAME to this output with a different name on each board");
        assert_eq!(problems("mqtt://b", None).len(), 2);
        assert_eq!(problems("mqtt://b?device=hall", Some("m")), Vec::<String>::new());
    }
}
