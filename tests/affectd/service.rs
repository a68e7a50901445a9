//! affectd as a service: what it tells a service manager, and what a reload changes.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{affectd, demo, file};

/// A daemon that waits for devices which are not there, and its files.
struct Service {
    folder: TempDir,
    child: Child,
}

impl Service {
    fn start(config: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let path = Service::write(&folder, config);
        let log = File::create(folder.path().join("log")).unwrap();
        let child = affectd()
            .arg("run")
            .arg("--config")
            .arg(path)
            .stderr(log)
            .spawn()
            .unwrap();
        Service { folder, child }
    }

    /// Puts a configuration down that reads no devices; `{}` in it is the folder.
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

    /// Waits until the log says so.
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

    /// The sequence numbers in a file, once there are `count` and more.
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

    /// Stops it, which must succeed.
    fn stop(&mut self) {
        signal(&self.child, libc::SIGTERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A test that failed leaves no daemon behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of the whole lines in a file; none while it is not there.
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
fn a_reload_moves_the_estimates_to_another_file_without_losing_one() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 3);
    service.reload("output = [\"file:{}/b\"]");
    service.wait_for("changed configuration is in force");
    service.numbers("b", 3);
    service.stop();
    let mut all = numbers(&service.path("a"));
    all.extend(numbers(&service.path("b")));
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_reload_that_changes_the_rate_goes_on_counting() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 3);
    service.reload("output = [\"file:{}/a\"]\nestimate.rate_hz = 10");
    service.wait_for("changed configuration is in force");
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
fn a_reload_that_cannot_be_is_refused_and_everything_goes_on() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 2);
    service.reload("output = [\"file:{}/a\"]\nestimate.rate_hz = 3");
    let refused = service.wait_for("reload refused");
    assert!(refused.contains("estimate.rate_hz = 3 (file "), "{refused}");
    assert!(refused.contains("must be 2.5, 5 or 10"), "{refused}");
    // One output that could be opened and one that cannot: neither is.
    service.reload("output = [\"file:{}/b\", \"file:{}/none/c\"]");
    service.wait_for("/none");
    let before = service.numbers("a", 0).len();
    service.numbers("a", before + 3);
    assert_eq!(numbers(&service.path("b")), [] as [u64; 0]);
    service.stop();
}

#[test]
fn without_a_change_a_reload_does_nothing() {
    let mut service = Service::start("output = [\"file:{}/a\"]");
    service.numbers("a", 2);
    service.reload("output = [\"file:{}/a\"]");
    service.wait_for("reload: nothing has changed");
    service.stop();
}

/// The manager's end of the socket. Ours, so that no systemd is needed here: the real one is in the bench.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn hear(&mut self, wanted: &str) {
        let mut buffer = [0; 4096];
        while !self.heard.iter().any(|line| line == wanted) {
            let length = self.socket.recv(&mut buffer).expect(wanted);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.extend(text.lines().map(String::from));
        }
    }
}

#[test]
fn a_service_manager_hears_that_it_is_ready_that_it_moves_and_that_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut manager = Manager {
        socket,
        heard: Vec::new(),
    };
    let mut child = affectd()
        .args(["run", "--realtime", "--input"])
        .arg(demo())
        .stdout(Stdio::null())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000")
        .spawn()
        .unwrap();
    manager.hear("READY=1");
    manager.hear("STATUS=camera running, microphone running");
    manager.heard.clear();
    manager.hear("WATCHDOG=1");
    // A clip is not reloaded, and says so; then it is ready as before.
    manager.heard.clear();
    signal(&child, libc::SIGHUP);
    manager.hear("RELOADING=1");
    manager.hear("READY=1");
    signal(&child, libc::SIGTERM);
    manager.hear("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
