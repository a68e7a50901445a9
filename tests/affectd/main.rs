//! Tests everything that users rely on, through the binary. Also tests, through the library, that Rust and Python compute the
//! same.

#![allow(
    clippy::cast_possible_truncation,
    reason = "test data is small, and a wrong value fails the test"
)]

mod bad_input;
mod bench;
mod check;
mod clips;
mod clips_once;
mod commands;
mod faces;
mod health;
mod home_assistant;
mod image_update;
#[cfg(feature = "faults")]
mod injected_faults;
mod messages;
mod microphones;
mod models;
mod monitor;
mod monitor_terminal;
mod mqtt;
mod mqtt_hostile;
mod mqtt_login;
mod off_hours;
mod outputs;
mod outputs_serial;
mod outputs_wire;
mod package;
mod pause;
mod preprocessing;
mod process;
mod programs;
mod progress;
mod run;
mod service;
mod settings;
#[cfg(feature = "status")]
mod status;
mod terminal;

#[path = "../support/ebml.rs"]
mod ebml;
#[path = "../support/jpeg.rs"]
mod jpeg;
#[path = "../support/json_schema.rs"]
mod json_schema;
#[path = "../support/matroska.rs"]
mod matroska;
#[path = "../support/mosquitto.rs"]
#[expect(dead_code, reason = "shared with affectd-sim, which uses the rest")]
mod mosquitto;
#[path = "../support/pty.rs"]
mod pty;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The binary under test, without any configuration of this machine.
fn affectd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_affectd"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"AFFECTD_")) {
        command.env_remove(name);
    }
    command.env("AFFECTD_CONFIG", "/dev/null");
    command
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

fn demo() -> PathBuf {
    models().join("demo.mkv")
}

/// The exit code, estimates and log of a replayed clip.
struct Replay {
    code: Option<i32>,
    lines: Vec<Value>,
    log: String,
}

impl Replay {
    fn of(clip: &Path) -> Replay {
        Replay::from(affectd().args(["run", "--input"]).arg(clip).output().unwrap())
    }

    fn from(output: Output) -> Replay {
        let text = String::from_utf8(output.stdout).unwrap();
        Replay {
            code: output.status.code(),
            lines: text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
                .collect(),
            log: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The last line of the log, which is the error of a failed run, without `folder`.
    fn error(&self, folder: &Path) -> String {
        let line = self.log.lines().last().unwrap_or_default();
        line.replace(&format!("{}/", folder.display()), "")
    }

    /// The number of estimates with exactly these modalities.
    fn count(&self, modalities: &[&str]) -> usize {
        let same = |line: &&Value| line["modalities"] == serde_json::json!(modalities);
        self.lines.iter().filter(same).count()
    }
}

/// Creates a file in a temporary folder.
fn file(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}
