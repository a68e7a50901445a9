//! What home automation uses of MQTT: the state, the announcement to Home Assistant, commands and `forget`, with a real broker.
//! tests/ha has a real Home Assistant.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use affectd::control::Control;
use affectd::fusion::{Affect, Estimate};
use affectd::health::LiveHealth;
use affectd::output::mqtt::{Address, Mqtt};
use affectd::output::{HostIdentity, Output, OutputContext};
use affectd::queue::WhenFull;
use crossbeam_channel::{Receiver, bounded};
use serde_json::{Value, json};

use crate::json_schema::Schema;
use crate::mosquitto::{Message, Mosquitto, Reader, free_port, wait};
use crate::{affectd, demo};

const PERIOD: Duration = Duration::from_millis(200);

/// An output of a board with a machine identifier of its own.
struct Board {
    output: Mqtt,
    controls: Receiver<Control>,
    written: u64,
}

impl Board {
    fn start(broker: &Mosquitto, device: &str, options: &str, machine: &str) -> Board {
        Board::at(
            broker.port,
            &format!("device={device}{options}"),
            machine,
            WhenFull::DropOldest,
        )
    }

    fn at(port: u16, options: &str, machine: &str, when_full: WhenFull) -> Board {
        let host = Arc::new(HostIdentity {
            machine_id: Some(machine.into()),
            ..HostIdentity::default()
        });
        let (sender, controls) = bounded(1);
        let context = OutputContext {
            period: PERIOD,
            when_full,
            controls: sender,
            dropped: Arc::default(),
            lost: Arc::default(),
            health: LiveHealth::default(),
            pause: Arc::default(),
            host: Arc::clone(&host),
        };
        let address = Address::parse(&format!("mqtt://127.0.0.1:{port}?{options}"), &host).unwrap();
        Board {
            output: Mqtt::open(&address, &context).unwrap(),
            controls,
            written: 0,
        }
    }

    fn write(&mut self) {
        self.written += 1;
        let estimate = Estimate {
            seq: self.written,
            at: PERIOD * u32::try_from(self.written).unwrap(),
            affect: Some(Affect {
                valence: 0.1,
                arousal: 0.2,
                confidence: 0.3,
            }),
            from_face: false,
            from_voice: false,
            face: None,
            voice: None,
            paused: false,
        };
        self.output.write(&estimate).unwrap();
    }

    /// Writes estimates in real time.
    fn run(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.write();
            std::thread::sleep(PERIOD);
        }
    }

    /// Writes estimates and answers commands until `done` returns something.
    fn run_until<T>(&mut self, mut done: impl FnMut() -> Option<T>) -> T {
        wait(|| {
            self.write();
            done()
        })
    }

    /// Serves all commands that are waiting.
    fn serve_all(&mut self) {
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(120));
            self.output.poll().unwrap();
        }
    }

    /// Serves commands until `answer` arrives on the topic of `reader`. Answers to `ping` may come before.
    fn serve_until(&mut self, reader: &Reader, answer: &Value) {
        wait(|| {
            self.output.poll().unwrap();
            if let Ok(Control::StartBaseline { started }) = self.controls.try_recv() {
                started.send(()).unwrap();
            }
            let message = reader.try_next()?;
            let body: Value = serde_json::from_str(&message.payload).unwrap();
            let is_pong = body == json!({ "ok": "pong" });
            assert!(is_pong || body == *answer, "{body}");
            (!is_pong).then_some(())
        });
    }
}

/// The retained topics that a later reader of `topics` finds.
fn retained(broker: &Mosquitto, topics: &str) -> Vec<String> {
    let messages = Reader::of(broker, &[topics]).retained();
    let mut topics: Vec<String> = messages.into_iter().map(|message| message.topic).collect();
    topics.sort();
    topics
}

/// The names of the devices with a retained announcement.
fn announced(broker: &Mosquitto) -> Vec<String> {
    let names = retained(broker, "homeassistant/device/#");
    names
        .iter()
        .map(|topic| topic.split(['_', '/']).nth(3).unwrap().to_owned())
        .collect()
}

/// The names in the index of a board.
fn listed(broker: &Mosquitto) -> Vec<String> {
    let topics = retained(broker, "affectd/boards/#");
    topics
        .iter()
        .map(|topic| topic.rsplit('/').next().unwrap().to_owned())
        .collect()
}

fn forget(broker: &Mosquitto, device: &str) -> Command {
    let mut command = affectd();
    let output = format!("mqtt://127.0.0.1:{}", broker.port);
    command.args(["forget", device, "--output", &output]);
    command
}

fn is_online(device: &str) -> impl Fn(&Message) -> bool {
    let topic = format!("affectd/{device}/status");
    move |message| message.topic == topic && message.payload == "online"
}

#[test]
fn the_state_is_published_at_most_once_a_second_and_matches_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    let mut board = Board::start(&broker, "d", "", "m");
    reader.until(is_online("d"));
    board.run(Duration::from_millis(2500));
    board.output.finish().unwrap();
    let messages = reader.until(|m| m.topic == "affectd/d/status" && m.payload == "offline");
    let states: Vec<&Message> = messages.iter().filter(|m| m.topic == "affectd/d/state").collect();
    assert!((1..=3).contains(&states.len()), "{messages:?}");
    for state in states {
        let value: Value = serde_json::from_str(&state.payload).unwrap();
        assert_eq!(Schema::read("state").validate(&value), Ok(()), "{value}");
        assert!(!state.retained);
    }
}

#[test]
fn states_of_an_outage_are_dropped_and_estimates_are_sent_later() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut board = Board::at(port, "device=d", "m", WhenFull::DropOldest);
    board.run(Duration::from_millis(1500));
    let broker = Mosquitto::start(folder.path(), port, "allow_anonymous true");
    let reader = Reader::of(&broker, &["affectd/d/#"]);
    let last = board.written;
    let is_last = |m: &Message| m.topic.ends_with("/estimate") && m.payload.contains(&format!("\"seq\":{last},"));
    let messages = reader.until(is_last);
    assert!(messages.iter().all(|m| !m.topic.ends_with("/state")), "{messages:?}");
}

#[test]
fn a_rename_deletes_what_the_old_name_left() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/#"]);
    let mut kitchen = Board::start(&broker, "kitchen", "", "m");
    reader.until(is_online("kitchen"));
    wait(|| (listed(&broker) == ["kitchen"]).then_some(()));
    kitchen.output.finish().unwrap();
    let _lounge = Board::start(&broker, "lounge", "", "m");
    wait(|| (announced(&broker) == ["lounge"]).then_some(()));
    wait(|| retained(&broker, "affectd/kitchen/#").is_empty().then_some(()));
}

#[test]
fn two_outputs_of_one_board_keep_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path(), free_port(), "allow_anonymous true\nlog_type all");
    let reader = Reader::of(&broker, &["affectd/#"]);
    let mut left = Board::start(&broker, "left", "", "m");
    reader.until(is_online("left"));
    wait(|| (listed(&broker) == ["left"]).then_some(()));
    let _right = Board::start(&broker, "right", "", "m");
    // It has asked whether the left one runs, and has decided.
    left.run_until(|| broker.log().contains("Received UNSUBSCRIBE").then_some(()));
    assert_eq!(announced(&broker), ["left", "right"]);
    assert_eq!(listed(&broker), ["left", "right"]);
}

#[test]
fn a_rename_deletes_the_old_name_even_if_the_broker_restores_it_as_online() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let mut kitchen = Board::start(&broker, "kitchen", "", "m");
    wait(|| (listed(&broker) == ["kitchen"]).then_some(()));
    kitchen.output.finish().unwrap();
    broker.publish(&["-t", "affectd/kitchen/status", "-r", "-m", "online"]);
    let _lounge = Board::start(&broker, "lounge", "", "m");
    wait(|| (announced(&broker) == ["lounge"]).then_some(()));
    wait(|| retained(&broker, "affectd/kitchen/#").is_empty().then_some(()));
}

#[test]
fn discovery_off_deletes_the_announcement() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let mut board = Board::start(&broker, "hall", "", "m");
    wait(|| (listed(&broker) == ["hall"]).then_some(()));
    board.output.finish().unwrap();
    let _board = Board::start(&broker, "hall", "&discovery=off", "m");
    wait(|| announced(&broker).is_empty().then_some(()));
}

#[test]
fn two_boards_with_one_name_publish_under_two_names() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/#"]);
    let _first = Board::start(&broker, "hall", "", "one");
    reader.until(is_online("hall"));
    let _second = Board::start(&broker, "hall", "", "two");
    let names = wait(|| {
        let names = announced(&broker);
        (names.len() == 2 && names.iter().any(|name| name != "hall") && names.contains(&"hall".into())).then_some(names)
    });
    let moved = names.iter().find(|name| *name != "hall").unwrap();
    assert!(moved.starts_with("hall-") && moved.len() == 9, "{moved}");
    wait(|| retained(&broker, &format!("affectd/{moved}/status")).pop());
}

#[test]
fn a_replay_announces_no_device() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let output = format!("mqtt://127.0.0.1:{}?device=d", broker.port);
    let status = affectd()
        .args(["run", "--input"])
        .arg(demo())
        .args(["--output", &output])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(announced(&broker), Vec::<String>::new());
}

#[test]
fn commands_are_answered_in_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    for version in ["3.1.1", "5"] {
        let device = format!("v{}", &version[..1]);
        let reader = Reader::of(&broker, &[&format!("affectd/{device}/status")]);
        let answers = Reader::of(&broker, &[&format!("affectd/{device}/response")]);
        let mut board = Board::start(&broker, &device, &format!("&version={version}"), "m");
        reader.until(is_online(&device));
        let command = format!("affectd/{device}/command");
        // The test cannot see when affectd has subscribed, so it sends the first command until there is an answer.
        wait(|| {
            broker.publish(&["-t", &command, "-m", "ping"]);
            board.output.poll().unwrap();
            answers.try_next()
        });
        board.serve_all();
        for (text, answer) in [
            ("baseline", json!({ "ok": "baseline" })),
            ("rate 2", json!({ "ok": { "rate": 2.0 } })),
            (
                "rate fast",
                json!({ "error": "rate fast: must be a number from 0.1 to 100 estimates a second" }),
            ),
        ] {
            broker.publish(&["-t", &command, "-m", text]);
            board.serve_until(&answers, &answer);
        }
        broker.publish(&["-t", &command, "-m", "health"]);
        let health = board.run_until(|| answers.try_next());
        let health: Value = serde_json::from_str(&health.payload).unwrap();
        assert_eq!(Schema::read("health").validate(&health["ok"]), Ok(()), "{health}");
    }
}

#[test]
fn an_answer_goes_to_the_response_topic_with_the_correlation_data() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/d/status"]);
    let mut board = Board::start(&broker, "d", "&version=5", "m");
    reader.until(is_online("d"));
    let subscriber = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-V", "5"])
        .args(["-t", "app/answers", "-F", "%D %p", "-C", "1"])
        .stdout(Stdio::piped())
        .spawn();
    let mut subscriber = subscriber.unwrap();
    wait(|| {
        let properties = [
            "-D",
            "publish",
            "response-topic",
            "app/answers",
            "-D",
            "publish",
            "correlation-data",
            "id7",
        ];
        let command = ["-V", "5", "-t", "affectd/d/command", "-m", "ping"];
        broker.publish(&[&command[..], &properties].concat());
        std::thread::sleep(Duration::from_millis(150));
        board.output.poll().unwrap();
        subscriber.try_wait().unwrap()
    });
    let output = subscriber.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        "id7 {\"ok\":\"pong\"}"
    );
}

#[test]
fn a_flood_of_commands_gets_few_answers() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/d/status", "affectd/d/response"]);
    let mut board = Board::start(&broker, "d", "", "m");
    reader.until(is_online("d"));
    let lines = "ping\n".repeat(1000);
    let mut flood = Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-t",
            "affectd/d/command",
            "-l",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut flood.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(flood.wait().unwrap().success());
    board.run(Duration::from_secs(2));
    let answers = std::iter::from_fn(|| reader.try_next()).count();
    assert!((1..=20).contains(&answers), "{answers}");
}

#[test]
fn forget_deletes_an_offline_device_and_leaves_an_online_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/attic/status"]);
    let mut board = Board::start(&broker, "attic", "", "m");
    board
        .output
        .health(&affectd::health::Health::default().report(Duration::ZERO))
        .unwrap();
    reader.until(is_online("attic"));
    wait(|| (listed(&broker) == ["attic"]).then_some(()));
    wait(|| (retained(&broker, "affectd/attic/#").len() == 3).then_some(()));
    let port = broker.port.to_string();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&port, "PORT");
    let mut refused = forget(&broker, "attic").stderr(Stdio::piped()).spawn().unwrap();
    board.run_until(|| refused.try_wait().unwrap());
    let refused = refused.wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    let error = text(&refused.stderr);
    assert!(error.contains("affectd/attic is online: stop it first"), "{error}");
    assert_eq!(retained(&broker, "affectd/attic/#").len(), 3);

    board.output.finish().unwrap();
    // A broker that was killed restores an old status.
    broker.publish(&["-t", "affectd/attic/status", "-r", "-m", "online"]);
    let done = forget(&broker, "attic").output().unwrap();
    let lines = text(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    for topic in [
        "affectd/attic/status",
        "affectd/attic/health",
        "affectd/attic/board",
        "_attic/config",
    ] {
        assert!(lines.contains(topic), "{lines}");
    }
    assert_eq!(retained(&broker, "affectd/#"), Vec::<String>::new());
    assert_eq!(announced(&broker), Vec::<String>::new());
    let nothing = forget(&broker, "attic").output().unwrap();
    assert!(
        text(&nothing.stdout).contains("attic has left nothing"),
        "{}",
        text(&nothing.stdout)
    );

    let without_broker = affectd().args(["forget", "attic"]).output().unwrap();
    assert_eq!(without_broker.status.code(), Some(2));
}

#[test]
fn forget_deletes_no_topics_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let keep = |topic: &str, payload: &str| broker.publish(&["-t", topic, "-r", "-m", payload]);
    // Anybody may write an entry.
    let index = "affectd/boards/affectd0123456789abcdef/evil";
    let light = "homeassistant/light/x/config";
    keep(light, "{}");
    keep(
        index,
        &format!(r#"{{"status":"affectd/evil/status","discovery":"{light}"}}"#),
    );
    assert!(forget(&broker, "evil").status().unwrap().success());
    assert_eq!(retained(&broker, "homeassistant/#"), [light]);
    assert_eq!(retained(&broker, "affectd/#"), Vec::<String>::new());

    // The topics of another board.
    keep("affectd/hall/status", "offline");
    keep("affectd/hall/board", "affectd1111111111111111");
    keep(index, r#"{"status":"affectd/hall/status","discovery":null}"#);
    assert!(forget(&broker, "evil").status().unwrap().success());
    assert_eq!(
        retained(&broker, "affectd/#"),
        ["affectd/hall/board", "affectd/hall/status"]
    );
}

#[test]
fn forget_deletes_nothing_if_it_cannot_hear_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let rights = folder.path().join("rights");
    let settings = format!("allow_anonymous true\nacl_file {}", rights.display());
    std::fs::write(
        &rights,
        "topic readwrite affectd/boards/#\ntopic read affectd/attic/status\ntopic write affectd/attic/#\ntopic readwrite test/#\n",
    )
    .unwrap();
    let broker = Mosquitto::start(folder.path(), free_port(), &settings);
    broker.publish(&["-t", "affectd/attic/status", "-r", "-m", "online"]);
    let refused = forget(&broker, "attic").output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("affectd/attic may be online"), "{error}");
    assert_eq!(retained(&broker, "affectd/attic/status"), ["affectd/attic/status"]);
}
