//! A serial line on a pseudo-terminal: what does not arrive is counted.

#[path = "../../../tests/support/pty.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod pty;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::*;
use crate::health::LiveHealth;
use crate::output::estimate::samples::nothing;
use crate::output::options::Options;
use pty::Pty;
use serde_json::Value;
use tempfile::TempDir;

/// Far longer than any step takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Line {
    serial: Serial,
    pty: Pty,
    written: u64,
    /// The beginning of a line.
    arrived: Vec<u8>,
    /// With the link to the port.
    _folder: TempDir,
}

impl Line {
    fn open(options: &str) -> Line {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ttyUSB0");
        let pty = Pty::plug_in(&path);
        let context = OutputContext {
            period: Duration::from_millis(200),
            when_full: WhenFull::DropOldest,
            controls: crossbeam_channel::bounded(1).0,
            dropped: Default::default(),
            lost: Default::default(),
            health: LiveHealth::default(),
            pause: Default::default(),
            host: Default::default(),
        };
        let spec = SerialSpec::parse(path.to_str().unwrap(), &Options::parse(options).unwrap()).unwrap();
        Line {
            serial: Serial::open(&spec, &context).unwrap(),
            pty,
            written: 0,
            arrived: Vec::new(),
            _folder: folder,
        }
    }

    fn write(&mut self) {
        self.written += 1;
        self.serial.write(&nothing(self.written)).unwrap();
    }

    fn dropped(&self) -> u64 {
        self.serial.context.dropped.load(Ordering::Relaxed)
    }

    /// Writes without reading until the line is full, and estimates wait.
    fn fill(&mut self) {
        while self.serial.outbox.unsent_estimates() < 2 {
            self.write();
        }
    }

    /// Reads all that was not dropped, and whatever else arrives. Returns the numbers of the estimates.
    fn finish(mut self) -> Vec<u64> {
        let deadline = Instant::now() + TIMEOUT;
        let mut seqs = Vec::new();
        while !self.serial.outbox.is_idle() || (seqs.len() as u64) < self.written - self.dropped() {
            assert!(
                Instant::now() < deadline,
                "{} dropped, arrived: {seqs:?}",
                self.dropped()
            );
            self.serial.poll().unwrap();
            seqs.extend(self.read());
        }
        self.serial.finish().unwrap();
        seqs.extend(self.read());
        seqs
    }

    fn read(&mut self) -> Vec<u64> {
        self.arrived.extend(self.pty.drain());
        let whole = self
            .arrived
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let text = String::from_utf8(self.arrived.drain(..whole).collect()).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
            .collect()
    }
}

#[test]
fn a_slow_line_counts_each_estimate_that_it_leaves_out() {
    let mut line = Line::open("baud=1200");
    (0..20).for_each(|_| line.write());
    let dropped = line.dropped();
    assert!(dropped > 0);
    let arrived = line.finish();
    assert_eq!(arrived.first(), Some(&1));
    assert!(arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
    assert_eq!(arrived.len() as u64 + dropped, 20);
}

#[test]
fn a_full_line_counts_each_estimate_that_it_leaves_out() {
    let mut line = Line::open("baud=4000000");
    line.fill();
    (0..5).for_each(|_| line.write());
    let (dropped, written) = (line.dropped(), line.written);
    let arrived = line.finish();
    assert!(arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
    assert_eq!(arrived.len() as u64 + dropped, written);
}

#[test]
fn estimates_that_wait_when_the_port_goes_away_are_counted() {
    let mut line = Line::open("baud=4000000");
    line.fill();
    let before = line.dropped();
    let Line { mut serial, pty, .. } = line;
    drop(pty);
    let mut waiting = 0;
    while serial.port.is_some() {
        waiting = serial.outbox.unsent_estimates();
        serial.poll().unwrap();
    }
    let dropped = |serial: &Serial| serial.context.dropped.load(Ordering::Relaxed);
    assert!(waiting > 0);
    assert_eq!(dropped(&serial), before + waiting);
    serial.write(&nothing(1)).unwrap();
    serial.finish().unwrap();
    assert_eq!(dropped(&serial), before + waiting + 1);
}

#[test]
fn estimates_that_wait_at_the_end_are_counted() {
    let mut line = Line::open("baud=4000000");
    line.fill();
    let (before, waiting) = (line.dropped(), line.serial.outbox.unsent_estimates());
    // The end has waited for the line already.
    line.serial.stuck = true;
    line.serial.finish().unwrap();
    assert_eq!(line.dropped(), before + waiting);
}

#[test]
fn a_closed_port_is_no_longer_exclusive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ttyUSB0");
    let _pty = Pty::plug_in(&path);
    // Somebody else who keeps the port open, such as a login console.
    let console = File::options()
        .read(true)
        .custom_flags(libc::O_NOCTTY)
        .open(&path)
        .unwrap();
    let is_exclusive = || {
        let mut exclusive: libc::c_int = -1;
        // SAFETY: the call writes an int to this live variable, through a descriptor that `console` keeps open.
        let asked = unsafe { libc::ioctl(console.as_raw_fd(), libc::TIOCGEXCL, &mut exclusive) };
        assert_eq!(asked, 0);
        exclusive == 1
    };
    for _ in 0..2 {
        // Others than root cannot open a port that is still exclusive.
        let port = Port::open(&path, 115_200).unwrap();
        assert!(is_exclusive());
        drop(port);
        assert!(!is_exclusive());
    }
}
