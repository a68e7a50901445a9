//! `affectd health` asks a running affectd.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::affectd;
use super::json_schema::Schema;
use super::programs::{Daemon, Pieces};

/// An affectd that runs as a service does, with this folder in `/run`.
fn start(folder: &Path, arguments: &[&str]) -> Daemon {
    let mut command = affectd();
    command.env("RUNTIME_DIRECTORY", folder);
    Daemon::with(command, arguments)
}

fn health(folder: &Path, arguments: &[&str]) -> Output {
    affectd()
        .arg("health")
        .arg("--socket")
        .arg(folder.join("health.sock"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_service_tells_its_health() {
    let folder = tempfile::tempdir().unwrap();
    let pieces = Pieces::new();
    let mut daemon = start(folder.path(), &["--camera", &pieces.camera(), "--microphone", "off"]);
    daemon.until(|estimate| estimate["modalities"] == serde_json::json!(["face"]));
    let text = health(folder.path(), &[]);
    assert_eq!(text.status.code(), Some(0));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with("camera             running\nmicrophone         off\nframes             "),
        "{text}"
    );
    let record = health(folder.path(), &["--json"]);
    let record: Value = serde_json::from_slice(&record.stdout).unwrap();
    Schema::read("health").validate(&record).unwrap();
    assert_eq!(record["camera"], "running");
    daemon.stop();

    let after = health(folder.path(), &[]);
    assert_eq!(after.status.code(), Some(1));
    let error = String::from_utf8(after.stderr).unwrap();
    assert!(
        error.contains("/health.sock: no affectd runs there: `systemctl status affectd` says why"),
        "{error}"
    );
}

#[test]
fn a_problem_of_the_service_is_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--camera", "/dev/video-none", "--microphone", "off"];
    let mut daemon = start(folder.path(), &arguments);
    daemon.until_logged("camera absent");
    let output = health(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("problem            camera absent: /dev/video-none: "),
        "{text}"
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("affectd: affectd has a problem: camera absent: "),
        "{error}"
    );

    // A second affectd with the same folder works, but does not take the socket.
    let mut second = start(folder.path(), &arguments);
    second.until_logged("health.sock: `affectd health` cannot ask this process");
    second.stop();
    assert_eq!(health(folder.path(), &[]).status.code(), Some(1));
    let still_there = health(folder.path(), &["--json"]);
    assert!(!still_there.stdout.is_empty());
    daemon.stop();
}
