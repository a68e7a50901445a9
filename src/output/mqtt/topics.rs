//! Topics, and who we are on them.

use std::path::Path;

use log::warn;
use sha2::{Digest, Sha256};

use super::address::Address;

/// Stays as long as the installation does.
const MACHINE_ID: &str = "/etc/machine-id";

/// What is published where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// An estimate each, as on standard output.
    pub estimate: String,
    /// The health record, retained.
    pub health: String,
    /// `online` or `offline`, retained; the last will.
    pub status: String,
}

impl Topics {
    /// `base` is such as `affectd/kitchen`.
    pub fn under(base: &str) -> Topics {
        let topic = |name: &str| format!("{base}/{name}");
        Topics {
            estimate: topic("estimate"),
            health: topic("health"),
            status: topic("status"),
        }
    }
}

/// The same on every start, another for every machine, device and base: `affectd` and 16 hexadecimal digits, together the 23
/// letters that every broker must take as a client identifier. The machine's own identifier is to be kept confidential, as
/// machine-id(5) says, so only a hash of it goes out.
pub fn identity(address: &Address) -> String {
    let machine = std::fs::read_to_string(Path::new(MACHINE_ID)).unwrap_or_else(|e| {
        warn!(
            "{MACHINE_ID} cannot be read ({e}): two machines with a device of the same name would disturb each other"
        );
        String::new()
    });
    identity_of(machine.trim(), &address.device, &address.base)
}

fn identity_of(machine: &str, device: &str, base: &str) -> String {
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
    fn an_identity_is_stable_its_own_and_short_enough_for_any_broker() {
        let kitchen = identity_of("0123456789abcdef0123456789abcdef", "kitchen", "affectd/kitchen");
        insta::assert_snapshot!(kitchen, @"affectd5d53da3fb8d04c0d");
        assert!(kitchen.len() <= 23 && kitchen.chars().all(|c| c.is_ascii_alphanumeric()));
        for (machine, device, base) in [
            ("another", "kitchen", "affectd/kitchen"),
            ("0123456789abcdef0123456789abcdef", "hall", "affectd/kitchen"),
            ("0123456789abcdef0123456789abcdef", "kitchen", "home"),
        ] {
            assert_ne!(identity_of(machine, device, base), kitchen);
        }
    }
}
