//! MQTT, with a real broker and with servers that misbehave.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use affectd::fusion::Estimate;
use affectd::health::LiveHealth;
use affectd::output::mqtt::{Address, Mqtt};
use affectd::output::{HostIdentity, Output, OutputContext};
use affectd::queue::WhenFull;
use serde_json::Value;

use crate::json_schema::Schema;
use crate::mosquitto::{Message, Mosquitto, Reader, free_port, wait};

pub fn context() -> OutputContext {
    OutputContext {
        period: Duration::from_millis(200),
        when_full: WhenFull::DropOldest,
        controls: crossbeam_channel::bounded(1).0,
        dropped: Arc::default(),
        lost: Arc::default(),
        health: LiveHealth::default(),
        pause: Arc::default(),
        host: Arc::default(),
    }
}

pub fn open(spec: &str) -> Mqtt {
    Mqtt::open(&address(spec), &context()).unwrap()
}

pub fn address(spec: &str) -> Address {
    Address::parse(spec, &HostIdentity::default()).unwrap()
}

pub fn estimate(seq: u64) -> Estimate {
    Estimate {
        seq,
        at: Duration::from_millis(200 * seq),
        affect: None,
        from_face: false,
        from_voice: false,
        face: None,
        voice: None,
        paused: false,
    }
}

pub fn seq(message: &Message) -> Option<u64> {
    let json: Value = serde_json::from_str(&message.payload).ok()?;
    message.topic.ends_with("/estimate").then(|| json["seq"].as_u64())?
}

pub fn is(topic: &str, payload: &str) -> impl Fn(&Message) -> bool {
    move |message| message.topic == topic && message.payload == payload
}

/// The sequence numbers that a reader receives until affectd publishes `offline`.
fn seqs_until_offline(reader: &Reader) -> Vec<u64> {
    let messages = reader.until(|m| m.topic.ends_with("/status") && m.payload == "offline");
    messages.iter().filter_map(seq).collect()
}

#[test]
fn estimates_status_and_discovery_are_published_in_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    for version in ["3.1.1", "5"] {
        let reader = Reader::of(&broker, &[&format!("affectd/v{}/#", &version[..1]), "homeassistant/#"]);
        let device = format!("v{}", &version[..1]);
        let status = format!("affectd/{device}/status");
        let mut output = open(&format!(
            "mqtt://127.0.0.1:{}?version={version}&device={device}",
            broker.port
        ));
        (1..=200).for_each(|n| output.write(&estimate(n)).unwrap());
        output.finish().unwrap();
        let mut messages = reader.until(is(&status, "offline"));
        // Retained messages of the previous version.
        messages.retain(|message| !message.retained);
        assert_eq!(messages[0].payload, "online");
        assert!(
            messages[1].topic.starts_with("homeassistant/device/affectd"),
            "{:?}",
            messages[1]
        );
        assert!(messages[1].payload.contains(&format!("affectd/{device}/state")));
        let seqs: Vec<u64> = messages.iter().filter_map(seq).collect();
        assert!(seqs.into_iter().eq(1..=200));
        // A later reader finds the retained status.
        let late = Reader::of(&broker, &[&status]).next();
        assert!(late.retained && late.payload == "offline", "{late:?}");
    }
}

#[test]
fn the_last_will_announces_a_dead_device_as_offline() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/d/status"]);
    // A relay between device and broker, which the test can cut.
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let _output = open(&format!(
        "mqtt://127.0.0.1:{}?device=d",
        relay.local_addr().unwrap().port()
    ));
    let (device, _) = relay.accept().unwrap();
    drop(relay);
    let upstream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
    let (mut from, mut to) = (device.try_clone().unwrap(), upstream.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut from, mut to) = (upstream.try_clone().unwrap(), device.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    reader.until(is("affectd/d/status", "online"));
    upstream.shutdown(std::net::Shutdown::Both).unwrap();
    reader.until(is("affectd/d/status", "offline"));
}

#[test]
fn the_device_is_announced_again_when_home_assistant_starts() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["homeassistant/device/#"]);
    let _output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    let first = reader.next();
    // The test cannot see when affectd has subscribed, so it publishes until there is an answer.
    let again = wait(|| {
        broker.publish(&["-t", "homeassistant/status", "-m", "online"]);
        reader.try_next()
    });
    assert_eq!(first, again);
}

#[test]
fn killing_the_broker_three_times_loses_no_estimate_and_keeps_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::persistent(folder.path(), free_port());
    let reader = Reader::with(&broker, &["affectd/d/estimate"], &["-c", "-i", "reader"]);
    broker.save();
    wait(|| folder.path().join("mosquitto.db").exists().then_some(()));
    let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    let mut seqs = Vec::new();
    let mut written = 0;
    let mut write = |count: u64| {
        for _ in 0..count {
            written += 1;
            output.write(&estimate(written)).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        written
    };
    for _ in 0..3 {
        let last = write(20);
        seqs.extend(reader.until(|m| seq(m) == Some(last)).iter().filter_map(seq));
        // Some estimates are sent while the broker is killed, some while it is dead.
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(220));
                broker.kill();
            });
            write(20);
            killer.join().unwrap();
        });
        broker.restart();
    }
    let last = write(20);
    seqs.extend(reader.until(|m| seq(m) == Some(last)).iter().filter_map(seq));
    assert_complete_and_in_order(seqs, last);
}

/// Whether `seqs` is 1 to `last`, apart from estimates that were sent again after a reconnect.
fn assert_complete_and_in_order(mut seqs: Vec<u64>, last: u64) {
    let mut newest = 0;
    let repeated = |seq: &u64| {
        let known = *seq <= newest;
        newest = newest.max(*seq);
        !known
    };
    let all = seqs.clone();
    seqs.retain(repeated);
    assert!(seqs.iter().copied().eq(1..=last), "{all:?}");
}

#[test]
fn unconfirmed_estimates_are_sent_again_after_a_reconnect() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::without_passwords(folder.path());
    let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    wait(|| broker.log().contains("c1, k10").then_some(()));
    // The kernel still accepts what is sent to a frozen broker, so the estimates seem to be delivered.
    broker.freeze();
    (1..=20).for_each(|n| output.write(&estimate(n)).unwrap());
    std::thread::sleep(Duration::from_millis(100));
    broker.kill();
    broker.restart();
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    let messages = reader.until(|m| seq(m) == Some(20));
    assert_complete_and_in_order(messages.iter().filter_map(seq).collect(), 20);
}

#[test]
fn a_broker_that_freezes_and_thaws_loses_no_estimate() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    reader.until(is("affectd/d/status", "online"));
    broker.freeze();
    // More than may be unacknowledged.
    (1..=100).for_each(|n| output.write(&estimate(n)).unwrap());
    broker.thaw();
    let messages = reader.until(|m| seq(m) == Some(100));
    assert_complete_and_in_order(messages.iter().filter_map(seq).collect(), 100);
}

/// A server that treats every connection in the same wrong way.
pub struct BadBroker {
    pub port: u16,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl BadBroker {
    pub fn start(treat: impl Fn(TcpStream) + Send + 'static) -> BadBroker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (connections, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, stopped) = (Arc::clone(&connections), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        counter.fetch_add(1, Ordering::Relaxed);
                        stream.set_nonblocking(false).unwrap();
                        treat(stream);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        BadBroker {
            port,
            connections,
            stop,
            thread,
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Frees the port.
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Connects to a bad broker, then replaces it with a good one, which must receive all estimates.
pub fn assert_survives(treat: impl Fn(TcpStream) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let bad_broker = BadBroker::start(treat);
    let port = bad_broker.port;
    let mut output = open(&format!("mqtt://127.0.0.1:{port}?device=d"));
    (1..=10).for_each(|n| output.write(&estimate(n)).unwrap());
    wait(|| (bad_broker.connections() >= 2).then_some(()));
    bad_broker.stop();
    let broker = Mosquitto::start(folder.path(), port, "allow_anonymous true");
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    output.write(&estimate(11)).unwrap();
    let messages = reader.until(|m| seq(m) == Some(11));
    assert!(messages.iter().filter_map(seq).eq(1..=11), "{messages:?}");
}

#[test]
fn a_broker_that_closes_connections_loses_no_estimate() {
    assert_survives(drop);
}

#[test]
fn a_broker_that_accepts_and_then_closes_loses_no_estimate() {
    assert_survives(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(&[0x20, 2, 0, 0]);
    });
}

#[test]
fn a_server_that_does_not_speak_mqtt_loses_no_estimate() {
    assert_survives(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
}

#[test]
fn a_silent_broker_does_not_block_the_stop_and_fails_only_a_replay() {
    // The kernel accepts connections, and no program answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let finish = |when_full| {
        let context = OutputContext { when_full, ..context() };
        let mut output = Mqtt::open(&address(&format!("mqtt://127.0.0.1:{port}?device=d")), &context).unwrap();
        output.write(&estimate(1)).unwrap();
        (output.finish(), context.dropped.load(Ordering::Relaxed))
    };
    let (replay, _) = finish(WhenFull::Wait);
    let error = replay.unwrap_err().to_string().replace(&port.to_string(), "PORT");
    insta::assert_snapshot!(error, @"mqtt://127.0.0.1:PORT/affectd/d: 1 estimates were not delivered: check that the broker runs; the last error is in the log");
    let (live, dropped) = finish(WhenFull::DropOldest);
    assert!(live.is_ok());
    assert_eq!(dropped, 1);
}

#[test]
fn waits_between_attempts_to_connect_grow() {
    let broker = BadBroker::start(drop);
    let start = Instant::now();
    let _output = open(&format!("mqtt://127.0.0.1:{}?device=d&version=5", broker.port));
    wait(|| (broker.connections() >= 4).then_some(()));
    // The first waits are at least 0.5, 1 and 2 s. A busy machine only makes them longer.
    assert!(start.elapsed() >= Duration::from_millis(3400), "{:?}", start.elapsed());
}

#[test]
fn a_full_spool_drops_the_oldest_and_the_health_report_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let context = context();
    let address = address(&format!("mqtt://127.0.0.1:{port}?device=d&spool=2s"));
    let mut output = Mqtt::open(&address, &context).unwrap();
    (1..=50).for_each(|n| output.write(&estimate(n)).unwrap());
    assert_eq!(context.dropped.load(Ordering::Relaxed), 39);
    let broker = Mosquitto::start(folder.path(), port, "allow_anonymous true");
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    output
        .health(&affectd::health::Health::default().report(Duration::ZERO))
        .unwrap();
    output.finish().unwrap();
    let messages = reader.until(is("affectd/d/status", "offline"));
    assert!(messages.iter().filter_map(seq).eq(40..=50), "{messages:?}");
    let health = messages.iter().find(|m| m.topic == "affectd/d/health").unwrap();
    let health: Value = serde_json::from_str(&health.payload).unwrap();
    assert_eq!(health["mqtt"]["estimates_dropped"], 39);
    assert_eq!(Schema::read("health").validate(&health), Ok(()));
}

/// A certificate authority of the test and the certificates it has signed.
pub struct Certificates<'a> {
    folder: &'a Path,
}

impl Certificates<'_> {
    pub fn of(folder: &Path) -> Certificates<'_> {
        let certificates = Certificates { folder };
        certificates.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca");
        fs::write(folder.join("index.txt"), "").unwrap();
        fs::write(folder.join("san.cnf"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let ca = "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ncertificate=ca.pem\nprivate_key=ca.key\n\
                  default_md=sha256\npolicy=p\nunique_subject=no\nrand_serial=yes\n[p]\ncommonName=supplied\n";
        fs::write(folder.join("ca.cnf"), ca).unwrap();
        certificates
    }

    /// Makes `name.pem` and `name.key`, valid between two days in the form 20200101.
    pub fn sign(&self, name: &str, from: &str, to: &str) {
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -extfile san.cnf -startdate {from}000000Z -enddate {to}000000Z -in {name}.csr -out {name}.pem"
        ));
    }

    pub fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.folder)
            .output()
            .unwrap_or_else(|e| panic!("openssl cannot be started ({e}): sudo apt-get install openssl"));
        assert!(
            output.status.success(),
            "{arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

pub fn tls_settings(folder: &Path, certificate: &str) -> String {
    let folder = folder.display();
    format!("cafile {folder}/ca.pem\ncertfile {folder}/{certificate}.pem\nkeyfile {folder}/{certificate}.key")
}

#[test]
fn tls_with_client_certificate_and_password_connects() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::of(folder.path());
    certificates.sign("broker", "20200101", "20490101");
    certificates.sign("device", "20200101", "20490101");
    let path = folder.path().display();
    fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
    let hashed = Command::new("mosquitto_passwd")
        .args(["-b", "-c", &format!("{path}/users"), "li", "hunter2"])
        .status();
    assert!(hashed.unwrap().success());
    let settings = format!(
        "{}\nrequire_certificate true\nallow_anonymous false\npassword_file {path}/users",
        tls_settings(folder.path(), "broker")
    );
    let broker = Mosquitto::start(folder.path(), free_port(), &settings);
    let (ca, cert, key) = (
        format!("{path}/ca.pem"),
        format!("{path}/device.pem"),
        format!("{path}/device.key"),
    );
    let options = [
        "--cafile", &ca, "--cert", &cert, "--key", &key, "-u", "li", "-P", "hunter2",
    ];
    let reader = Reader::with(&broker, &["affectd/d/#"], &options);
    for version in ["3.1.1", "5"] {
        let files = format!("ca={ca}&cert={cert}&key={key}&password_file={path}/pw");
        let mut output = open(&format!(
            "mqtts://li@localhost:{}?device=d&version={version}&{files}",
            broker.port
        ));
        (1..=5).for_each(|n| output.write(&estimate(n)).unwrap());
        output.finish().unwrap();
        assert!(seqs_until_offline(&reader).into_iter().eq(1..=5));
    }
}

/// The first warning about the broker in the log of a short run, without the port.
pub fn warning_for(spec: &str, port: u16) -> String {
    let mut run = crate::affectd();
    let output = run
        .args(["run", "--input"])
        .arg(crate::demo())
        .args(["--output", spec])
        .env("AFFECTD_LOG", "debug,rustls=trace,rumqttc=trace,tract=warn")
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(!log.contains("hunter2"), "{log}");
    let warning = |line: &str| {
        // Minimal systems have no machine id, and a warning about that.
        let of_connection = line.contains("WARN") && !line.contains("/etc/machine-id");
        of_connection.then(|| line.find("mqtt://").or(line.find("mqtts://")))?
    };
    let line = log.lines().find_map(|line| warning(line).map(|at| &line[at..]));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    let text = line.rsplit_once(';').map_or(line, |(text, _)| text);
    text.replace(&port.to_string(), "PORT")
}

#[test]
fn connection_errors_name_the_correction_and_never_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::of(folder.path());
    certificates.sign("expired", "20200101", "20200201");
    certificates.sign("broker", "20200101", "20490101");
    let path = folder.path().display();
    fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
    fs::write(folder.path().join("users"), "").unwrap();

    let broker = Mosquitto::start(folder.path(), free_port(), &tls_settings(folder.path(), "expired"));
    let spec = format!("mqtts://localhost:{}?device=d&ca={path}/ca.pem", broker.port);
    insta::assert_snapshot!(warning_for(&spec, broker.port), @"mqtts://localhost:PORT/affectd/d: no secure connection: the broker's certificate has expired: renew it, and check this machine's clock");

    let good = format!("{}\nallow_anonymous true", tls_settings(folder.path(), "broker"));
    let broker = Mosquitto::start(folder.path(), free_port(), &good);
    certificates.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout o.key -out other.pem -days 2 -subj /CN=o");
    let spec = format!("mqtts://localhost:{}?device=d&ca={path}/other.pem", broker.port);
    insta::assert_snapshot!(warning_for(&spec, broker.port), @"mqtts://localhost:PORT/affectd/d: no secure connection: the broker's certificate is signed by an unknown authority: add ca=/path/to/ca.pem");

    let users = format!("allow_anonymous false\npassword_file {path}/users");
    let broker = Mosquitto::start(folder.path(), free_port(), &users);
    for version in ["3.1.1", "5"] {
        let spec = format!(
            "mqtt://li@127.0.0.1:{}?device=d&version={version}&password_file={path}/pw",
            broker.port
        );
        insta::allow_duplicates! {
            insta::assert_snapshot!(warning_for(&spec, broker.port), @"mqtt://li@127.0.0.1:PORT/affectd/d: authentication failed: check the user, the password and the user's rights on the broker");
        }
    }

    let port = free_port();
    insta::assert_snapshot!(warning_for(&format!("mqtt://127.0.0.1:{port}?device=d"), port), @"mqtt://127.0.0.1:PORT/affectd/d: no program accepts connections there: start the broker, or check host and port");
}
