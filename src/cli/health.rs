//! `affectd health`: what the running affectd says of itself.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::health::HealthReport;
use crate::printable::printable;

/// The name of the socket in the runtime folder of the service.
pub const SOCKET: &str = "health.sock";
/// The runtime folder of the package's service.
pub const RUNTIME_FOLDER: &str = "/run/affectd";

const TIMEOUT: Duration = Duration::from_secs(5);
/// A health record has about a thousand bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The running affectd cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct HealthError {
    path: PathBuf,
    reason: String,
}

/// Asks the affectd behind this socket. The answer is one line of JSON.
pub fn ask(path: &Path) -> Result<(String, HealthReport), HealthError> {
    let failed = |reason: String| HealthError {
        path: path.to_owned(),
        reason,
    };
    let answer = read(path).map_err(|error| failed(reason(&error)))?;
    match serde_json::from_slice(&answer) {
        Ok(report) => Ok((
            String::from_utf8_lossy(answer.trim_ascii_end()).into_owned() + "\n",
            report,
        )),
        Err(_) => Err(failed(
            "the answer is not a health record: another program has this socket".into(),
        )),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + TIMEOUT;
    let mut connection = UnixStream::connect(path)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // A server that sends byte by byte gets no more time than one that is silent.
    while answer.len() < MAX_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        connection.set_read_timeout(Some(left))?;
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "no affectd runs there: `systemctl status affectd` says why; with --socket, ask an affectd that was started with \
             RUNTIME_DIRECTORY=FOLDER"
                .into()
        }
        ErrorKind::PermissionDenied => "belongs to another user: use sudo".into(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            let seconds = TIMEOUT.as_secs();
            format!("affectd does not answer within {seconds} s: `systemctl restart affectd`")
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// The report for a person. What did not happen is left out.
pub fn text(report: &HealthReport) -> String {
    let mut lines = vec![
        ("problem", report.problem.clone()),
        ("camera", Some(report.camera.to_string())),
        ("microphone", Some(report.microphone.to_string())),
    ];
    let reasons: Vec<String> = report.paused_by.iter().map(ToString::to_string).collect();
    lines.push(("paused", (!reasons.is_empty()).then(|| reasons.join(", "))));
    let counted = |what: &'static str, total: u64, lost: &[(u64, &str)]| {
        let lost = lost.iter().filter(|(count, _)| *count > 0);
        let lost: String = lost.map(|(count, what)| format!(", {count} {what}")).collect();
        (what, Some(format!("{total}{lost}")))
    };
    lines.push(counted(
        "frames",
        report.frames,
        &[
            (report.frames_with_face, "with a face"),
            (report.frames_skipped, "skipped"),
            (report.frames_undecodable, "undecodable"),
            (report.frames_malformed, "malformed"),
            (report.frames_missed, "missed by the driver"),
        ],
    ));
    lines.push(counted(
        "estimates",
        report.estimates,
        &[
            (report.estimates_dropped, "dropped by outputs"),
            (report.estimates_skipped, "left out"),
        ],
    ));
    let some = |count: u64| (count > 0).then(|| count.to_string());
    lines.push(("audio overruns", some(report.xruns)));
    lines.push(("audio blocks lost", some(report.audio_blocks_lost)));
    let latency = report.latency_p50_ms.zip(report.latency_p99_ms);
    let latency = latency.map(|(median, p99)| format!("median {median} ms, 99th percentile {p99} ms"));
    lines.push(("latency", latency));
    lines.push((
        "temperature",
        report.temperature_c.map(|value| format!("{value:.1} °C")),
    ));
    lines.push(("low voltage", report.low_voltage.map(yes_or_no)));
    lines.push(("throttled", report.throttled.map(yes_or_no)));
    let minutes = report.uptime_s / 60;
    lines.push(("running for", Some(format!("{} h {} min", minutes / 60, minutes % 60))));
    lines
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<19}{}\n", printable(&value?))))
        .collect()
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::health::{Health, SourceState};

    /// What `ask` returns for this answer.
    fn answer(text: &'static str) -> Result<(String, HealthReport), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(text.as_bytes()).unwrap());
        let result = ask(&path).map_err(|error| error.reason);
        server.join().unwrap();
        result
    }

    #[test]
    fn the_report_is_readable() {
        let health = Health::default();
        health.camera.set(
            SourceState::Stalled,
            Some("/dev/video0: sent no frame for 1.0 s".into()),
        );
        health.microphone.set(SourceState::Running, None);
        health.latency.record(Duration::from_millis(17));
        let report = HealthReport {
            temperature_c: Some(51.5),
            throttled: Some(false),
            frames: 250,
            frames_with_face: 248,
            xruns: 3,
            ..health.report(Duration::from_secs(3725))
        };
        insta::assert_snapshot!(text(&report), @"
        problem            camera stalled: /dev/video0: sent no frame for 1.0 s
        camera             stalled
        microphone         running
        frames             250, 248 with a face
        estimates          0
        audio overruns     3
        latency            median 17 ms, 99th percentile 17 ms
        temperature        51.5 °C
        throttled          no
        running for        1 h 2 min
        ");
    }

    #[test]
    fn a_server_that_sends_byte_by_byte_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let mut client = listener.accept().unwrap().0;
            while client.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let error = ask(&path).unwrap_err();
        assert_eq!(
            error.reason,
            "affectd does not answer within 5 s: `systemctl restart affectd`"
        );
    }

    #[test]
    fn an_answer_of_another_program_is_an_error() {
        let (line, report) = answer("{\"schema\":1,\"uptime_s\":5,\"camera\":\"running\"}\n").unwrap();
        assert_eq!((line.lines().count(), report.camera), (1, SourceState::Running));
        let why = "the answer is not a health record: another program has this socket";
        for text in ["", "HTTP/1.1 400 Bad Request\r\n", "\u{1b}[2J"] {
            assert_eq!(answer(text).unwrap_err(), why);
        }
    }
}
