//! The outputs: one `output-*` thread for each, behind its own queue, and the `health` thread.
//!
//! All outputs are opened before anything runs, so a wrong setting ends affectd at once. Later, the failure of one output does
//! not affect the others. When all have ended, the daemon ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;

use crate::control::Control;
use crate::health::Health;
use crate::output::{HostIdentity, OutputContext, OutputError, OutputSpec};
use crate::queue::{WhenFull, queue};

use super::health_reporter;
use super::output_senders::{OutputSender, OutputSenders};
use super::output_thread::OpenOutput;
use super::thread_group::ThreadGroup;

/// Capacity of the queue to an output.
const OUTPUT_QUEUE: usize = 16;
/// Capacity of the queue of requests to the fusion stage. People send them, so it rarely holds more than one.
const CONTROL_QUEUE: usize = 4;

/// The running outputs. When this is dropped, and all clones of its senders are, the threads write what is left and end.
pub struct OutputThreads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    threads: &'scope ThreadGroup<'scope>,
    health: &'scope Health,
    senders: OutputSenders,
    /// The number of output threads that have not ended.
    running: Arc<AtomicUsize>,
    context: OutputContext,
    controls: Receiver<Control>,
    /// Its drop ends the `health` thread.
    _health_reporter: Sender<Infallible>,
}

impl<'scope, 'env> OutputThreads<'scope, 'env> {
    /// Opens all outputs, and then starts their threads. `period` is the time between two estimates. Fails, with nothing
    /// started, if an output cannot be opened and waiting would not help.
    pub fn start(
        scope: &'scope Scope<'scope, 'env>,
        threads: &'scope ThreadGroup<'_>,
        health: &'scope Health,
        specs: &[OutputSpec],
        period: Duration,
        when_full: WhenFull,
        host: &Arc<HostIdentity>,
    ) -> Result<Self, OutputError> {
        let (controls, requests) = bounded(CONTROL_QUEUE);
        let context = context(period, when_full, controls, health, host);
        let outputs = open_all(specs, &context)?;
        Ok(OutputThreads::start_opened(
            scope, threads, health, outputs, context, requests,
        ))
    }

    fn start_opened(
        scope: &'scope Scope<'scope, 'env>,
        threads: &'scope ThreadGroup<'_>,
        health: &'scope Health,
        outputs: Vec<OpenOutput>,
        context: OutputContext,
        controls: Receiver<Control>,
    ) -> Self {
        let (health_reporter, end) = bounded(0);
        let started = OutputThreads {
            scope,
            threads,
            health,
            senders: OutputSenders::default(),
            running: Arc::default(),
            context,
            controls,
            _health_reporter: health_reporter,
        };
        let senders = outputs
            .into_iter()
            .map(|output| started.spawn(output, &started.context));
        started.senders.lock().extend(senders);
        let senders = started.senders();
        threads.start(scope, "health", move || {
            health_reporter::run(health, &senders, &end);
            Ok(())
        });
        started
    }

    pub fn senders(&self) -> OutputSenders {
        self.senders.clone()
    }

    /// Requests from the readers of the outputs.
    pub fn controls(&self) -> Receiver<Control> {
        self.controls.clone()
    }

    /// Changes the outputs to `specs`, for estimates `period` apart. Unchanged outputs keep running. If a new one cannot be
    /// opened, the old ones stay.
    pub fn change(&mut self, specs: &[OutputSpec], period: Duration) -> Result<(), OutputError> {
        let context = OutputContext {
            period,
            ..self.context.clone()
        };
        let same_period = period == self.context.period;
        // Locked until the change is complete: an estimate that comes meanwhile waits, and is not lost.
        let mut senders = self.senders.lock();
        let old_specs: Vec<OutputSpec> = senders.iter().map(|sender| sender.spec.clone()).collect();
        let (kept, removed): (Vec<_>, Vec<_>) = old_specs
            .into_iter()
            .partition(|spec| same_period && specs.contains(spec));
        // A port or file that is used with other options must be closed before it can be opened again.
        let (reopened, new): (Vec<_>, Vec<_>) = specs
            .iter()
            .filter(|spec| !kept.contains(spec))
            .partition(|spec| removed.iter().any(|old| old.same_place(spec)));
        let mut opened = open_all(new, &context)?;
        let mut closed = Vec::new();
        for spec in reopened {
            for old in removed.iter().filter(|old| old.same_place(spec)) {
                close(&mut senders, old);
                closed.push(old);
            }
            match OpenOutput::open(spec, &context) {
                Ok(output) => opened.push(output),
                Err(error) => {
                    drop(opened);
                    for old in closed {
                        match OpenOutput::open(old, &self.context) {
                            Ok(output) => senders.push(self.spawn(output, &self.context)),
                            Err(error) => warn!("{error}; this output stays closed after the rejected reload"),
                        }
                    }
                    return Err(error);
                }
            }
        }
        removed.iter().for_each(|old| close(&mut senders, old));
        senders.extend(opened.into_iter().map(|output| self.spawn(output, &context)));
        drop(senders);
        self.context = context;
        Ok(())
    }

    fn spawn(&self, output: OpenOutput, context: &OutputContext) -> OutputSender {
        let (queue, items) = queue(OUTPUT_QUEUE, context.when_full, &context.dropped);
        self.running.fetch_add(1, Ordering::Relaxed);
        let (running, threads, latency) = (Arc::clone(&self.running), self.threads, &self.health.latency);
        let spec = output.spec.clone();
        let name = format!("output-{}", spec.kind());
        let exit = threads.start(self.scope, &name, move || {
            output.run(&items, latency, &running, threads);
            Ok(())
        });
        OutputSender { spec, queue, exit }
    }
}

fn context(
    period: Duration,
    when_full: WhenFull,
    controls: Sender<Control>,
    health: &Health,
    host: &Arc<HostIdentity>,
) -> OutputContext {
    OutputContext {
        period,
        when_full,
        controls,
        dropped: Arc::clone(&health.estimates_dropped),
        lost: Arc::clone(&health.output_outages),
        host: Arc::clone(host),
    }
}

fn open_all<'a>(
    specs: impl IntoIterator<Item = &'a OutputSpec>,
    context: &OutputContext,
) -> Result<Vec<OpenOutput>, OutputError> {
    specs.into_iter().map(|spec| OpenOutput::open(spec, context)).collect()
}

/// Closes the output `spec`, unless that has already been done.
fn close(senders: &mut Vec<OutputSender>, spec: &OutputSpec) {
    if let Some(at) = senders.iter().position(|sender| sender.spec == *spec) {
        senders.remove(at).close();
    }
}

#[cfg(test)]
mod tests {
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
        health: &'scope Health,
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
            WhenFull::Wait,
            controls,
            health,
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
        let (health, stop) = (Health::default(), AtomicBool::new(false));
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
            let outputs = start(scope, &threads, &health, probes);
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
        let (health, stop) = (Health::default(), AtomicBool::new(false));
        let threads = ThreadGroup::new(&stop);
        let (to, reports) = mpsc::channel();
        std::thread::scope(|scope| {
            let _outputs = start(scope, &threads, &health, vec![Box::new(HealthProbe(to))]);
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
}
