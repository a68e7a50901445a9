//! affectd as a service: its notifications to the service manager, and reloads.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{affectd, demo, file};
use crate::mosquitto::{Mosquitto, Reader, free_port, wait};
use crate::mqtt::seq;

/// A daemon that waits for absent devices, and its files.
struct Service {
    folder: TempDir,
    child: Child,
}

impl Service {
    fn start(config: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let path = Service::write(&folder, config);
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Service::command(&path).stderr(log).spawn().unwrap();
        Service { folder, child }
    }

    fn command(config: &Path) -> Command {
        let mut command = affectd();
        command.arg("run").arg("--config").arg(config);
        command
    }

    /// Writes a configuration with absent devices. `{}` in `config` stands for the folder.
    fn write(folder: &TempDir, config: &str) -> PathBuf {
        let devices = "camera.device = \"/dev/video-none\"\nmicrophone.device = \"hw:CARD=none\"\n";
        let config = config.replace("{}", &folder.path().display().to_string());
        file(folder, "affectd.toml", format!("{devices}{config}").as_bytes())
    }

    fn reload(&self, config: &str) {
        Service::write(&self.folder, config);
        signal(&self.child, libc::SIGHUP);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a log line that contains `words`, and returns it.
    fn wait_for(&self, words: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = fs::read_to_string(self.path("log")).unwrap();
            if let Some(line) = log.lines().find(|line| line.contains(words)) {
                return line.into();
            }
            assert!(Instant::now() < deadline, "no \"{words}\" in\n{log}");
            sleep(Duration::from_millis(20));
        }
    }

    /// The sequence numbers in a file, once there are at least `count`.
    fn numbers(&self, name: &str, count: usize) -> Vec<u64> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let numbers = numbers(&self.path(name));
            if numbers.len() >= count {
                return numbers;
            }
            assert!(Instant::now() < deadline, "{numbers:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Stops the daemon, which must succeed.
    fn stop(&mut self) {
        signal(&self.child, libc::SIGTERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A failed test leaves no daemon behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sequence numbers of the complete lines in a file; none if there is no file.
fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect()
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: kill is safe to call with any arguments; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn a_reload_moves_the_estimates_to_another_file_without_a_loss() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 3);
    service.reload("output = [\"file:{}/b\"]");
    service.wait_for("the new configuration is active");
    service.numbers("b", 3);
    service.stop();
    let mut all = numbers(&service.path("a"));
    all.extend(numbers(&service.path("b")));
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_reload_that_changes_the_rate_continues_the_sequence_numbers() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 3);
    service.reload("output = [\"file:{}/a\"]\nestimate.rate_hz = 10");
    service.wait_for("the new configuration is active");
    let before = service.numbers("a", 0).len();
    service.numbers("a", before + 5);
    service.stop();
    let all = numbers(&service.path("a"));
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    let times: Vec<f64> = fs::read_to_string(service.path("a"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["t"].as_f64().unwrap())
        .collect();
    let last = times.len() - 1;
    assert!((times[1] - times[0] - 0.2).abs() < 1e-6 && (times[last] - times[last - 1] - 0.1).abs() < 1e-6);
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn an_invalid_reload_is_rejected_and_the_old_configuration_stays_active() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 2);
    service.reload("output = [\"file:{}/a\"]\nestimate.rate_hz = 3");
    let rejected = service.wait_for("reload rejected, the old configuration stays active");
    assert!(rejected.contains("estimate.rate_hz = 3 (file "), "{rejected}");
    assert!(rejected.contains("must be 2.5, 5 or 10"), "{rejected}");
    // One output can be opened and one cannot: neither is used.
    service.reload("output = [\"file:{}/b\", \"file:{}/none/c\"]");
    service.wait_for("/none");
    let before = service.numbers("a", 0).len();
    service.numbers("a", before + 3);
    assert_eq!(numbers(&service.path("b")), [] as [u64; 0]);
    service.stop();
}

#[test]
fn a_reload_knows_a_file_by_another_name() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 2);
    std::os::unix::fs::symlink("a", service.path("link")).unwrap();
    service.reload("output = [\"file:{}/a\", \"file:{}/link\"]");
    let rejected = service.wait_for("reload rejected, the old configuration stays active");
    assert!(rejected.contains("writes to the same place as file:"), "{rejected}");
    service.reload("output = [\"file:{}/link\"]");
    service.wait_for("the new configuration is active");
    let before = service.numbers("a", 0).len();
    service.numbers("a", before + 3);
    service.stop();
    let all = numbers(&service.path("a"));
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_reload_without_a_change_does_nothing() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 2);
    service.reload("output = [\"file:{}/a\"]");
    service.wait_for("reload: the configuration and the models are unchanged");
    service.stop();
}

#[test]
fn the_command_of_the_unit_reloads_without_any_program_but_the_shell() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/package/affectd.service");
    let unit = fs::read_to_string(unit).unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecReload=")).unwrap();
    let script = command
        .strip_prefix("/bin/sh -c '")
        .and_then(|rest| rest.strip_suffix('\''));
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 2);
    let status = Command::new("/bin/sh")
        .args(["-c", script.unwrap()])
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("MAINPID", service.child.id().to_string())
        .status();
    assert!(status.unwrap().success());
    service.wait_for("reload: the configuration and the models are unchanged");
    service.stop();
}

#[test]
fn an_output_that_closes_slowly_does_not_hold_back_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = Service::write(&folder, "output = [\"stdout\", \"file:{}/a\"]");
    let log = File::create(folder.path().join("log")).unwrap();
    // Nobody reads standard output, and a line does not fit into the rest of the pipe.
    let (_reader, stdout) = std::io::pipe().unwrap();
    // SAFETY: fcntl with this command accesses no memory.
    assert!(unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } > 0);
    (&stdout).write_all(&[b' '; 4096]).unwrap();
    let child = Service::command(&path).stdout(stdout).stderr(log).spawn().unwrap();
    let mut service = Service { folder, child };
    service.numbers("a", 3);
    service.reload("output = [\"file:{}/a\", \"file:{}/b\"]");
    service.wait_for("stdout: not closed after 5 s");
    service.wait_for("the new configuration is active");
    service.numbers("b", 3);
    let before = service.numbers("a", 0).len();
    service.numbers("a", before + 3);
    signal(&service.child, libc::SIGTERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    for name in ["a", "b"] {
        let numbers = numbers(&service.path(name));
        let without_a_gap: Vec<u64> = (numbers[0]..).take(numbers.len()).collect();
        assert_eq!(numbers, without_a_gap, "{name}");
    }
}

#[test]
fn a_stop_during_a_reload_does_not_wait_for_a_stuck_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = Service::write(&folder, "output = [\"stdout\", \"file:{}/a\"]");
    let log = File::create(folder.path().join("log")).unwrap();
    let (_reader, stdout) = std::io::pipe().unwrap();
    // SAFETY: fcntl with this command accesses no memory.
    assert!(unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } > 0);
    (&stdout).write_all(&[b' '; 4096]).unwrap();
    let child = Service::command(&path).stdout(stdout).stderr(log).spawn().unwrap();
    let mut service = Service { folder, child };
    service.numbers("a", 3);
    service.reload("output = [\"file:{}/a\", \"file:{}/b\"]");
    // The reload now waits for standard output.
    service.numbers("b", 1);
    service.stop();
    let log = fs::read_to_string(service.path("log")).unwrap();
    assert!(!log.contains("not closed after"), "{log}");
    assert!(log.contains("left behind: output-stdout"), "{log}");
}

/// The service manager's end of the notification socket. The tests on the board use systemd itself.
struct Manager {
    socket: UnixDatagram,
    received: Vec<String>,
}

impl Manager {
    fn wait_for(&mut self, notification: &str) {
        let mut buffer = [0; 4096];
        while !self.received.iter().any(|line| line == notification) {
            let length = self.socket.recv(&mut buffer).expect(notification);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.received.extend(text.lines().map(String::from));
        }
    }
}

#[test]
fn a_reload_before_the_first_estimate_does_not_report_ready_early() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let path = Service::write(&folder, "output = [\"file:{}/a\"]\nestimate.rate_hz = 2.5");
    let log = File::create(folder.path().join("log")).unwrap();
    let mut command = Service::command(&path);
    let child = command.env("NOTIFY_SOCKET", &notify).stderr(log).spawn().unwrap();
    let mut service = Service { folder, child };
    // Signals are handled from before this line on, and no estimate has been made.
    service.wait_for("models: ");
    signal(&service.child, libc::SIGHUP);
    service.wait_for("unchanged");
    let mut buffer = [0; 4096];
    let first = loop {
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains("READY=1") || text.contains("RELOADING=1") {
            break text;
        }
    };
    assert!(!first.contains("RELOADING=1"), "{first}");
    service.stop();
}

#[test]
fn the_service_manager_is_notified_of_ready_watchdog_reload_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut manager = Manager {
        socket,
        received: Vec::new(),
    };
    let mut child = affectd()
        .args(["run", "--realtime", "--input"])
        .arg(demo())
        .stdout(Stdio::null())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000")
        .spawn()
        .unwrap();
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=camera running, microphone running");
    manager.received.clear();
    manager.wait_for("WATCHDOG=1");
    // With a clip, a reload is rejected; then affectd is ready again.
    manager.received.clear();
    signal(&child, libc::SIGHUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    signal(&child, libc::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reload_with_other_options_hands_over_the_estimates_that_wait_for_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    // The broker keeps what is published before the reader is back.
    let mut broker = Mosquitto::persistent(folder.path(), free_port());
    let reader = Reader::with(&broker, &["affectd/d/estimate"], &["-c", "-i", "reader"]);
    broker.save();
    wait(|| folder.path().join("mosquitto.db").exists().then_some(()));
    broker.kill();
    let port = broker.port;
    let outputs = |options: &str| format!("output = [\"mqtt://127.0.0.1:{port}?device=d{options}\", \"file:{{}}/a\"]");
    let service = Service::start(&outputs(""));
    service.numbers("a", 5);
    service.reload(&outputs("&spool=5m"));
    service.wait_for("estimates that are waiting");
    service.wait_for("reload: the new configuration is active");
    let last = *service.numbers("a", 10).last().unwrap();
    broker.restart();
    let messages = reader.until(|message| seq(message) >= Some(last));
    assert!(messages.iter().filter_map(seq).eq(1..=last), "{messages:?}");
}

#[test]
fn a_reload_that_removes_a_broker_says_how_many_estimates_are_lost() {
    let service = Service::start(&format!(
        "output = [\"mqtt://127.0.0.1:{}?device=d\", \"file:{{}}/a\"]",
        free_port()
    ));
    service.numbers("a", 5);
    service.reload("output = [\"file:{}/a\"]");
    service.wait_for("estimates were not delivered");
}

#[test]
fn a_client_with_the_same_identifier_is_suspected_if_the_broker_gives_no_reason() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::without_passwords(folder.path());
    let port = broker.port;
    let service = Service::start(&format!(
        "output = [\"mqtt://127.0.0.1:{port}?device=d&discovery=off&version=3.1.1\"]"
    ));
    let client = wait(|| {
        let log = broker.log();
        let name = log.split(" as ").find(|name| name.starts_with("affectd"))?;
        name.split_whitespace().next().map(str::to_owned)
    });
    // It connects again whenever affectd has taken its place.
    let _other = Reader::with(&broker, &["test/other"], &["-c", "-i", &client]);
    wait(|| {
        let log = fs::read_to_string(service.path("log")).unwrap();
        log.contains(&format!("another client may use the identifier {client}"))
            .then_some(())
    });
}
