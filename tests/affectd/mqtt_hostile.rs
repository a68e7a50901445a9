//! MQTT with brokers that misbehave or deny something. Those that misbehave are small servers of these tests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use affectd::health::Health;
use affectd::output::Output;
use serde_json::Value;

use crate::affectd;
use crate::mosquitto::{Mosquitto, Reader, free_port, wait};
use crate::mqtt::{BadBroker, assert_survives, estimate, is, open, seq, warning_for};

/// The packets that accept a client, in MQTT 3.1.1 and MQTT 5.
const ACCEPTED: [(&str, &[u8]); 2] = [("3.1.1", &[0x20, 2, 0, 0]), ("5", &[0x20, 3, 0, 0, 0])];
/// How long a hostile broker sends.
const FLOOD: Duration = Duration::from_secs(3);
/// affectd must take less than this in that time. The buffers of the kernel hold a few megabytes. A client without limits takes
/// more than a gigabyte.
const MAX_TAKEN: usize = 64 << 20;

/// A length as MQTT encodes it.
fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return bytes;
        }
    }
}

/// A publish packet of `version` with a payload of `bytes`.
fn publish(version: &str, topic: &str, payload: &[u8]) -> Vec<u8> {
    match version {
        "5" => publish_with_properties(topic, &[], payload),
        _ => packet(topic, payload),
    }
}

/// A publish packet of MQTT 5.
fn publish_with_properties(topic: &str, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(
        topic,
        &[length(properties.len()).as_slice(), properties, payload].concat(),
    )
}

fn packet(topic: &str, rest: &[u8]) -> Vec<u8> {
    let topic_length = [0, u8::try_from(topic.len()).unwrap()];
    let body = [topic_length.as_slice(), topic.as_bytes(), rest].concat();
    [vec![0x30], length(body.len()), body].concat()
}

/// A server that accepts a client with `greeting` and then sends `packets` as fast as it can. Counts the bytes it sent.
fn flooder(greeting: Vec<u8>, packets: Vec<u8>, sent: Arc<AtomicUsize>) -> BadBroker {
    BadBroker::start(move |mut stream| {
        let (greeting, packets, sent) = (greeting.clone(), packets.clone(), Arc::clone(&sent));
        std::thread::spawn(move || {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&greeting);
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let began = Instant::now();
            while began.elapsed() < FLOOD {
                match stream.write(&packets) {
                    Ok(n) => sent.fetch_add(n, Ordering::Relaxed),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                    Err(_) => break,
                };
            }
        });
    })
}

/// What hostile brokers send, in both versions.
fn floods() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let mut floods = Vec::new();
    for (version, accepted) in ACCEPTED {
        let small = publish(version, "homeassistant/status", b"offline").repeat(1000);
        floods.push((version, accepted.to_vec(), small.clone()));
        floods.push((version, accepted.to_vec(), [0xd0, 0].repeat(1000)));
        floods.push((version, accepted.to_vec(), publish(version, "a", &[0; 1_000_000])));
        floods.push((version, Vec::new(), small));
        // The length of the packet is that of the largest packet, and the rest never comes.
        floods.push((version, accepted.to_vec(), vec![0x30, 0xff, 0xff, 0xff, 0x7f]));
    }
    let [_, (version, accepted)] = ACCEPTED;
    let properties = b"\x26\0\x01a\0\x01b".repeat(8000);
    floods.push((
        version,
        accepted.to_vec(),
        publish_with_properties("a", &properties, b""),
    ));
    floods
}

#[test]
fn publisher_takes_little_from_a_broker_that_sends_fast() {
    std::thread::scope(|scope| {
        for (version, greeting, packets) in floods() {
            scope.spawn(move || {
                let sent = Arc::<AtomicUsize>::default();
                let broker = flooder(greeting, packets.clone(), Arc::clone(&sent));
                let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d&version={version}", broker.port));
                output.write(&estimate(1)).unwrap();
                std::thread::sleep(FLOOD);
                let taken = sent.load(Ordering::Relaxed);
                assert!(taken > 0 && taken < MAX_TAKEN, "{taken} bytes of {:?}", &packets[..2]);
            });
        }
    });
}

#[test]
fn monitor_has_bounded_memory_and_log_with_a_broker_that_sends_fast() {
    for (version, greeting, packets) in floods() {
        let broker = flooder(greeting, packets.clone(), Arc::default());
        let spec = format!("mqtt://127.0.0.1:{}?version={version}", broker.port);
        let mut monitor = affectd()
            .args(["monitor", &spec])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait(|| (broker.connections() > 0).then_some(()));
        std::thread::sleep(Duration::from_secs(1));
        let status = std::fs::read_to_string(format!("/proc/{}/status", monitor.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        monitor.kill().unwrap();
        let output = monitor.wait_with_output().unwrap();
        assert!(kilobytes < 64 << 10, "{kilobytes} kB after {:?}", &packets[..2]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.lines().count() < 10, "{log}");
    }
}

#[test]
fn random_bytes_lose_no_estimate() {
    let seed = AtomicUsize::new(1);
    assert_survives(move |mut stream| {
        let mut state = seed.fetch_add(1, Ordering::Relaxed) as u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4096)
        .collect();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(&[0x20, 3, 0, 0, 0]);
        let _ = stream.write_all(&bytes);
    });
}

#[test]
fn many_starts_of_home_assistant_lead_to_few_announcements() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["homeassistant/device/#", "affectd/d/status"]);
    let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    reader.until(|m| m.topic.starts_with("homeassistant/device/"));
    let mut births = Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-t",
            "homeassistant/status",
            "-l",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    births
        .stdin
        .take()
        .unwrap()
        .write_all(&b"online\n".repeat(10_000))
        .unwrap();
    births.wait().unwrap();
    // The second announcement comes after five seconds.
    reader.until(|m| m.topic.starts_with("homeassistant/device/"));
    output.finish().unwrap();
    let rest = reader.until(is("affectd/d/status", "offline"));
    let announcements = rest.iter().filter(|m| m.topic.starts_with("homeassistant/device/"));
    assert!(announcements.count() <= 3, "{rest:?}");
}

#[test]
fn a_denied_subscription_is_logged_once() {
    // Answers each subscription with ten thousand refusals.
    let broker = BadBroker::start(|mut stream| {
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(&[0x20, 2, 0, 0]);
            while let Ok(n) = stream.read(&mut buffer)
                && n > 0
            {
                if let Some(at) = buffer[..n].iter().position(|byte| *byte == 0x82) {
                    let refusal = [0x90, 3, buffer[at + 2], buffer[at + 3], 0x80];
                    let _ = stream.write_all(&refusal.repeat(10_000));
                }
            }
        });
    });
    let log = log_of_a_run(&format!("mqtt://127.0.0.1:{}?device=d&version=3.1.1", broker.port), &[]);
    let refusals = log.lines().filter(|line| line.contains("does not allow subscribing"));
    assert!(refusals.count() <= 1, "{log}");
    assert!(log.lines().count() < 40, "{log}");
}

/// The log of a replay of the demo clip, which ends soon.
fn log_of_a_run(spec: &str, options: &[&str]) -> String {
    let output = affectd()
        .args(["run", "--input"])
        .arg(crate::demo())
        .args(options)
        .args(["--output", spec])
        .stdout(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn messages_that_the_access_list_denies_are_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("acl");
    std::fs::write(
        &list,
        "topic write affectd/d/health\ntopic write affectd/d/status\ntopic write affectd/d/board\ntopic readwrite test/ready\ntopic read #\n",
    )
    .unwrap();
    let settings = format!("allow_anonymous true\nacl_file {}", list.display());
    let broker = Mosquitto::start(folder.path(), free_port(), &settings);
    let spec = format!("mqtt://127.0.0.1:{}?device=d&discovery=off", broker.port);
    let reader = Reader::with(&broker, &["affectd/d/#"], &[]);
    let mut output = open(&spec);
    (1..=20).for_each(|n| output.write(&estimate(n)).unwrap());
    // The estimates are answered in order before the second report.
    let denied = wait(|| {
        output.health(&Health::default().report(Duration::ZERO)).unwrap();
        let message = reader.until(|m| m.topic.ends_with("/health")).pop().unwrap();
        let health: Value = serde_json::from_str(&message.payload).unwrap();
        let denied = health["mqtt"]["messages_denied"].as_u64().unwrap();
        (denied >= 20).then_some(denied)
    });
    assert!(denied < 30, "{denied}");
    output.finish().unwrap();
    let log = log_of_a_run(&spec, &[]);
    let complaints: Vec<_> = log
        .lines()
        .filter(|line| line.contains("cannot be published"))
        .collect();
    assert_eq!(complaints.len(), 1, "{log}");
    assert!(
        complaints[0].contains("estimates cannot be published: not authorized: "),
        "{log}"
    );
}

#[test]
fn an_announcement_that_is_too_large_for_the_broker_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path(), free_port(), "allow_anonymous true\nmax_packet_size 1500");
    let reader = Reader::of(&broker, &["affectd/d/#", "homeassistant/device/#"]);
    let spec = format!("mqtt://127.0.0.1:{}?device=d", broker.port);
    let mut output = open(&spec);
    (1..=5).for_each(|n| output.write(&estimate(n)).unwrap());
    output.finish().unwrap();
    let messages = reader.until(is("affectd/d/status", "offline"));
    assert!(messages.iter().filter_map(seq).eq(1..=5), "{messages:?}");
    assert!(
        messages.iter().all(|m| m.topic.starts_with("affectd/d/")),
        "{messages:?}"
    );
    // A replay does not announce itself.
    let log = log_of_a_run(&spec, &["--realtime"]);
    assert!(
        log.contains("the announcement to Home Assistant cannot be published: packets of 8192 bytes are needed, and the broker accepts 1500"),
        "{log}"
    );
}

#[test]
fn messages_that_are_too_large_for_the_broker_are_named_a_few_times() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path(), free_port(), "allow_anonymous true\nmax_packet_size 100");
    let spec = format!("mqtt://127.0.0.1:{}?device=d&discovery=off&version=5", broker.port);
    // Its 50 estimates have many sizes, which need packets of 256 or 512 bytes.
    let log = log_of_a_run(&spec, &[]);
    let complaints = log
        .lines()
        .filter(|line| line.contains("estimates cannot be published"));
    assert!((1..=2).contains(&complaints.count()), "{log}");
}

#[test]
fn a_broker_that_allows_one_message_at_a_time_gets_all_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(
        folder.path(),
        free_port(),
        "allow_anonymous true\nmax_inflight_messages 1",
    );
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    (1..=200).for_each(|n| output.write(&estimate(n)).unwrap());
    output.finish().unwrap();
    let messages = reader.until(is("affectd/d/status", "offline"));
    assert!(messages.iter().filter_map(seq).eq(1..=200), "{messages:?}");
}

#[test]
fn the_keep_alive_of_the_server_is_used() {
    // Accepts with a keep-alive of one second, and waits for pings.
    let pings = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&pings);
    let broker = BadBroker::start(move |mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(&[0x20, 6, 0, 0, 3, 0x13, 0, 1]);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        while let Ok(n) = stream.read(&mut buffer)
            && n > 0
        {
            if buffer[..n].ends_with(&[0xc0, 0]) {
                counter.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    });
    let _output = open(&format!("mqtt://127.0.0.1:{}?device=d&version=5", broker.port));
    wait(|| (pings.load(Ordering::Relaxed) > 0).then_some(()));
}

#[test]
fn an_old_broker_is_used_with_mqtt_3() {
    // Knows MQTT 3.1.1 only: it rejects version 5 in its own format, and then waits for version 4, which is 3.1.1.
    let accepted = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&accepted);
    let broker = BadBroker::start(move |mut stream: TcpStream| {
        let mut buffer = [0; 1024];
        let Ok(n) = stream.read(&mut buffer) else { return };
        let at = buffer[..n].windows(4).position(|part| part == b"MQTT").unwrap();
        if buffer[at + 4] == 5 {
            let _ = stream.write_all(&[0x20, 2, 0, 1]);
        } else {
            let _ = stream.write_all(&[0x20, 2, 0, 0]);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let _output = open(&format!("mqtt://127.0.0.1:{}?device=d", broker.port));
    wait(|| (accepted.load(Ordering::Relaxed) > 0).then_some(()));
}

#[test]
fn a_broker_that_ends_the_connection_at_the_announcement_gets_the_estimates_without_it() {
    let folder = tempfile::tempdir().unwrap();
    // mosquitto answers a larger message with a PUBACK that MQTT 5 does not have.
    let settings = "allow_anonymous true\nmessage_size_limit 2048";
    let broker = Mosquitto::start(folder.path(), free_port(), settings);
    let reader = Reader::of(&broker, &["affectd/d/estimate"]);
    let mut output = open(&format!("mqtt://127.0.0.1:{}?device=d&version=5", broker.port));
    let mut sent = 0;
    wait(|| {
        sent += 1;
        output.write(&estimate(sent)).unwrap();
        reader
            .try_next()
            .and_then(|message| seq(&message))
            .filter(|seq| *seq > 400)
    });
    // Three connections end with the announcement. The fourth is without it and stays.
    let log = broker.log();
    let connections = log.lines().filter(|line| line.contains("as affectd")).count();
    assert!(connections <= 4, "{log}");
}

#[test]
fn the_announcement_is_not_blamed_for_what_the_broker_sends() {
    let packets = publish("5", "a", &[0; 1_000_000]);
    let broker = flooder(ACCEPTED[1].1.to_vec(), packets, Arc::default());
    // The clip is long enough for four connections.
    let log = log_of_a_run(
        &format!("mqtt://127.0.0.1:{}?device=d&version=5", broker.port),
        &["--realtime"],
    );
    assert!(
        log.contains("the broker sent a larger packet than affectd accepts"),
        "{log}"
    );
    assert!(!log.contains("announcement"), "{log}");
}

#[test]
fn reasons_of_the_broker_are_said_with_a_remedy() {
    let error = |after_connect: &'static [u8]| {
        let broker = BadBroker::start(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(after_connect);
            let _ = stream.read(&mut [0; 1024]);
        });
        let spec = format!("mqtt://127.0.0.1:{}?device=d&version=5", broker.port);
        warning_for(&spec, broker.port).replace("mqtt://127.0.0.1:PORT/affectd/d: ", "")
    };
    let taken_over = error(&[0x20, 3, 0, 0, 0, 0xe0, 2, 0x8e, 0]);
    assert!(
        taken_over.starts_with("another client with the identifier affectd"),
        "{taken_over}"
    );
    assert!(taken_over.ends_with("give each its own device=NAME"), "{taken_over}");
    insta::assert_snapshot!(error(&[0x20, 3, 0, 0, 0, 0xe0, 2, 0x97, 0]), @"the broker ended the connection (quota exceeded: lower rate_hz, or raise the limit on the broker)");
    insta::assert_snapshot!(error(&[0x20, 3, 0, 0, 0, 0xe0, 2, 0x8b, 0]), @"the broker ended the connection (server shutting down)");
    insta::assert_snapshot!(error(&[0x20, 3, 0, 0x89, 0]), @"the broker rejected the connection (server busy: it should accept later)");
    insta::assert_snapshot!(error(&[0x20, 3, 0, 0x8a, 0]), @"the broker rejected the connection (this client is banned: ask the broker's administrator)");
}
