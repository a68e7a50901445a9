//! The off hours and the light that shows that a device is open. Programs take the place of camera and microphone, and a folder
//! that of an LED.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::mosquitto::wait;
use super::programs::{Daemon, Pieces, is_running};
use super::pty::Pty;
use super::{affectd, file};

/// An LED as the kernel shows it, driven by a trigger.
fn led(folder: &Path) -> PathBuf {
    let led = folder.join("led");
    fs::create_dir(&led).unwrap();
    for (name, text) in [
        ("brightness", "7\n"),
        ("max_brightness", "255\n"),
        ("trigger", "none [mmc0]\n"),
    ] {
        fs::write(led.join(name), text).unwrap();
    }
    led
}

fn brightness(led: &Path) -> String {
    fs::read_to_string(led.join("brightness")).unwrap()
}

fn ask(port: &mut Pty, command: &str) -> Value {
    port.send(format!("{command}\n").as_bytes());
    loop {
        let line = port.line();
        if line.starts_with("{\"ok\"") || line.starts_with("{\"error\"") {
            return serde_json::from_str(&line).unwrap();
        }
    }
}

#[test]
fn off_hours_and_a_requested_pause_are_separate_and_the_light_shows_open_devices() {
    let folder = tempfile::tempdir().unwrap();
    let (led, port) = (led(folder.path()), folder.path().join("ttyUSB0"));
    let mut pty = Pty::plug_in(&port);
    let pieces = Pieces::new();
    let name = pieces.folder.path().display().to_string();
    let config = |off: &str, light: &Path| {
        let text = format!(
            "camera.device = {:?}\nmicrophone.device = \"off\"\n[privacy]\noff = \"{off}\"\nlight = {light:?}\n",
            pieces.camera(),
        );
        file(&folder, "affectd.toml", text.as_bytes())
    };
    let path = config("00:00-24:00", &led);
    let serial = format!("serial:{}?wire=json", port.display());
    let arguments = [
        "--config",
        path.to_str().unwrap(),
        "--output",
        &serial,
        "--output",
        "stdout",
    ];
    let mut daemon = Daemon::start(&arguments);
    daemon.until_logged("camera paused: closed");
    assert_eq!(daemon.until(|_| true)["paused"], true);
    assert!(!is_running(&name));
    assert_eq!(brightness(&led), "0");
    assert_eq!(fs::read_to_string(led.join("trigger")).unwrap(), "none");
    // "unknown_time" on a machine whose clock is not synchronized.
    let by_schedule = ask(&mut pty, "health")["ok"]["paused_by"].clone();
    assert!(
        [json!(["off_hours"]), json!(["unknown_time"])].contains(&by_schedule),
        "{by_schedule}"
    );
    let refused = ask(&mut pty, "resume")["error"].as_str().unwrap().to_owned();
    assert!(
        refused.starts_with("resume: the pause on request is over, but privacy.off keeps the devices closed"),
        "{refused}"
    );

    assert_eq!(ask(&mut pty, "pause"), json!({"ok": "pause"}));
    config("", &led);
    daemon.signal(libc::SIGHUP);
    daemon.until_logged("privacy.off: the devices may be opened");
    assert_eq!(ask(&mut pty, "health")["ok"]["paused_by"], json!(["request"]));
    assert!(!is_running(&name));
    assert_eq!(ask(&mut pty, "resume"), json!({"ok": "resume"}));
    daemon.until(|estimate| estimate["face"].is_object());
    assert_eq!(
        (brightness(&led), ask(&mut pty, "health")["ok"]["paused_by"].clone()),
        ("255".into(), json!([]))
    );

    config("", Path::new("/sys/class/leds/other"));
    daemon.signal(libc::SIGHUP);
    daemon.until_logged("privacy.light cannot change during a reload: restart affectd instead");
    config("00:00-24:00", &led);
    daemon.signal(libc::SIGHUP);
    daemon.until_logged_times("camera paused: closed", 2);
    wait(|| (brightness(&led) == "0").then_some(()));
    assert!(!is_running(&name));
    daemon.stop();
}

#[test]
fn without_its_light_affectd_opens_no_device() {
    let (folder, pieces) = (tempfile::tempdir().unwrap(), Pieces::new());
    let text = format!(
        "camera.device = {:?}\nmicrophone.device = \"off\"\nprivacy.light = \"/sys/class/leds/none-such\"\n",
        pieces.camera()
    );
    let path = file(&folder, "affectd.toml", text.as_bytes());
    let why = "privacy.light = /sys/class/leds/none-such: there is no such LED: ls /sys/class/leds lists them";
    for command in ["run", "check"] {
        let output = affectd().args([command, "--config"]).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(why), "{log}");
    }
}

#[test]
fn wrong_off_hours_are_a_wrong_configuration() {
    let output = affectd()
        .arg("config")
        .env("AFFECTD_PRIVACY_OFF", "22-7")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let log = String::from_utf8(output.stderr).unwrap();
    let why = "\"22-7\" is not a range of hours: write it as 22:00-07:00, several with commas between them";
    assert!(
        log.contains("privacy.off = 22-7 (environment AFFECTD_PRIVACY_OFF)") && log.contains(why),
        "{log}"
    );
}

#[test]
fn an_unknown_time_zone_closes_the_devices_and_is_named() {
    let mut command = affectd();
    command
        .env("TZ", "Europe/Wien")
        .env("AFFECTD_PRIVACY_OFF", "03:00-03:01");
    let mut daemon = Daemon::with(command, &["--camera", "off", "--microphone", "command:cat /dev/zero"]);
    let estimate = daemon.until(|estimate| estimate["paused"] == true);
    assert_eq!(estimate["modalities"], json!([]));
    let log = daemon.stop();
    assert!(
        log.contains(
            "privacy.off = 03:00-03:01: the system has no such time zone: TZ = Europe/Wien, so the devices are closed"
        ),
        "{log}"
    );
}

#[test]
fn a_light_that_is_no_path_is_a_wrong_configuration() {
    let output = affectd()
        .env("AFFECTD_PRIVACY_LIGHT", "ACT")
        .arg("check")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("must be the folder of an LED, for example /sys/class/leds/ACT"),
        "{error}"
    );
}

#[test]
fn a_button_on_a_line_that_does_not_exist_ends_affectd() {
    let start = |line: &str| {
        affectd()
            .env("AFFECTD_PRIVACY_BUTTON", line)
            .arg("run")
            .output()
            .unwrap()
    };
    let wrong = start("GPIO17");
    assert_eq!(wrong.status.code(), Some(2));
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        error.contains("must be a chip and the number of its line, for example gpiochip0:17"),
        "{error}"
    );
    let absent = start("gpiochip987:1");
    assert_eq!(absent.status.code(), Some(3));
    let error = String::from_utf8(absent.stderr).unwrap();
    assert!(
        error.contains("privacy.button = /dev/gpiochip987:1: there is no such chip"),
        "{error}"
    );
}
