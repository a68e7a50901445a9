//! The `output-*` threads: one for each output, each behind its own queue.
//!
//! All outputs are opened before anything runs, so that what can never work ends affectd at once. Later the failure of one
//! does not touch the others; when the last one has gone there is nobody left to estimate for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{info, warn};

use crate::fusion::Estimate;
use crate::output::{Output, OutputError, OutputSpec, Service};

use super::thread_group::{ExitSignal, ThreadGroup};
use crate::control::Control;
use crate::health::Latency;
use crate::health::{Health, HealthReport};
use crate::queue::{Gone, QueueReader, QueueWriter, WhenFull, queue};

/// Items on their way to an output.
const AHEAD: usize = 16;
/// From one health record to the next, while nothing happens.
const HEALTH_EVERY: Duration = Duration::from_secs(30);
/// How soon a record follows a change: a device that came or went, a rate lowered or raised.
const CHANGE_SEEN_EVERY: Duration = Duration::from_millis(250);
/// Requests on their way to the `fusion` thread: a person gives them.
const CONTROLS_AHEAD: usize = 4;
/// For an output that is no longer wanted to write what it has.
const LONGEST_FAREWELL: Duration = Duration::from_secs(5);

/// One thing an output gets.
#[derive(Debug, Clone)]
enum Item {
    Estimate(Arc<Estimate>),
    Health(HealthReport),
}

/// Opened outputs, not yet running.
pub struct Outlets {
    outlets: Vec<Outlet>,
    service: Service,
    controls: Receiver<Control>,
}

struct Outlet {
    spec: OutputSpec,
    output: Box<dyn Output>,
}

impl Outlet {
    fn open(spec: &OutputSpec, service: &Service) -> Result<Outlet, OutputError> {
        let output = spec.open(service)?;
        Ok(Outlet {
            spec: spec.clone(),
            output,
        })
    }
}

impl Outlets {
    /// Opens all that `specs` name. What cannot be opened, and would not by waiting, is a failure.
    pub fn open(
        specs: &[OutputSpec],
        period: Duration,
        when_full: WhenFull,
        health: &Health,
    ) -> Result<Outlets, OutputError> {
        let (to_fusion, controls) = bounded(CONTROLS_AHEAD);
        let service = Service {
            period,
            when_full,
            controls: to_fusion,
            dropped: Arc::clone(&health.estimates_dropped),
            lost: Arc::clone(&health.outputs_lost),
        };
        let outlets = specs
            .iter()
            .map(|spec| Outlet::open(spec, &service))
            .collect::<Result<_, _>>()?;
        Ok(Outlets {
            outlets,
            service,
            controls,
        })
    }

    /// Starts a thread for each output, and one that tells them of `health`. They end when what this gives is dropped, and
    /// every clone of its taps.
    pub fn start<'scope, 'env>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        threads: &'scope ThreadGroup<'_>,
        health: &'scope Health,
    ) -> Running<'scope, 'env> {
        let (alive, ended) = bounded(0);
        let running = Running {
            scope,
            threads,
            health,
            taps: Taps::default(),
            alive: Arc::default(),
            service: self.service,
            controls: self.controls,
            _health: alive,
        };
        for outlet in self.outlets {
            let tap = running.start(outlet, &running.service);
            running.taps.lock().push(tap);
        }
        let taps = running.taps.clone();
        threads.start(scope, "health", move || {
            tell_health(health, &taps, &ended);
            Ok(())
        });
        running
    }
}

/// Outputs with their threads.
pub struct Running<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    threads: &'scope ThreadGroup<'scope>,
    health: &'scope Health,
    taps: Taps,
    /// How many threads have not ended.
    alive: Arc<AtomicUsize>,
    service: Service,
    controls: Receiver<Control>,
    /// Its end is that of the `health` thread.
    _health: Sender<()>,
}

impl Running<'_, '_> {
    pub fn taps(&self) -> Taps {
        self.taps.clone()
    }

    /// What readers ask for.
    pub fn controls(&self) -> Receiver<Control> {
        self.controls.clone()
    }

    /// From now on writes to `specs`, for estimates `period` apart. Outputs that stay the same go on undisturbed. If one
    /// cannot be opened all is as before.
    pub fn change(&mut self, specs: &[OutputSpec], period: Duration) -> Result<(), OutputError> {
        let service = Service {
            period,
            ..self.service.clone()
        };
        let same_period = period == self.service.period;
        let kept = |spec: &OutputSpec| same_period && specs.contains(spec);
        // Held to the end: an estimate that comes meanwhile waits, and is not lost between two outputs.
        let mut taps = self.taps.lock();
        let present: Vec<OutputSpec> = taps.iter().map(|tap| tap.spec.clone()).collect();
        let leaving: Vec<OutputSpec> = present.iter().filter(|spec| !kept(spec)).cloned().collect();
        let coming = specs.iter().filter(|spec| !(same_period && present.contains(spec)));
        // A port or file that goes on to be used in another way must be closed before it can be opened.
        let (again, fresh): (Vec<_>, Vec<_>) = coming.partition(|spec| leaving.iter().any(|old| old.same_place(spec)));
        let mut opened = fresh
            .into_iter()
            .map(|spec| Outlet::open(spec, &service))
            .collect::<Result<Vec<_>, _>>()?;
        let mut closed = Vec::new();
        for spec in again {
            for old in leaving.iter().filter(|old| old.same_place(spec)) {
                close(&mut taps, old);
                closed.push(old);
            }
            match Outlet::open(spec, &service) {
                Ok(outlet) => opened.push(outlet),
                Err(failure) => {
                    opened.clear();
                    for old in closed {
                        match Outlet::open(old, &self.service) {
                            Ok(outlet) => taps.push(self.start(outlet, &self.service)),
                            Err(gone) => warn!("{gone}; it was open until now"),
                        }
                    }
                    return Err(failure);
                }
            }
        }
        leaving.iter().for_each(|old| close(&mut taps, old));
        let started: Vec<Tap> = opened.into_iter().map(|outlet| self.start(outlet, &service)).collect();
        taps.extend(started);
        drop(taps);
        self.service = service;
        Ok(())
    }

    fn start(&self, outlet: Outlet, service: &Service) -> Tap {
        let (writer, reader) = queue(AHEAD, service.when_full, &service.dropped);
        self.alive.fetch_add(1, Ordering::Relaxed);
        let (alive, threads, latency) = (Arc::clone(&self.alive), self.threads, &self.health.latency);
        let name = format!("output-{}", outlet.spec.kind());
        let spec = outlet.spec.clone();
        let ended = threads.start(self.scope, &name, move || {
            outlet.run(&reader, latency, &alive, threads);
            Ok(())
        });
        Tap { spec, writer, ended }
    }
}

/// The way to all outputs.
#[derive(Clone, Default)]
pub struct Taps(Arc<Mutex<Vec<Tap>>>);

struct Tap {
    spec: OutputSpec,
    writer: QueueWriter<Item>,
    ended: ExitSignal,
}

impl Taps {
    /// Gives every output `estimate`; an error if all have gone.
    pub fn estimate(&self, estimate: Estimate) -> Result<(), Gone> {
        self.put(&Item::Estimate(Arc::new(estimate)))
    }

    fn put(&self, item: &Item) -> Result<(), Gone> {
        let taps = self.lock();
        let taken = taps.iter().filter(|tap| tap.writer.put(item.clone()).is_ok()).count();
        // There are none at all only while they are changed.
        if taken == 0 && !taps.is_empty() {
            Err(Gone)
        } else {
            Ok(())
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tap>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Lets an output write what it has, and waits for that within reason.
fn close(taps: &mut Vec<Tap>, spec: &OutputSpec) {
    let Some(at) = taps.iter().position(|tap| tap.spec == *spec) else {
        return;
    };
    let Tap { writer, ended, .. } = taps.remove(at);
    drop(writer);
    if !ended.wait_for(LONGEST_FAREWELL) {
        warn!("{spec}: still not closed after {LONGEST_FAREWELL:?}");
    }
}

/// The `health` thread: a record at the start, so that there is always one to answer with, one every 30 s, and one whenever
/// what it says of the devices has changed.
fn tell_health(health: &Health, taps: &Taps, ended: &Receiver<()>) {
    let started = Instant::now();
    let mut told = None;
    loop {
        let condition = health.condition();
        if told
            .as_ref()
            .is_none_or(|(before, at): &(_, Instant)| at.elapsed() >= HEALTH_EVERY || *before != condition)
        {
            if taps.put(&Item::Health(health.report(started.elapsed()))) == Err(Gone) {
                return;
            }
            told = Some((condition, Instant::now()));
        }
        match ended.recv_timeout(CHANGE_SEEN_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Outlet {
    /// One output's thread: writes until there is nothing more, nobody reads, or it cannot go on.
    fn run(mut self, items: &QueueReader<Item>, latency: &Latency, running: &AtomicUsize, threads: &ThreadGroup<'_>) {
        let result = serve(&mut *self.output, items, latency);
        let others = running.fetch_sub(1, Ordering::Relaxed) - 1;
        match result {
            Ok(()) => {}
            Err(OutputError::ReaderGone) => info!("{}: the reader has gone", self.spec),
            Err(error @ OutputError::Failed(_)) => {
                if others > 0 {
                    warn!("{error}; the other outputs continue");
                }
                threads.remember(error.into());
            }
        }
    }
}

fn serve(output: &mut dyn Output, items: &QueueReader<Item>, latency: &Latency) -> Result<(), OutputError> {
    loop {
        let item = match output.poll_interval() {
            None => items.recv().map_err(RecvTimeoutError::from),
            Some(pause) => items.recv_timeout(pause),
        };
        match item {
            Ok(Item::Estimate(estimate)) => {
                output.write(&estimate)?;
                if let Some(captured) = estimate.captured() {
                    latency.record(captured.elapsed());
                }
            }
            Ok(Item::Health(report)) => output.health(&report)?,
            Err(RecvTimeoutError::Timeout) => output.poll()?,
            Err(RecvTimeoutError::Disconnected) => return output.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::DaemonError;
    use crate::health::SourceState;
    use crate::output::estimate::samples::nothing;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    /// Passes on what it gets, until it has had `patience` items.
    struct Probe {
        patience: usize,
        to: mpsc::Sender<u64>,
        then: fn() -> OutputError,
    }

    impl Output for Probe {
        fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
            if self.patience == 0 {
                return Err((self.then)());
            }
            self.patience -= 1;
            self.to.send(estimate.seq).unwrap();
            Ok(())
        }
    }

    /// Gives two outputs ten estimates, or as many as they take.
    fn run(patience: [usize; 2], then: fn() -> OutputError) -> (Result<(), DaemonError>, [usize; 2], u64) {
        let health = Health::default();
        let period = Duration::from_millis(200);
        let mut outlets = Outlets::open(&[], period, WhenFull::Wait, &health).unwrap();
        let received = patience.map(|patience| {
            let (to, from) = mpsc::channel();
            outlets.outlets.push(Outlet {
                spec: "stdout".parse().unwrap(),
                output: Box::new(Probe { patience, to, then }),
            });
            from
        });
        let stop = AtomicBool::new(false);
        let threads = ThreadGroup::new(&stop);
        let mut given = 0;
        std::thread::scope(|scope| {
            let running = outlets.start(scope, &threads, &health);
            for seq in 1..=1000 {
                if running.taps.estimate(nothing(seq)) == Err(Gone) {
                    break;
                }
                given = seq;
            }
        });
        (threads.outcome(), received.map(|from| from.iter().count()), given)
    }

    #[test]
    fn one_that_fails_does_not_stop_the_other_and_is_told_at_the_end() {
        let (outcome, received, given) = run([3, 1000], || OutputError::Failed("disk: full".into()));
        assert_eq!((received, given), ([3, 1000], 1000));
        assert!(matches!(outcome, Err(DaemonError::Output(OutputError::Failed(why))) if why == "disk: full"));
    }

    /// Passes on the health records it gets.
    struct Listener(mpsc::Sender<HealthReport>);

    impl Output for Listener {
        fn write(&mut self, _: &Estimate) -> Result<(), OutputError> {
            Ok(())
        }

        fn health(&mut self, report: &HealthReport) -> Result<(), OutputError> {
            self.0.send(report.clone()).map_err(|_| OutputError::ReaderGone)
        }
    }

    #[test]
    fn a_device_that_goes_is_told_at_once_and_nothing_else_is() {
        let (health, stop) = (Health::default(), AtomicBool::new(false));
        let threads = ThreadGroup::new(&stop);
        let mut outlets = Outlets::open(&[], Duration::from_millis(200), WhenFull::Wait, &health).unwrap();
        let (to, told) = mpsc::channel();
        outlets.outlets.push(Outlet {
            spec: "stdout".parse().unwrap(),
            output: Box::new(Listener(to)),
        });
        std::thread::scope(|scope| {
            let _running = outlets.start(scope, &threads, &health);
            let next = || told.recv_timeout(HEALTH_EVERY / 2).unwrap();
            assert_eq!(next().camera, SourceState::Off);
            health.estimates.fetch_add(1, Ordering::Relaxed);
            health.camera.set(SourceState::Absent, Some("not connected".into()));
            let report = next();
            assert_eq!((report.camera, report.estimates), (SourceState::Absent, 1));
            assert_eq!(report.problem.as_deref(), Some("camera absent: not connected"));
        });
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn when_all_readers_have_gone_nothing_more_is_made_and_that_is_no_failure() {
        let (outcome, received, given) = run([3, 5], || OutputError::ReaderGone);
        assert!(outcome.is_ok());
        assert_eq!(received, [3, 5]);
        assert!(given < 1000, "{given}");
    }
}
