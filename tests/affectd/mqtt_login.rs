//! MQTT: TLS, passwords that change, and `affectd check`.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use affectd::health::Health;
use affectd::output::mqtt::Mqtt;
use affectd::output::{HostIdentity, Output};
use serde_json::Value;

use crate::mosquitto::{Mosquitto, Reader, free_port, wait};
use crate::mqtt::{BadBroker, Certificates, address, estimate, open, seq, tls_settings};

/// The result of `affectd check` for an output, without the port and the folder.
fn check(spec: &str, port: u16, folder: &Path) -> String {
    match Mqtt::check(&address(spec), &HostIdentity::default()) {
        Ok(_) => "ok".into(),
        Err(error) => error
            .to_string()
            .replace(&port.to_string(), "PORT")
            .replace(&folder.display().to_string(), "DIR")
            .replace("mqtts://localhost:PORT/affectd/affectd: ", ""),
    }
}

/// The same for a broker with the certificate `name`, and the options of the address.
fn check_tls(folder: &Path, name: &str, broker_settings: &str, options: &str) -> String {
    let settings = format!(
        "{}\nallow_anonymous true\n{broker_settings}",
        tls_settings(folder, name)
    );
    let broker = Mosquitto::start(folder, free_port(), &settings);
    check(
        &format!("mqtts://localhost:{}?{options}", broker.port),
        broker.port,
        folder,
    )
}

#[test]
fn a_self_signed_certificate_is_trusted_if_it_is_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, certificates) = (folder.path(), Certificates::of(folder.path()));
    certificates.openssl("req -x509 -newkey rsa:2048 -nodes -keyout self.key -out self.pem -days 2 -subj /CN=b -addext subjectAltName=DNS:localhost");
    certificates
        .openssl("req -x509 -newkey rsa:2048 -nodes -keyout plain.key -out plain.pem -days 2 -subj /CN=localhost");
    let dir = folder.display();
    for name in ["self", "plain"] {
        assert_eq!(check_tls(folder, name, "", &format!("ca={dir}/{name}.pem")), "ok");
    }
    // Another pinned certificate does not make this one trusted.
    let other = check_tls(folder, "self", "", &format!("ca={dir}/plain.pem"));
    insta::assert_snapshot!(other, @"no secure connection: the broker's certificate is self-signed or that of an authority: to trust exactly this certificate, add ca=/path/to/the/broker's/certificate.pem");
}

#[test]
fn every_common_tls_mistake_has_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, certificates) = (folder.path(), Certificates::of(folder.path()));
    let dir = folder.display();
    certificates.sign("good", "20200101", "20490101");
    certificates.openssl("req -newkey rsa:2048 -nodes -keyout v1.key -out v1.csr -subj /CN=localhost");
    certificates.openssl("x509 -req -in v1.csr -signkey v1.key -outform der -out v3.der -days 2");
    make_version_1(folder, &certificates);
    fs::write(folder.join("none.cnf"), "basicConstraints=CA:FALSE\n").unwrap();
    certificates
        .openssl("x509 -req -in v1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cn.pem -days 2 -extfile none.cnf");
    fs::copy(folder.join("v1.key"), folder.join("cn.key")).unwrap();
    certificates.openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:secp521r1 -nodes -keyout p521.key -out p521.csr -subj /CN=localhost",
    );
    certificates.openssl(
        "x509 -req -in p521.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out p521.pem -days 2 -extfile san.cnf",
    );
    certificates.openssl("pkey -in good.key -aes256 -passout pass:hunter2 -out encrypted.key");
    let ca = format!("ca={dir}/ca.pem");
    insta::assert_snapshot!(check_tls(folder, "v1", "", &ca), @"no secure connection: the broker's certificate is of X.509 version 1: make one of version 3, for example with openssl req -x509 -addext subjectAltName=DNS:broker");
    insta::assert_snapshot!(check_tls(folder, "cn", "", &ca), @"no secure connection: the broker's certificate names no host in subjectAltName (a common name does not count): make one that does; to trust exactly this certificate, add ca=/path/to/the/broker's/certificate.pem");
    insta::assert_snapshot!(check_tls(folder, "p521", "", &ca), @"no secure connection: the broker found no common TLS options (HandshakeFailure): it needs TLS 1.2 or 1.3 and a key of type RSA, P-256, P-384 or Ed25519; if it requires a client certificate, add cert and key");
    let client = |key: &str| format!("{ca}&cert={dir}/good.pem&key={dir}/{key}.key");
    insta::assert_snapshot!(check_tls(folder, "good", "", &client("encrypted")), @"DIR/encrypted.key: the key is encrypted, and nobody can type its password: decrypt it with openssl pkey -in DIR/encrypted.key -out KEY.pem, and make KEY.pem readable for affectd only");
    insta::assert_snapshot!(check_tls(folder, "good", "", &client("v1")), @"DIR/good.pem and DIR/v1.key: the key does not fit the certificate: give a certificate and its own key");
    insta::assert_snapshot!(check_tls(folder, "good", "", &format!("{ca}&cert={dir}/p521.pem&key={dir}/p521.key")), @"DIR/p521.key: this type of key is not supported (unexpected error: failed to parse private key as RSA, ECDSA, or EdDSA): use RSA, P-256, P-384 or Ed25519");
    insta::assert_snapshot!(check_tls(folder, "good", "require_certificate true", &ca), @"no secure connection: the broker requires a client certificate: add cert and key");
    insta::assert_snapshot!(check_tls(folder, "good", "", &format!("{ca}&cert={dir}/v1.pem&key={dir}/v1.key")), @"DIR/v1.pem: the client certificate is of X.509 version 1: make one of version 3");
    certificates.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout foreign.key -out foreign.pem -days 2 -subj /CN=f");
    let foreign = format!("{ca}&cert={dir}/foreign.pem&key={dir}/foreign.key");
    let rejected = check_tls(folder, "good", "require_certificate true", &foreign);
    assert!(
        rejected.starts_with("no secure connection: the broker rejected the client certificate ("),
        "{rejected}"
    );

    // mqtt:// and mqtts:// mixed up.
    let plain = Mosquitto::without_passwords(folder);
    let spec = format!("mqtts://localhost:{}?{ca}", plain.port);
    insta::assert_snapshot!(check(&spec, plain.port, folder), @"no secure connection: the broker closed the connection during the handshake: check the port, write mqtt:// if it does not use TLS, and see the broker's log");
    let secure = Mosquitto::start(folder, free_port(), &tls_settings(folder, "good"));
    let error = check(&format!("mqtt://localhost:{}", secure.port), secure.port, folder);
    assert!(
        error.contains("write mqtts://") && error.contains("expects TLS"),
        "{error}"
    );

    let old = OldTls::start(folder);
    insta::assert_snapshot!(check(&format!("mqtts://localhost:{}?{ca}", old.port), old.port, folder), @"no secure connection: the broker's TLS is older than version 1.2: update the broker");
}

/// Makes v1.pem, of X.509 version 1, out of v3.der and v1.key. OpenSSL 3.0 makes version 1 of a request without extensions,
/// OpenSSL 3.5 version 3; so the version and the extensions are removed here, and the rest is signed anew.
fn make_version_1(folder: &Path, certificates: &Certificates) {
    let path = |name: &str| folder.join(name);
    let version_3 = fs::read(path("v3.der")).unwrap();
    let [certificate] = der_items(&version_3)[..] else {
        panic!("v3.der is not one item")
    };
    let [to_be_signed, algorithm, _] = der_items(der_content(certificate))[..] else {
        panic!("v3.der has other parts")
    };
    let kept: Vec<u8> = der_items(der_content(to_be_signed))
        .into_iter()
        .filter(|item| ![0xa0, 0xa3].contains(&item[0]))
        .collect::<Vec<_>>()
        .concat();
    let to_be_signed = der_item(0x30, &kept);
    fs::write(path("v1.tbs"), &to_be_signed).unwrap();
    certificates.openssl("dgst -sha256 -sign v1.key -out v1.signature v1.tbs");
    let signature = der_item(0x03, &[&[0], &fs::read(path("v1.signature")).unwrap()[..]].concat());
    let version_1 = der_item(0x30, &[&to_be_signed, algorithm, &signature].concat());
    fs::write(path("v1.der"), version_1).unwrap();
    certificates.openssl("x509 -inform der -in v1.der -out v1.pem");
}

/// The items, each with its tag and length, that follow each other in `der`.
fn der_items(mut der: &[u8]) -> Vec<&[u8]> {
    let mut items = Vec::new();
    while !der.is_empty() {
        let (header, length) = der_header(der);
        let (item, rest) = der.split_at(header + length);
        items.push(item);
        der = rest;
    }
    items
}

fn der_content(item: &[u8]) -> &[u8] {
    &item[der_header(item).0..]
}

/// The sizes of an item's header and of its content.
fn der_header(item: &[u8]) -> (usize, usize) {
    match item[1] {
        long @ 0x80.. => {
            let bytes = usize::from(long - 0x80);
            let length = item[2..2 + bytes]
                .iter()
                .fold(0, |length, &byte| length << 8 | usize::from(byte));
            (2 + bytes, length)
        }
        short => (2, usize::from(short)),
    }
}

fn der_item(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length[..], content].concat()
}

/// A server with TLS 1.1 only.
struct OldTls {
    port: u16,
    process: Child,
}

impl OldTls {
    fn start(folder: &Path) -> OldTls {
        let port = free_port();
        let process = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                &format!("127.0.0.1:{port}"),
                "-cert",
                "good.pem",
                "-key",
                "good.key",
            ])
            .args(["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-quiet"])
            .current_dir(folder)
            .spawn()
            .unwrap();
        wait(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        OldTls { port, process }
    }
}

impl Drop for OldTls {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn set_password(folder: &Path, password: &str) {
    let users = folder.join("users");
    let hashed = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&users)
        .args(["li", password])
        .status();
    assert!(hashed.unwrap().success());
}

/// A broker that asks for a password, and the address of a device with its password in the file `pw`.
fn broker_with_password(folder: &Path) -> (Mosquitto, String) {
    set_password(folder, "new");
    let users = format!("allow_anonymous false\npassword_file {}/users", folder.display());
    let broker = Mosquitto::start(folder, free_port(), &users);
    let port = broker.port;
    let spec = format!(
        "mqtt://li@127.0.0.1:{port}?device=d&discovery=off&password_file={}/pw",
        folder.display()
    );
    (broker, spec)
}

#[test]
fn a_corrected_password_is_used_at_the_next_attempt() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pw"), "old").unwrap();
    let (broker, spec) = broker_with_password(folder.path());
    let mut output = open(&spec);
    output.write(&estimate(1)).unwrap();
    wait(|| broker.log().contains("not authorised").then_some(()));
    fs::write(folder.path().join("pw"), "new").unwrap();
    let reader = Reader::with(&broker, &["affectd/d/#"], &["-u", "li", "-P", "new"]);
    reader.until(|m| seq(m) == Some(1));
}

#[test]
fn a_reload_reconnects_if_the_password_file_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pw"), "new").unwrap();
    let (broker, spec) = broker_with_password(folder.path());
    let reader = Reader::with(&broker, &["affectd/d/#"], &["-u", "li", "-P", "new"]);
    let mut output = open(&spec);
    let connections = |output: &mut Mqtt| {
        output.health(&Health::default().report(Duration::ZERO)).unwrap();
        let message = reader.until(|m| m.topic.ends_with("/health")).pop().unwrap();
        serde_json::from_str::<Value>(&message.payload).unwrap()["mqtt"]["connections"].as_u64()
    };
    assert_eq!(connections(&mut output), Some(1));
    // Without a change, a reload does nothing.
    output.reload();
    assert_eq!(connections(&mut output), Some(1));
    fs::write(folder.path().join("pw"), "new\n\n").unwrap();
    output.reload();
    wait(|| (connections(&mut output) == Some(2)).then_some(()));
}

#[test]
fn check_logs_in_and_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pw"), "new").unwrap();
    let (broker, spec) = broker_with_password(folder.path());
    let reader = Reader::with(&broker, &["affectd/#", "homeassistant/#"], &["-u", "li", "-P", "new"]);
    let known = Mqtt::check(&address(&spec), &HostIdentity::default()).unwrap();
    insta::assert_snapshot!(known, @"logged in with MQTT 5; publishing was not tried: the broker may still deny topics");
    let run = crate::affectd()
        .args(["check", "--input"])
        .arg(crate::demo())
        .args(["--output", &spec])
        .output()
        .unwrap();
    let lines = String::from_utf8(run.stdout).unwrap();
    assert!(
        lines.contains("ok   output: mqtt://li@127.0.0.1:") && lines.contains("logged in with MQTT 5"),
        "{lines}"
    );
    let without_password = spec.split("&password_file").next().unwrap();
    insta::assert_snapshot!(check(without_password, broker.port, folder.path()), @"mqtt://li@127.0.0.1:PORT/affectd/d: authentication failed: the address has a user and there is no password: add password_file=/path/to/the/file, or check the user");
    fs::write(folder.path().join("pw"), "wrong").unwrap();
    insta::assert_snapshot!(check(&spec, broker.port, folder.path()), @"mqtt://li@127.0.0.1:PORT/affectd/d: authentication failed: check the user, the password and the user's rights on the broker");
    assert_eq!(reader.try_next(), None);
    let port = free_port();
    insta::assert_snapshot!(check(&format!("mqtt://127.0.0.1:{port}?device=d"), port, folder.path()), @"mqtt://127.0.0.1:PORT/affectd/d: no program accepts connections there: start the broker, or check host and port");
}

#[test]
fn a_broker_without_the_forced_version_is_named_with_the_option_to_leave_out() {
    let folder = tempfile::tempdir().unwrap();
    // Brokers of MQTT 3.1.1 answer with "unacceptable protocol version" in a packet that is too short for MQTT 5, or with nothing.
    for answer in [&[0x20, 2, 0, 1][..], &[]] {
        let old = BadBroker::start(move |mut stream| {
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(answer);
        });
        let error = check(
            &format!("mqtt://127.0.0.1:{}?version=5", old.port),
            old.port,
            folder.path(),
        );
        let end = "or the broker does not support MQTT 5, which version=5 forces: leave version= out";
        assert!(error.ends_with(end), "{error}");
    }
}

#[test]
fn without_retain_the_broker_keeps_nothing_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let spec = format!("mqtt://127.0.0.1:{}?device=d", broker.port);
    let watcher = Reader::of(&broker, &["affectd/#", "homeassistant/#"]);
    let mut output = open(&spec);
    output.health(&Health::default().report(Duration::ZERO)).unwrap();
    watcher.until(|m| m.topic.starts_with("affectd/boards/"));
    output.finish().unwrap();
    let _output = open(&format!("{spec}&retain=off"));
    let mut left: Vec<&str> = vec!["/status", "/health", "/board", "/config", "boards/"];
    while !left.is_empty() {
        let message = watcher.next();
        let is_deleted =
            |end: &&str| message.topic.ends_with(*end) || message.topic.contains("boards/") && *end == "boards/";
        if message.payload.is_empty() {
            left.retain(|end| !is_deleted(end));
        }
    }
}
