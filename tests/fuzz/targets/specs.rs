//! Output specs: a spec that can be written as text parses to itself, and a rejected one has a reason.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use affectd::output::{HostIdentity, OutputSpec};
use affectd::secrets::{has_secret_option, masked, masked_quotes};

pub fn check(data: &[u8]) {
    let host = HostIdentity::default();
    let parsed = OutputSpec::parse_os(OsStr::from_bytes(data), &host);
    let Ok(text) = str::from_utf8(data) else {
        // Only paths may be any bytes.
        assert!(
            matches!(parsed, Err(_) | Ok(OutputSpec::File(_) | OutputSpec::Serial(_))),
            "{parsed:?}"
        );
        return;
    };
    assert_eq!(OutputSpec::parse(text, &host), parsed);
    // For the log. What it hides is the subject of tests of its own.
    let shown = masked(text);
    masked_quotes(text);
    // Each secret, of one byte or more, becomes one mark.
    assert!(shown.len() <= '…'.len_utf8() * text.len() + 1, "{shown}");
    match parsed {
        Ok(spec) => {
            let again = OutputSpec::parse(&spec.to_string(), &host);
            match (&spec, &again) {
                // The short form of an address, without its options.
                (OutputSpec::Mqtt(address), Ok(OutputSpec::Mqtt(other))) => {
                    assert_eq!((&address.host, address.port), (&other.host, other.port), "{spec}");
                    assert!(address.same_topics(other), "{spec}");
                    assert_eq!(address.user, other.user, "{spec}");
                    // In a path, what looks like an option may be a part of the name.
                    assert!(!has_secret_option(text), "a spec with a password is accepted: {text}");
                }
                _ => assert_eq!(again, Ok(spec)),
            }
        }
        Err(why) => assert!(!why.is_empty()),
    }
}
