//! The topics of a device, and its client identifier.

use log::warn;
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
}

impl Topics {
    /// The topics below `base`, for example `affectd/kitchen`.
    pub fn under(base: &Topic) -> Topics {
        let topic = |name: &str| format!("{}/{name}", base.as_str());
        Topics {
            estimate: topic("estimate"),
            health: topic("health"),
            status: topic("status"),
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

/// The client identifier: `affectd` and 16 hexadecimal digits. It is the same at every start and differs between machines,
/// devices and base topics. It has 23 characters, the longest identifier that every broker must accept. machine-id(5) says
/// that the machine's identifier is confidential, so only a hash of it is sent.
pub fn client_id(address: &Address, host: &HostIdentity, role: ClientRole) -> String {
    if host.machine_id.is_none() {
        warn!(
            "/etc/machine-id cannot be read, so machines with the same device name get the same MQTT client identifier \
             and disconnect each other: create it with systemd-machine-id-setup, or use different device names"
        );
    }
    let machine = host.machine_id.as_deref().unwrap_or_default();
    let base = match role {
        ClientRole::Device => address.base.as_str().into(),
        ClientRole::Reader { process_id } => format!("reader {process_id}"),
    };
    hashed_id(machine, address.device.as_str(), &base)
}

fn hashed_id(machine: &str, device: &str, base: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["affectd mqtt client", machine, device, base] {
        hash.update(part);
        hash.update([0]);
    }
    let digits: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("affectd{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_stable_and_unique_and_have_at_most_23_characters() {
        let kitchen = hashed_id("0123456789abcdef0123456789abcdef", "kitchen", "affectd/kitchen");
        insta::assert_snapshot!(kitchen, @"affectd5d53da3fb8d04c0d");
        assert!(kitchen.len() <= 23 && kitchen.chars().all(|c| c.is_ascii_alphanumeric()));
        for (machine, device, base) in [
            ("another", "kitchen", "affectd/kitchen"),
            ("0123456789abcdef0123456789abcdef", "hall", "affectd/kitchen"),
            ("0123456789abcdef0123456789abcdef", "kitchen", "home"),
        ] {
            assert_ne!(hashed_id(machine, device, base), kitchen);
        }
    }
}
