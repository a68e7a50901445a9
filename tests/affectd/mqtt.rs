//! MQTT, against a real broker and against some that are none.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use affectd::fusion::Estimate;
use affectd::output::mqtt::{Address, Mqtt};
use affectd::output::{Output, Service};
use affectd::queue::WhenFull;
use serde_json::Value;

use crate::mosquitto::{Message, Mosquitto, Reader, free_port, wait};

fn service() -> Service {
    Service {
        period: Duration::from_millis(200),
        when_full: WhenFull::DropOldest,
        controls: crossbeam_channel::bounded(1).0,
        dropped: Arc::default(),
        lost: Arc::default(),
    }
}

fn open(spec: &str) -> Mqtt {
    Mqtt::open(&Address::parse(spec).unwrap(), &service()).unwrap()
}

fn estimate(seq: u64) -> Estimate {
    Estimate {
        seq,
        at: Duration::from_millis(200 * seq),
        affect: None,
        from_face: false,
        from_voice: false,
        face: None,
        voice: None,
    }
}

fn seq(message: &Message) -> Option<u64> {
    let json: Value = serde_json::from_str(&message.payload).ok()?;
    message.topic.ends_with("/estimate").then(|| json["seq"].as_u64())?
}

fn is(topic: &str, payload: &str) -> impl Fn(&Message) -> bool {
    move |message| message.topic == topic && message.payload == payload
}

/// The estimates among what a reader gets until affectd says `offline`.
fn seqs_until_offline(reader: &Reader) -> Vec<u64> {
    let messages = reader.until(|m| m.topic.ends_with("/status") && m.payload == "offline");
    messages.iter().filter_map(seq).collect()
}

#[test]
fn estimates_status_and_discovery_come_as_documented_in_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::open_to_all(folder.path());
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
        // What the one before left behind.
        messages.retain(|message| !message.retained);
        assert_eq!(messages[0].payload, "online");
        assert!(
            messages[1].topic.starts_with("homeassistant/device/affectd"),
            "{:?}",
            messages[1]
        );
        assert!(messages[1].payload.contains(&format!("affectd/{device}/estimate")));
        let seqs: Vec<u64> = messages.iter().filter_map(seq).collect();
        assert!(seqs.into_iter().eq(1..=200));
        // Whoever comes later finds that it has gone.
        let late = Reader::of(&broker, &[&status]).next();
        assert!(late.retained && late.payload == "offline", "{late:?}");
    }
}

#[test]
fn a_device_that_dies_is_offline_by_its_last_will() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::open_to_all(folder.path());
    let reader = Reader::of(&broker, &["affectd/d/status"]);
    // A relay that the device's connection goes through, and that can be cut.
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
fn home_assistant_is_told_again_when_it_says_that_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::open_to_all(folder.path());
    let reader = Reader::of(&broker, &["homeassistant/device/#"]);
    let _output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    let first = reader.next();
    // Whether it is subscribed yet cannot be seen from here: say it until it is heard.
    let again = wait(|| {
        broker.publish(&["-t", "homeassistant/status", "-m", "online"]);
        reader.already()
    });
    assert_eq!(first, again);
}

#[test]
fn a_broker_killed_three_times_costs_no_estimate_and_doubles_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::lasting(folder.path(), free_port());
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
        // Some are sent into the broker as it dies, some while it is dead.
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
    assert!(seqs.iter().copied().eq(1..=last), "{seqs:?}");
}

#[test]
fn what_no_broker_has_said_it_took_in_is_sent_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::open_to_all(folder.path());
    let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    wait(|| broker.log().contains("p2, c1, k10").then_some(()));
    // Frozen, the kernel still takes what is sent: it looks delivered and is not.
    broker.freeze();
    (1..=20).for_each(|n| output.write(&estimate(n)).unwrap());
    std::thread::sleep(Duration::from_millis(100));
    broker.kill();
    broker.restart();
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    let seqs = reader.until(|m| seq(m) == Some(20));
    assert!(seqs.iter().filter_map(seq).eq(1..=20), "{seqs:?}");
}

/// Listens like a broker and treats everybody alike; counts those that come.
fn bad_broker(treat: impl Fn(TcpStream) + Send + 'static) -> (u16, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (came, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, ended) = (Arc::clone(&came), Arc::clone(&closed));
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        // ExitSignal from outside, to free the port.
        while ended.load(Ordering::Relaxed) == 0 {
            match listener.accept() {
                Ok((stream, _)) => {
                    counter.fetch_add(1, Ordering::Relaxed);
                    stream.set_nonblocking(false).unwrap();
                    treat(stream);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        drop(listener);
        ended.store(2, Ordering::Relaxed);
    });
    (port, came, closed)
}

/// With a bad broker first, and then on the same port a good one, which must get all there is.
fn survives(treat: impl Fn(TcpStream) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let (port, came, ended) = bad_broker(treat);
    let mut output = open(&format!("mqtt://127.0.0.1:{port}?device=d"));
    (1..=10).for_each(|n| output.write(&estimate(n)).unwrap());
    wait(|| (came.load(Ordering::Relaxed) >= 2).then_some(()));
    ended.store(1, Ordering::Relaxed);
    wait(|| (ended.load(Ordering::Relaxed) == 2).then_some(()));
    let broker = Mosquitto::start(folder.path(), port, "allow_anonymous true");
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    output.write(&estimate(11)).unwrap();
    let messages = reader.until(|m| seq(m) == Some(11));
    assert!(messages.iter().filter_map(seq).eq(1..=11), "{messages:?}");
}

#[test]
fn a_broker_that_accepts_and_drops_is_outlived() {
    survives(drop);
}

#[test]
fn a_broker_that_says_yes_and_drops_is_outlived() {
    survives(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(&[0x20, 2, 0, 0]);
    });
}

#[test]
fn a_broker_that_speaks_garbage_is_outlived() {
    survives(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
}

#[test]
fn a_broker_that_hangs_does_not_hang_a_stop() {
    // Accepted by the kernel, and never spoken to.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut output = open(&format!("mqtt://127.0.0.1:{port}?device=d"));
    output.write(&estimate(1)).unwrap();
    let error = output.finish().unwrap_err().to_string();
    let error = error.replace(&port.to_string(), "PORT");
    insta::assert_snapshot!(error, @"mqtt://127.0.0.1:PORT/affectd/d: 1 estimates were not delivered: is the broker there? its last word is in the log");
}

#[test]
fn attempts_at_a_broker_that_drops_everybody_become_rare() {
    let (port, came, _) = bad_broker(drop);
    let _output = open(&format!("mqtt://127.0.0.1:{port}?device=d"));
    // Waits of at least 0.5, 1 and 2 s leave room for three, on a machine however fast; a fourth would be one too many.
    std::thread::sleep(Duration::from_millis(3400));
    let attempts = came.load(Ordering::Relaxed);
    assert!((1..=3).contains(&attempts), "{attempts}");
}

#[test]
fn a_spool_that_is_full_drops_the_oldest_and_says_so_in_the_health_record() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let service = service();
    let address = Address::parse(&format!("mqtt://127.0.0.1:{port}?device=d&spool=2s")).unwrap();
    let mut output = Mqtt::open(&address, &service).unwrap();
    (1..=50).for_each(|n| output.write(&estimate(n)).unwrap());
    assert_eq!(service.dropped.load(Ordering::Relaxed), 39);
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
    assert_eq!(health["mqtt"]["dropped"], 39);
}

/// An authority of the test's own, and what it has signed.
struct Certificates<'a> {
    folder: &'a Path,
}

impl Certificates<'_> {
    fn of(folder: &Path) -> Certificates<'_> {
        let certificates = Certificates { folder };
        certificates.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca");
        fs::write(folder.join("index.txt"), "").unwrap();
        fs::write(folder.join("san.cnf"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let ca = "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ncertificate=ca.pem\nprivate_key=ca.key\n\
                  default_md=sha256\npolicy=p\nunique_subject=no\nrand_serial=yes\n[p]\ncommonName=supplied\n";
        fs::write(folder.join("ca.cnf"), ca).unwrap();
        certificates
    }

    /// `name.pem` and `name.key`, valid between two days such as 20200101.
    fn sign(&self, name: &str, from: &str, to: &str) {
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -extfile san.cnf -startdate {from}000000Z -enddate {to}000000Z -in {name}.csr -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
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

fn tls_settings(folder: &Path, certificate: &str) -> String {
    let folder = folder.display();
    format!("cafile {folder}/ca.pem\ncertfile {folder}/{certificate}.pem\nkeyfile {folder}/{certificate}.key")
}

#[test]
fn with_tls_a_client_certificate_and_a_password_it_gets_in() {
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

/// The log of a short run against `spec`, up to the first line about the broker, without the port.
fn complaint(spec: &str, port: u16) -> String {
    let mut run = crate::affectd();
    let output = run
        .args(["run", "--input"])
        .arg(crate::demo())
        .args(["--output", spec])
        .env("AFFECTD_LOG", "debug,rustls=trace,mqtt_proto=trace,tract=warn")
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(!log.contains("hunter2"), "{log}");
    let warning = |line: &str| {
        line.contains("WARN")
            .then(|| line.find("mqtt://").or(line.find("mqtts://")))?
    };
    let line = log.lines().find_map(|line| warning(line).map(|at| &line[at..]));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    let text = line.rsplit_once(';').map_or(line, |(text, _)| text);
    text.replace(&port.to_string(), "PORT")
}

#[test]
fn what_keeps_it_out_is_said_with_the_mend_and_without_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::of(folder.path());
    certificates.sign("expired", "20200101", "20200201");
    certificates.sign("broker", "20200101", "20490101");
    let path = folder.path().display();
    fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
    fs::write(folder.path().join("users"), "").unwrap();

    let broker = Mosquitto::start(folder.path(), free_port(), &tls_settings(folder.path(), "expired"));
    let spec = format!("mqtts://localhost:{}?device=d&ca={path}/ca.pem", broker.port);
    insta::assert_snapshot!(complaint(&spec, broker.port), @"mqtts://localhost:PORT/affectd/d: no secure connection: the broker's certificate has expired: renew it, and check this machine's clock");

    let good = format!("{}\nallow_anonymous true", tls_settings(folder.path(), "broker"));
    let broker = Mosquitto::start(folder.path(), free_port(), &good);
    certificates.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout o.key -out other.pem -days 2 -subj /CN=o");
    let spec = format!("mqtts://localhost:{}?device=d&ca={path}/other.pem", broker.port);
    insta::assert_snapshot!(complaint(&spec, broker.port), @"mqtts://localhost:PORT/affectd/d: no secure connection: the broker's certificate is signed by nobody trusted here: give ca=/path/to/ca.pem");

    let users = format!("allow_anonymous false\npassword_file {path}/users");
    let broker = Mosquitto::start(folder.path(), free_port(), &users);
    for version in ["3.1.1", "5"] {
        let spec = format!(
            "mqtt://li@127.0.0.1:{}?device=d&version={version}&password_file={path}/pw",
            broker.port
        );
        insta::allow_duplicates! {
            insta::assert_snapshot!(complaint(&spec, broker.port), @"mqtt://li@127.0.0.1:PORT/affectd/d: the broker does not let us in: check the user, its password and its rights there");
        }
    }

    let port = free_port();
    insta::assert_snapshot!(complaint(&format!("mqtt://127.0.0.1:{port}?device=d"), port), @"mqtt://127.0.0.1:PORT/affectd/d: nothing accepts connections there: start the broker, or check host and port");
}
