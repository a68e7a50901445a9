//! `affectd-sim`: measures many devices without cameras, which publish through the real output to a real broker.
//!
//! ```sh
//! cargo run --release --example affectd-sim -- fleet 1000 60    # devices, seconds: CPU and loss
//! cargo run --release --example affectd-sim -- fleet 1000 60 1883 # the same, with a broker that runs on this port
//! cargo run --release --example affectd-sim -- bridged 1000 60  # the same, through the bridge of a second broker
//! cargo run --release --example affectd-sim -- outage 600 3     # seconds, kills of the broker, and one black hole: loss and order
//! cargo build --release                                         # needed by the next command
//! cargo run --release --example affectd-sim -- punctual 600 3   # seconds, kills of the broker: delay of a serial line
//! ```

#[path = "../support/mosquitto.rs"]
#[expect(dead_code, reason = "shared with the tests, which use the rest")]
mod mosquitto;
#[path = "../support/pty.rs"]
#[expect(dead_code, reason = "shared with the tests, which use the rest")]
mod pty;
mod punctual;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use affectd::fusion::{Affect, Estimate};
use affectd::health::LiveHealth;
use affectd::output::mqtt::{Address, Mqtt};
use affectd::output::{HostIdentity, Output, OutputContext};
use affectd::queue::WhenFull;
use serde_json::Value;

use mosquitto::{Message, Mosquitto, Reader, free_port};

const PERIOD_MS: u64 = 200;
const PERIOD: Duration = Duration::from_millis(PERIOD_MS);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| {
        arguments
            .get(i)
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|n| *n > 0)
    };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("AFFECTD_LOG", "warn")).init();
    match (arguments.first().map(String::as_str), number(1), number(2)) {
        (Some("fleet"), Some(devices), Some(seconds)) => {
            let devices = usize::try_from(devices).expect("the devices fit into memory");
            match arguments.get(3).map(|port| port.parse()) {
                None => fleet(devices, seconds, Brokers::One),
                Some(Ok(port)) => fleet(devices, seconds, Brokers::Running { port }),
                Some(Err(_)) => usage(),
            }
        }
        (Some("bridged"), Some(devices), Some(seconds)) => {
            let devices = usize::try_from(devices).expect("the devices fit into memory");
            fleet(devices, seconds, Brokers::Bridged)
        }
        (Some("outage"), Some(seconds), Some(kills)) => outage(seconds, kills),
        (Some("punctual"), Some(seconds), Some(kills)) => punctual::punctual(seconds, kills),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: affectd-sim fleet DEVICES SECONDS [PORT] | affectd-sim bridged DEVICES SECONDS | affectd-sim outage SECONDS KILLS | affectd-sim punctual SECONDS KILLS"
    );
    ExitCode::from(2)
}

/// The time of estimate number `seq`.
fn time_of(seq: u64) -> Duration {
    Duration::from_millis(PERIOD_MS * seq)
}

/// Estimate number `seq` of a device. Valence and arousal move on a circle.
fn estimate(seq: u64) -> Estimate {
    let angle = seq as f32 / 50.0;
    Estimate {
        seq,
        at: time_of(seq),
        affect: Some(Affect {
            valence: angle.cos(),
            arousal: angle.sin(),
            confidence: 0.8,
        }),
        from_face: true,
        from_voice: false,
        face: None,
        voice: None,
        paused: false,
    }
}

fn device(port: u16, name: &str) -> Mqtt {
    let context = OutputContext {
        period: PERIOD,
        when_full: WhenFull::DropOldest,
        controls: crossbeam_channel::bounded(1).0,
        dropped: Arc::default(),
        lost: Arc::default(),
        health: LiveHealth::default(),
        pause: Arc::default(),
        host: Arc::new(HostIdentity {
            machine_id: Some(format!("affectd-sim {name}")),
            ..HostIdentity::default()
        }),
    };
    let spec = format!("mqtt://127.0.0.1:{port}?device={name}");
    let address = Address::parse(&spec, &HostIdentity::default()).expect("the address is valid");
    Mqtt::open(&address, &context).expect("no files are needed")
}

fn seq(message: &Message) -> Option<u64> {
    serde_json::from_str::<Value>(&message.payload).ok()?["seq"].as_u64()
}

/// How the reader of a fleet gets its messages.
#[derive(Clone, Copy)]
enum Brokers {
    One,
    /// From a broker of any kind that somebody else has started on this machine.
    Running {
        port: u16,
    },
    /// From a central broker, which the devices' broker is bridged to.
    Bridged,
}

/// `devices` devices publish at 5 Hz for `seconds`; one reader receives everything.
fn fleet(devices: usize, seconds: u64, brokers: Brokers) -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // One reader reads the whole fleet, so its queue must not be limited.
    let settings = "allow_anonymous true\nmax_queued_messages 0\n";
    let start = || Mosquitto::start(folder.path(), free_port(), settings);
    let (broker, central) = match brokers {
        Brokers::One => (start(), None),
        Brokers::Running { port } => (Mosquitto::running(port), None),
        Brokers::Bridged => {
            let broker = start();
            let bridge = "connection central\ntopic affectd/# out 1\nmax_inflight_messages 1000";
            let bridge = format!("{settings}{bridge}\naddress 127.0.0.1:{}", broker.port);
            (Mosquitto::start(folder.path(), free_port(), &bridge), Some(broker))
        }
    };
    let reader = Reader::of(central.as_ref().unwrap_or(&broker), &["affectd/+/estimate"]);
    // Several simulators may share a broker.
    let prefix = format!("d{}-", std::process::id());
    let mut fleet: Vec<Mqtt> = (0..devices)
        .map(|n| device(broker.port, &format!("{prefix}{n}")))
        .collect();
    let ticks = seconds * 5;
    let counting = std::thread::spawn(move || {
        let mut next = vec![1; devices];
        let (mut received, mut missing, mut repeated) = (0u64, 0u64, 0u64);
        while next.iter().any(|n| *n <= ticks) {
            let message = reader.next();
            let number = message
                .topic
                .split('/')
                .nth(1)
                .and_then(|device| device.strip_prefix(&prefix)?.parse::<usize>().ok());
            let (Some(number), Some(seq)) = (number, seq(&message)) else {
                continue;
            };
            received += 1;
            // A broker keeps the order of a device, so what is left out never comes.
            missing += seq.saturating_sub(next[number]);
            repeated += u64::from(seq < next[number]);
            next[number] = next[number].max(seq + 1);
        }
        (received, missing, repeated)
    });
    let began = Instant::now();
    let own_mosquitto = match brokers {
        Brokers::Running { .. } => None,
        Brokers::One | Brokers::Bridged => Some(broker.process_id()),
    };
    let (broker_before, own_before) = (own_mosquitto.map(cpu_time), cpu_time(std::process::id()));
    let mut latest = Duration::ZERO;
    for tick in 1..=ticks {
        for (n, output) in fleet.iter_mut().enumerate() {
            // Spread over the period, as real devices are.
            let due = time_of(tick - 1) + PERIOD.mul_f64(n as f64 / devices as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            latest = latest.max(began.elapsed().saturating_sub(due));
            output.write(&estimate(tick)).expect("the spool has room");
        }
    }
    let (received, missing, repeated) = counting.join().expect("the thread does not panic");
    let took = began.elapsed().as_secs_f64();
    let share = |before: Duration, id: u32| (cpu_time(id) - before).as_secs_f64() / took * 100.0;
    println!(
        "{devices} devices at 5 Hz for {took:.1} s: {received} messages for {} estimates, {missing} missing, {repeated} sent again after a reconnect",
        devices as u64 * ticks
    );
    if let (Some(before), Some(id)) = (broker_before, own_mosquitto) {
        println!("CPU use of mosquitto: {:.1} % of one core", share(before, id));
    }
    println!(
        "CPU use of all devices and the reader: {:.1} % of one core; largest delay of a device {} ms",
        share(own_before, std::process::id()),
        latest.as_millis()
    );
    if missing == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One device publishes at 5 Hz for `seconds` while the broker is killed `kills` times. Before the first kill, it freezes: the
/// kernel accepts what is sent to it, and nothing answers, as behind a router that lost its memory.
fn outage(seconds: u64, kills: u64) -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Mosquitto::persistent(folder.path(), free_port());
    let reader = Reader::with(&broker, &["affectd/d/estimate"], &["-c", "-i", "reader"]);
    broker.save();
    let mut output = device(broker.port, "d");
    let began = Instant::now();
    let last = seconds * 5;
    let killer = std::thread::spawn(move || {
        let seconds_between = seconds as f64 / (kills + 1) as f64;
        std::thread::sleep(Duration::from_secs_f64(seconds_between * 0.3));
        broker.freeze();
        println!("{:.1} s: frozen", began.elapsed().as_secs_f32());
        std::thread::sleep(Duration::from_secs_f64(seconds_between * 0.4));
        broker.thaw();
        println!("{:.1} s: thawed", began.elapsed().as_secs_f32());
        kill_repeatedly(broker, began, seconds, kills)
    });
    for n in 1..=last {
        std::thread::sleep(time_of(n).saturating_sub(began.elapsed()));
        output.write(&estimate(n)).expect("the spool has room");
    }
    let (broker, _) = killer.join().expect("the thread does not panic");
    let seqs: Vec<u64> = reader.until(|m| seq(m) == Some(last)).iter().filter_map(seq).collect();
    drop((output, broker));
    let (missing, repeated, disordered) = losses(&seqs, last);
    println!(
        "{last} estimates in {seconds} s: {missing} missing, {disordered} out of order, {repeated} sent again after a reconnect"
    );
    if missing + disordered == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Kills the broker `kills` times within `seconds` since `began`, each time for longer. Returns the outages.
fn kill_repeatedly(
    mut broker: Mosquitto,
    began: Instant,
    seconds: u64,
    kills: u64,
) -> (Mosquitto, Vec<(Instant, Instant)>) {
    let seconds = Duration::from_secs(seconds);
    let outages = (1..=kills).map(|n| {
        let at = seconds.mul_f64(n as f64 / (kills + 1) as f64);
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        broker.kill();
        let killed = Instant::now();
        println!("{:.1} s: killed", began.elapsed().as_secs_f32());
        std::thread::sleep(seconds.mul_f64(0.02 * n as f64));
        broker.restart();
        println!("{:.1} s: back", began.elapsed().as_secs_f32());
        (killed, Instant::now())
    });
    let outages = outages.collect();
    (broker, outages)
}

/// How many of the numbers from 1 to `last` are missing, how many arrived again, and how many arrived for the first time after a
/// later one. Those that were not acknowledged before a reconnect arrive again.
fn losses(seqs: &[u64], last: u64) -> (usize, usize, usize) {
    let (mut arrived, mut newest) = (HashSet::new(), 0);
    let (mut repeated, mut disordered) = (0, 0);
    for seq in seqs {
        if !arrived.insert(*seq) {
            repeated += 1;
        } else if *seq < newest {
            disordered += 1;
        }
        newest = newest.max(*seq);
    }
    let missing = (1..=last).filter(|n| !arrived.contains(n)).count();
    (missing, repeated, disordered)
}

/// User and system time of a process since its start, from /proc.
fn cpu_time(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name in parentheses may contain spaces, so the fields are counted after it. Linux counts 100 ticks a second.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}
