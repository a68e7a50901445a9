use super::*;
use crate::output::mqtt::version::Version;
use proptest::prelude::*;

fn parse(spec: &str) -> Result<Address, String> {
    let host = HostIdentity {
        host_name: "pi.local".into(),
        ..HostIdentity::default()
    };
    Address::parse(spec, &host)
}

fn error(spec: &str) -> String {
    parse(spec).unwrap_err()
}

#[test]
fn another_scheme_is_named_with_the_right_one() {
    for (text, mend) in [
        (
            "MQTT://b",
            Some("unknown scheme MQTT://: write mqtt:// in small letters"),
        ),
        (
            "Mqtts://b",
            Some("unknown scheme Mqtts://: write mqtts:// in small letters"),
        ),
        ("mqtt:b", Some("the slashes are missing: write mqtt://HOST")),
        ("http://b", Some("unknown scheme http://: a broker is mqtt://HOST")),
        (
            "wss://b",
            Some("unknown scheme wss://: a broker with TLS is mqtts://HOST"),
        ),
        ("mqtt://b", None),
        ("a:b", None),
        ("C:\\x", None),
        ("./a://b", None),
        ("/tmp/x", None),
    ] {
        assert_eq!(Address::mend_of_scheme(text).as_deref(), mend, "{text}");
    }
}

#[test]
fn a_host_is_enough_and_the_rest_has_defaults() {
    let address = parse("mqtt://broker").unwrap();
    assert_eq!(
        address,
        Address {
            host: "broker".into(),
            port: 1883,
            tls: None,
            user: None,
            password_file: None,
            version: VersionChoice::Automatic,
            device: DeviceName("pi_local".into()),
            base: Topic("affectd/pi_local".into()),
            discovery: Discovery::On,
            discovery_prefix: Topic("homeassistant".into()),
            spool: SpoolSpan(Duration::from_secs(600)),
            qos: Qos::AtLeastOnce,
            retain: Retain::On,
        }
    );
    assert_eq!(address.to_string(), "mqtt://broker:1883/affectd/pi_local");
}

#[test]
fn every_part_of_an_address_is_parsed() {
    let spec = "mqtts://li%40home@[fd00::1]:18883/home/mood/?version=5&device=hall&password_file=/run/secret%20s&ca=/ca.pem\
                &cert=/c.pem&key=/k.pem&discovery=off&prefix=ha&spool=30s&qos=0&retain=off";
    let address = parse(spec).unwrap();
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
            version: VersionChoice::Only(Version::V5),
            device: DeviceName("hall".into()),
            base: Topic("home/mood".into()),
            discovery: Discovery::Off,
            discovery_prefix: Topic("ha".into()),
            spool: SpoolSpan(Duration::from_secs(30)),
            qos: Qos::AtMostOnce,
            retain: Retain::Off,
        }
    );
    assert_eq!(address.to_string(), "mqtts://li%40home@[fd00::1]:18883/home/mood");
}

#[test]
fn a_host_without_a_name_is_called_affectd() {
    let address = Address::parse("mqtt://b", &HostIdentity::default()).unwrap();
    assert_eq!(address.base.as_str(), "affectd/affectd");
}

#[test]
fn errors_name_the_part_and_the_correction() {
    insta::assert_snapshot!(error("mqtt://"), @"the host is missing: write mqtt://host");
    for spec in ["mqtt://h&password=x", "mqtt://h;password=x", "mqtt://a b", "mqtt://h#x"] {
        assert_eq!(
            error(spec),
            "the host has a character that no host name has: write mqtt://host?option=value"
        );
    }
    for spec in ["mqtt://b:99999", "mqtt://[::1]99", "mqtt://[::1]:", "mqtt://b:"] {
        assert_eq!(error(spec), "the port must be a number from 1 to 65535");
    }
    insta::assert_snapshot!(error("mqtt://b?version=4"), @"version=4: must be auto, 3.1.1 or 5");
    insta::assert_snapshot!(error("mqtt://b?quality=1"), @"unknown option quality: the options are version, device, password_file, ca, cert, key, discovery, prefix, spool, qos, retain");
    insta::assert_snapshot!(error("mqtt://b?device=a/b"), @"device=a/b: must be 1 to 64 letters, digits, - and _");
    insta::assert_snapshot!(error("mqtt://b/a/%23"), @"base topic a/%23: a topic must have 1 to 256 bytes, without +, # and zero bytes, and must not begin with $ or end with /");
    insta::assert_snapshot!(error("mqtt://b?ca=/ca.pem"), @"ca, cert and key need TLS: write mqtts://, or remove them");
    insta::assert_snapshot!(error("mqtts://b?cert=/c.pem"), @"cert is given without key: give both");
    insta::assert_snapshot!(error("mqtt://b?password_file=/p"), @"password_file is given without a user: write mqtt://user@host");
    insta::assert_snapshot!(error("mqtt://b?discovery=homeassistant"), @"discovery=homeassistant: must be on or off: write prefix=… for a discovery prefix other than homeassistant");
    insta::assert_snapshot!(error("mqtt://b?prefix=ha/"), @"prefix=ha/: a topic must have 1 to 256 bytes, without +, # and zero bytes, and must not begin with $ or end with /");
    assert!(error("mqtt://bob:12345/hunter2@b").contains("password"));
    insta::assert_snapshot!(error("mqtt://b?prefix=a/%23"), @"prefix=a/#: a topic must have 1 to 256 bytes, without +, # and zero bytes, and must not begin with $ or end with /");
    insta::assert_snapshot!(error("mqtt://b?spool=1d"), @"spool=1d: must be a time span up to 2h, for example 10m");
    insta::assert_snapshot!(error("mqtt://b?device"), @r#"option "device" has no value: write device=VALUE"#);
}

#[test]
fn all_names_of_this_machine_are_one_broker() {
    let same = |a: &str, b: &str| parse(a).unwrap().same_topics(&parse(b).unwrap());
    for host in [
        "127.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "LOCALHOST",
        "localhost.",
    ] {
        assert!(
            same("mqtt://localhost?device=a", &format!("mqtt://{host}:1883?device=a")),
            "{host}"
        );
        assert!(
            !same("mqtt://localhost?device=a", &format!("mqtt://{host}:1884?device=a")),
            "{host}"
        );
        assert!(
            !same("mqtt://localhost?device=a", &format!("mqtt://{host}?device=b")),
            "{host}"
        );
    }
    assert!(same("mqtt://Broker.lan", "mqtt://broker.lan"));
    assert!(same("mqtt://[fd00::1]", "mqtt://[fd00:0::1]"));
    assert!(!same("mqtt://localhost", "mqtt://192.168.0.1"));
}

#[test]
fn a_password_in_the_address_is_rejected_and_never_shown() {
    for spec in [
        "mqtt://li:hunter2@b",
        "mqtts://li:hun/ter2@b",
        "mqtt://li:hun?ter2@b/x",
        "mqtt://li%3Ahunter2@b",
        "mqtt://b/topic&password=hunter2",
        "mqtt://b/topic;password=hunter2?qos=0",
        "mqtt://b?password=hunter2",
        "mqtt://b?password%3Dhunter2",
        "mqtt://b?token=hunter2",
        "mqtt://b?version=5&password=%hunter2",
    ] {
        let error = error(spec);
        assert!(error.contains("password_file"), "{spec}: {error}");
        assert!(!error.contains("ter2"), "{error}");
    }
    assert!(parse("mqtts://b:8883?ca=/etc/affectd@hall/ca.pem").is_ok());
    insta::assert_snapshot!(error("mqtt://li/hunter2@b"), @"the base topic has an @: write %40 for it; if it belongs to a login, write mqtt://user@host");
    assert_eq!(parse("mqtt://b/a%40b").unwrap().base.as_str(), "a@b");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,60}") {
        let _ = parse(&format!("mqtt://{text}"));
    }

    #[test]
    fn a_shown_address_can_be_parsed_again(
        scheme in "mqtts?", user in prop::option::of("([ -~é]|%25|%3a|%40|%2f|%3F|%0a){0,8}"),
        host in "b|b:7|\\[fd00::1%eth0\\](:7)?", base in "(/([ -~é]|%25|%40|%2F|%3f|%26|%1b){0,8}){0,2}",
    ) {
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        // Many of these texts are no addresses, or look like a password.
        if let Ok(address) = parse(&format!("{scheme}://{user}{host}{base}")) {
            let shown = address.to_string();
            let Address { host, port, tls, user, base, .. } = parse(&shown).map_err(|why| TestCaseError::fail(format!("{shown}: {why}")))?;
            prop_assert_eq!(
                (host, port, tls, user, base),
                (address.host, address.port, address.tls, address.user, address.base)
            );
        }
    }
}
