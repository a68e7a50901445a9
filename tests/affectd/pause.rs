//! Pause and resume, by signals, on a serial line and over MQTT. Programs take the place of camera and microphone.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::affectd;
use super::json_schema::Schema;
use super::mosquitto::{Message, Mosquitto, Reader, wait};
use super::programs::{Daemon, Pieces, is_running};
use super::pty::Pty;

/// The pipes that a process has open.
fn open_pipes(process: &str) -> BTreeSet<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| path.to_string_lossy().starts_with("pipe:"))
        .collect()
}

/// The number of pipes between the daemon and its programs. Others are those of its standard output, and what the caller of this test
/// has left open.
fn pipes(daemon: &Daemon) -> usize {
    let of_daemon = open_pipes(&daemon.child.id().to_string());
    of_daemon.difference(&open_pipes("self")).count()
}

fn has_face_and_voice(estimate: &Value) -> bool {
    estimate["modalities"] == json!(["face", "voice"])
}

fn is_paused(estimate: &Value) -> bool {
    estimate["paused"] == true
}

/// The next line of the port that is an answer.
fn answer(port: &mut Pty) -> Value {
    loop {
        let line = port.line();
        if line.starts_with("{\"ok\"") || line.starts_with("{\"error\"") {
            return serde_json::from_str(&line).unwrap();
        }
    }
}

fn ask(port: &mut Pty, command: &str) -> Value {
    port.send(format!("{command}\n").as_bytes());
    answer(port)
}

/// Whether a signal is in this set of a process, such as `SigBlk`.
fn has_signal(daemon: &Daemon, set: &str, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    let signals = u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap();
    signals & (1 << (signal - 1)) != 0
}

#[test]
fn a_pause_by_signal_during_the_start_is_not_lost() {
    let pieces = Pieces::new();
    let mut daemon = Daemon::start(&["--camera", &pieces.camera(), "--microphone", "off"]);
    // From then on, the signal does not end the process.
    wait(|| {
        (has_signal(&daemon, "SigBlk", libc::SIGUSR1) || has_signal(&daemon, "SigCgt", libc::SIGUSR1)).then_some(())
    });
    daemon.signal(libc::SIGUSR1);
    daemon.until(is_paused);
    daemon.stop();
}

#[test]
fn a_pause_by_signal_closes_the_devices_and_forgets_the_person() {
    let pieces = Pieces::new();
    let folder = pieces.folder.path().display().to_string();
    let mut daemon = Daemon::start(&["--camera", &pieces.camera(), "--microphone", &pieces.microphone()]);
    let before = daemon.until(has_face_and_voice);
    assert!(is_running(&folder) && pipes(&daemon) > 0);
    for round in 1..=2 {
        // The second pause is the same as the first.
        daemon.signal(libc::SIGUSR1);
        daemon.signal(libc::SIGUSR1);
        daemon.until_logged_times("camera paused: closed", round);
        daemon.until_logged_times("microphone paused: closed", round);
        assert!(!is_running(&folder));
        // That of standard error is closed by its own thread, just after the program has ended.
        wait(|| (pipes(&daemon) == 0).then_some(()));
        let paused = daemon.until(is_paused);
        Schema::read("estimate").validate(&paused).unwrap();
        assert_eq!(paused["modalities"], json!([]));
        for field in [
            "valence",
            "arousal",
            "confidence",
            "face",
            "voice",
            "expression",
            "latency_ms",
        ] {
            assert!(paused[field].is_null(), "{paused}");
        }
        daemon.signal(libc::SIGUSR2);
        let after = daemon.until(|estimate| estimate["face"].is_object());
        assert_eq!(after["paused"], false);
        assert!(after["face"]["id"].as_u64() > before["face"]["id"].as_u64(), "{after}");
        daemon.until(has_face_and_voice);
    }
    daemon.stop();
    assert!(!is_running(&folder));
}

#[test]
fn commands_pause_while_a_device_is_opened_and_are_answered_when_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ttyUSB0");
    let mut port = Pty::plug_in(&path);
    // It never delivers a frame.
    let silent = format!("command:sleep 1000 || : {}", folder.path().display());
    let serial = format!("serial:{}?wire=json", path.display());
    let daemon = Daemon::start(&["--camera", &silent, "--microphone", "off", "--output", &serial]);
    wait(|| is_running(&silent["command:".len()..]).then_some(()));
    assert_eq!(ask(&mut port, "pause"), json!({"ok": "pause"}));
    assert!(!is_running(&folder.path().display().to_string()));
    assert_eq!(ask(&mut port, "pause"), json!({"ok": "pause"}));
    let health = ask(&mut port, "health");
    assert_eq!(
        (
            &health["ok"]["camera"],
            &health["ok"]["microphone"],
            &health["ok"]["problem"]
        ),
        (&json!("paused"), &json!("off"), &Value::Null)
    );
    let error = json!({"error": "baseline: affectd is paused: send resume first"});
    assert_eq!(ask(&mut port, "baseline"), error);
    assert_eq!(ask(&mut port, "resume"), json!({"ok": "resume"}));
    wait(|| is_running(&silent["command:".len()..]).then_some(()));
    daemon.stop();
}

#[test]
fn a_pause_over_mqtt_outlasts_a_reload_and_a_kill_of_the_service() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Mosquitto::without_passwords(folder.path());
    let reader = Reader::of(&broker, &["affectd/d/response", "affectd/d/state", "affectd/d/health"]);
    let pieces = Pieces::new();
    let name = pieces.folder.path().display().to_string();
    let config = super::file(
        &folder,
        "affectd.toml",
        format!("camera.device = {:?}\nmicrophone.device = \"off\"\n", pieces.camera()).as_bytes(),
    );
    let output = format!("mqtt://127.0.0.1:{}?device=d", broker.port);
    let start = || {
        let mut command = affectd();
        command.env("STATE_DIRECTORY", state.path());
        Daemon::with(
            command,
            &[
                "--config",
                config.to_str().unwrap(),
                "--output",
                &output,
                "--output",
                "stdout",
            ],
        )
    };
    let is = |topic: &'static str, field: &'static str, value: Value| {
        move |message: &Message| {
            let payload: Value = serde_json::from_str(&message.payload).unwrap_or_default();
            message.topic == format!("affectd/d/{topic}") && payload[field] == value
        }
    };
    let mut daemon = start();
    daemon.until(|estimate| estimate["face"].is_object());
    broker.publish(&["-t", "affectd/d/command", "-m", "pause"]);
    reader.until(is("response", "ok", json!("pause")));
    assert!(!is_running(&name));
    reader.until(is("health", "camera", json!("paused")));
    reader.until(is("state", "paused", json!(true)));
    // A changed camera is not opened either.
    fs::write(
        &config,
        format!(
            "camera.device = {:?}\nmicrophone.device = {:?}\n",
            pieces.camera() + " ",
            pieces.microphone()
        ),
    )
    .unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.until_logged("the new configuration is active");
    daemon.until_logged("microphone paused: closed");
    assert!(!is_running(&name));
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let mut daemon = start();
    daemon.until_logged("microphone paused: closed");
    assert!(is_paused(&daemon.until(|_| true)) && !is_running(&name));
    broker.publish(&["-t", "affectd/d/command", "-m", "resume"]);
    daemon.until(has_face_and_voice);
    daemon.stop();
    let mut daemon = start();
    daemon.until(has_face_and_voice);
    daemon.stop();
}

#[test]
fn a_pause_without_a_state_directory_outlasts_the_command_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ttyUSB0");
    let mut port = Pty::plug_in(&path);
    let pieces = Pieces::new();
    let serial = format!("serial:{}?wire=json", path.display());
    let mut command = affectd();
    command.env("AFFECTD_PAUSED", "1");
    let mut daemon = Daemon::with(
        command,
        &[
            "--camera",
            &pieces.camera(),
            "--microphone",
            "off",
            "--output",
            &serial,
            "--output",
            "stdout",
        ],
    );
    let restart = |port: &mut Pty| {
        // It is refused in the first ten seconds.
        while ask(port, "restart") != json!({"ok": "restart"}) {}
    };
    assert!(is_paused(&daemon.until(|_| true)));
    restart(&mut port);
    daemon.until_logged_times("camera paused: closed", 2);
    assert!(is_paused(&daemon.until(|_| true)));
    assert_eq!(ask(&mut port, "resume"), json!({"ok": "resume"}));
    daemon.until(|estimate| estimate["face"].is_object());
    restart(&mut port);
    daemon.until_logged_times("models: ", 3);
    daemon.until(|estimate| estimate["face"].is_object());
    assert_eq!(daemon.stop().matches("camera paused: closed").count(), 2);
}

#[test]
fn a_clip_cannot_be_paused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ttyUSB0");
    let mut port = Pty::plug_in(&path);
    let serial = format!("serial:{}?wire=json", path.display());
    let demo = super::demo();
    let mut daemon = Daemon::start(&[
        "--realtime",
        "--input",
        demo.to_str().unwrap(),
        "--output",
        &serial,
        "--output",
        "stdout",
    ]);
    let why = "affectd replays a clip, which has no devices: use it with a camera or a microphone";
    for command in ["pause", "resume"] {
        assert_eq!(ask(&mut port, command), json!({"error": format!("{command}: {why}")}));
    }
    daemon.signal(libc::SIGUSR1);
    daemon.until_logged(why);
    assert_eq!(daemon.until(|_| true)["paused"], false);
    daemon.stop();
}
