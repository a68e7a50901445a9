//! Outputs that fail, end, or are slow.

use super::*;
use crate::daemon::error::DaemonError;
use crate::daemon::health_reporter::REPORT_INTERVAL;
use crate::fusion::Estimate;
use crate::health::{HealthReport, SourceState};
use crate::output::Output;
use crate::output::estimate::samples::nothing;
use crate::output::line_encoder::Format;
use crate::queue::Disconnected;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    threads: &'scope ThreadGroup<'_>,
    health: &'scope Arc<Health>,
    when_full: WhenFull,
    outputs: Vec<Box<dyn Output>>,
) -> OutputThreads<'scope, 'env> {
    let open = |output| OpenOutput {
        spec: OutputSpec::Stdout { format: Format::Json },
        output,
    };
    let outputs = outputs.into_iter().map(open).collect();
    let (controls, requests) = bounded(1);
    let context = context(
        Duration::from_millis(200),
        when_full,
        controls,
        health,
        &Arc::default(),
        &Arc::default(),
    );
    OutputThreads::start_opened(scope, threads, health, outputs, context, requests)
}

/// Reports the estimates that it gets, and fails after `capacity` of them.
struct Probe {
    capacity: usize,
    written: mpsc::Sender<u64>,
    failure: fn() -> OutputError,
}

impl Output for Probe {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        if self.capacity == 0 {
            return Err((self.failure)());
        }
        self.capacity -= 1;
        self.written.send(estimate.seq).unwrap();
        Ok(())
    }
}

/// What became of estimates that were sent to two outputs.
struct Outcome {
    result: Result<(), DaemonError>,
    /// Number of estimates that each output wrote.
    written: Vec<usize>,
    /// Number of estimates sent until all outputs had ended, at most 1000.
    sent: u64,
}

fn run(capacities: [usize; 2], failure: fn() -> OutputError) -> Outcome {
    let (health, stop) = (Arc::<Health>::default(), AtomicBool::new(false));
    let threads = ThreadGroup::new(&stop);
    let mut sent = 0;
    let (written, probes): (Vec<_>, Vec<Box<dyn Output>>) = capacities
        .map(|capacity| {
            let (written, estimates) = mpsc::channel();
            let probe = Probe {
                capacity,
                written,
                failure,
            };
            (estimates, Box::new(probe) as Box<dyn Output>)
        })
        .into_iter()
        .unzip();
    std::thread::scope(|scope| {
        let outputs = start(scope, &threads, &health, WhenFull::Wait, probes);
        for seq in 1..=1000 {
            if outputs.senders.send_estimate(nothing(seq)) == Err(Disconnected) {
                break;
            }
            sent = seq;
        }
    });
    Outcome {
        result: threads.result(),
        written: written.iter().map(|estimates| estimates.iter().count()).collect(),
        sent,
    }
}

#[test]
fn an_output_that_fails_does_not_stop_the_others_and_is_reported_at_the_end() {
    let outcome = run([3, 1000], || OutputError::Failed("disk: full".into()));
    assert_eq!((outcome.written, outcome.sent), (vec![3, 1000], 1000));
    let failure = outcome.result.unwrap_err();
    assert!(matches!(failure, DaemonError::Output(OutputError::Failed(why)) if why == "disk: full"));
}

#[test]
fn the_end_of_all_readers_ends_the_outputs_without_an_error() {
    let outcome = run([3, 5], || OutputError::ReaderGone);
    assert!(outcome.result.is_ok());
    assert_eq!(outcome.written, [3, 5]);
    assert!(outcome.sent < 1000, "{}", outcome.sent);
}

/// Reports the health records that it gets.
struct HealthProbe(mpsc::Sender<HealthReport>);

impl Output for HealthProbe {
    fn write(&mut self, _: &Estimate) -> Result<(), OutputError> {
        Ok(())
    }

    fn health(&mut self, report: &HealthReport) -> Result<(), OutputError> {
        self.0.send(report.clone()).map_err(|_| OutputError::ReaderGone)
    }
}

#[test]
fn a_change_of_a_device_is_reported_at_once_and_a_counter_is_not() {
    let (health, stop) = (Arc::<Health>::default(), AtomicBool::new(false));
    let threads = ThreadGroup::new(&stop);
    let (to, reports) = mpsc::channel();
    std::thread::scope(|scope| {
        let outputs: Vec<Box<dyn Output>> = vec![Box::new(HealthProbe(to))];
        let _outputs = start(scope, &threads, &health, WhenFull::Wait, outputs);
        let next = || reports.recv_timeout(REPORT_INTERVAL / 2).unwrap();
        assert_eq!(next().camera, SourceState::Off);
        health.estimates.fetch_add(1, Ordering::Relaxed);
        health.camera.set(SourceState::Absent, Some("not connected".into()));
        let report = next();
        assert_eq!((report.camera, report.estimates), (SourceState::Absent, 1));
        assert_eq!(report.problem.as_deref(), Some("camera absent: not connected"));
    });
    assert!(reports.try_recv().is_err());
}

/// Waits at the first estimate until `end` is closed.
struct Slow {
    end: mpsc::Receiver<()>,
    seen: mpsc::Sender<&'static str>,
}

impl Output for Slow {
    fn write(&mut self, _: &Estimate) -> Result<(), OutputError> {
        let _ = self.end.recv();
        self.seen.send("estimate").map_err(|_| OutputError::ReaderGone)
    }

    fn reload(&mut self) {
        let _ = self.seen.send("reload");
    }
}

#[test]
fn estimates_that_an_output_has_not_written_are_known_until_it_ends() {
    const SENT: u64 = 100;
    let (health, stop) = (Arc::<Health>::default(), AtomicBool::new(false));
    let threads = ThreadGroup::new(&stop);
    let ((go, end), (to, seen)) = (mpsc::channel(), mpsc::channel());
    let unwritten = std::thread::scope(|scope| {
        let slow: Vec<Box<dyn Output>> = vec![Box::new(Slow { end, seen: to })];
        let outputs = start(scope, &threads, &health, WhenFull::DropOldest, slow);
        let unwritten = outputs.unwritten();
        for seq in 1..=SENT {
            outputs.senders.send_estimate(nothing(seq)).unwrap();
        }
        let dropped = || health.estimates_dropped.load(Ordering::Relaxed);
        assert!(dropped() > 0);
        let deadline = Instant::now() + Duration::from_secs(60);
        // The first health record may push an estimate out of the queue between the two numbers.
        while dropped() + unwritten.of_running() != SENT {
            assert!(Instant::now() < deadline, "{} {}", dropped(), unwritten.of_running());
            std::thread::yield_now();
        }
        drop(go);
        unwritten
    });
    assert_eq!(unwritten.of_running(), 0);
    assert!(seen.try_iter().count() > 0);
}

#[test]
fn an_estimate_that_waits_for_a_full_queue_is_unwritten() {
    // One is written, the queue is full, and one waits.
    const SENT: u64 = OUTPUT_QUEUE as u64 + 2;
    let (health, stop) = (Arc::<Health>::default(), AtomicBool::new(false));
    let threads = ThreadGroup::new(&stop);
    let ((go, end), (to, _seen)) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        let slow: Vec<Box<dyn Output>> = vec![Box::new(Slow { end, seen: to })];
        let outputs = start(scope, &threads, &health, WhenFull::Wait, slow);
        let (unwritten, senders) = (outputs.unwritten(), outputs.senders());
        scope.spawn(move || (1..=SENT).for_each(|seq| senders.send_estimate(nothing(seq)).unwrap()));
        let deadline = Instant::now() + Duration::from_secs(60);
        // Fewer if a health record has a place in the queue.
        while unwritten.of_running() < SENT - 1 {
            assert!(Instant::now() < deadline, "{}", unwritten.of_running());
            std::thread::yield_now();
        }
        drop(go);
    });
}

#[test]
fn a_full_queue_counts_estimates_only_and_loses_no_reload() {
    const SENT: u64 = 100;
    let (health, stop) = (Arc::<Health>::default(), AtomicBool::new(false));
    let threads = ThreadGroup::new(&stop);
    let ((go, end), (to, seen)) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        let slow: Vec<Box<dyn Output>> = vec![Box::new(Slow { end, seen: to })];
        let outputs = start(scope, &threads, &health, WhenFull::DropOldest, slow);
        outputs.senders.send_reload();
        for seq in 1..=SENT {
            outputs.senders.send_estimate(nothing(seq)).unwrap();
            outputs.senders.send_health(HealthReport::default()).unwrap();
        }
        drop(go);
    });
    let seen: Vec<_> = seen.iter().collect();
    let count = |what: &str| seen.iter().filter(|one| **one == what).count() as u64;
    let dropped = health.estimates_dropped.load(Ordering::Relaxed);
    assert!(dropped > 0);
    assert_eq!((count("estimate") + dropped, count("reload")), (SENT, 1));
}
