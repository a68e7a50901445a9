//! The outputs: one `output-*` thread for each, behind its own queue, and the `health` thread.
//!
//! All outputs are opened before anything runs, so a wrong setting ends affectd at once. Later, the failure of one output does
//! not affect the others. When all have ended, the daemon ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;

use crate::control::Control;
use crate::face::FramePreview;
use crate::health::{Health, LiveHealth};
use crate::output::{Backlog, HostIdentity, OutputContext, OutputError, OutputSpec};
use crate::privacy::PauseSwitch;
use crate::queue::{WhenFull, queue};
use crate::status::{ModelName, StatusContext};

use super::handover::{Handover, QueueEnd};
use super::health_reporter;
use super::output_senders::{OutputSender, OutputSenders};
use super::output_thread::{OpenOutput, OutputInput, OutputItem, ReloadRequest};
use super::thread_group::{ExitSignal, ThreadGroup};
use super::unwritten::UnwrittenEstimates;

/// Capacity of the queue to an output.
const OUTPUT_QUEUE: usize = 16;
/// Capacity of the queue of requests to the fusion stage. People send them, so it rarely holds more than one.
const CONTROL_QUEUE: usize = 4;
/// How long a closed output may take to write what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a reload that waits for outputs reports that it does.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Which outputs to start, and what they get.
pub struct OutputPlan<'a> {
    pub specs: &'a [OutputSpec],
    /// The time between two estimates.
    pub period: Duration,
    pub when_full: WhenFull,
}

/// The running outputs. When this is dropped, and all clones of its senders are, the threads write what is left and end.
pub struct OutputThreads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    threads: &'scope ThreadGroup<'scope>,
    health: &'scope Arc<Health>,
    senders: OutputSenders,
    /// The number of output threads that have not ended.
    running: Arc<AtomicUsize>,
    context: OutputContext,
    controls: Receiver<Control>,
    unwritten: UnwrittenEstimates,
    /// Its drop ends the `health` thread.
    _health_reporter: Sender<Infallible>,
}

impl<'scope, 'env> OutputThreads<'scope, 'env> {
    /// Opens all outputs, and then starts their threads. Fails, with nothing started, if an output cannot be opened and waiting
    /// would not help.
    pub fn start(
        scope: &'scope Scope<'scope, 'env>,
        threads: &'scope ThreadGroup<'_>,
        health: &'scope Arc<Health>,
        plan: &OutputPlan,
        pause: &Arc<PauseSwitch>,
        host: &Arc<HostIdentity>,
    ) -> Result<Self, OutputError> {
        let (controls, requests) = bounded(CONTROL_QUEUE);
        let context = context(plan.period, plan.when_full, controls, health, pause, host);
        let outputs = open_all(plan.specs, &context)?;
        Ok(OutputThreads::start_opened(
            scope, threads, health, outputs, context, requests,
        ))
    }

    fn start_opened(
        scope: &'scope Scope<'scope, 'env>,
        threads: &'scope ThreadGroup<'_>,
        health: &'scope Arc<Health>,
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
            unwritten: UnwrittenEstimates::default(),
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

    pub fn host(&self) -> Arc<HostIdentity> {
        Arc::clone(&self.context.host)
    }

    pub fn senders(&self) -> OutputSenders {
        self.senders.clone()
    }

    /// It keeps none of the outputs running.
    pub fn unwritten(&self) -> UnwrittenEstimates {
        self.unwritten.clone()
    }

    /// What the status page needs.
    pub fn status_context(&self, model: ModelName, image: Arc<FramePreview>) -> StatusContext {
        StatusContext {
            feed: self.senders.page.clone(),
            controls: self.context.controls.clone(),
            health: Arc::clone(self.health),
            live_health: self.context.health.clone(),
            pause: Arc::clone(&self.context.pause),
            host: Arc::clone(&self.context.host),
            outputs: self.senders.probe(),
            model,
            image,
            period: self.context.period,
        }
    }

    /// Requests from the readers of the outputs.
    pub fn controls(&self) -> Receiver<Control> {
        self.controls.clone()
    }

    /// Changes the outputs to `specs`, for estimates `period` apart. Unchanged outputs keep running. If a new one cannot be
    /// opened, the old ones stay. No estimate waits for an output that opens or closes slowly. `progress` is called several
    /// times a second until the change is complete.
    pub fn change(
        &mut self,
        specs: &[OutputSpec],
        period: Duration,
        progress: &mut dyn FnMut(),
    ) -> Result<(), OutputError> {
        let context = OutputContext {
            period,
            ..self.context.clone()
        };
        let same_period = period == self.context.period;
        let old_specs: Vec<OutputSpec> = self.senders.lock().iter().map(|sender| sender.spec.clone()).collect();
        let (kept, removed): (Vec<_>, Vec<_>) = old_specs
            .into_iter()
            .partition(|spec| same_period && specs.contains(spec));
        // A port or file that is used with other options must be closed before it can be opened again.
        let (reopened, new): (Vec<_>, Vec<_>) = specs
            .iter()
            .filter(|spec| !kept.contains(spec))
            .partition(|spec| removed.iter().any(|old| old.conflicts_with(spec)));
        let opening: Vec<Opening> = new
            .into_iter()
            .map(|spec| self.start_opening(spec, &context, Vec::new()))
            .collect();
        let mut opened = Vec::new();
        for Opening { sender, result } in opening {
            self.wait_until_open(&result, progress)?;
            opened.push(sender);
        }
        let (replaced, closed): (Vec<_>, Vec<_>) = removed
            .into_iter()
            .partition(|old| reopened.iter().any(|spec| old.conflicts_with(spec)));
        if let Err(error) = self.replace(&replaced, &reopened, &context, progress) {
            // Back to the old outputs.
            let old: Vec<&OutputSpec> = replaced.iter().collect();
            let new: Vec<OutputSpec> = reopened.into_iter().cloned().collect();
            if let Err(error) = self.replace(&new, &old, &self.context, progress) {
                warn!("{error}; this output stays closed after the rejected reload");
            }
            return Err(error);
        }
        // Changed at once, so that each estimate goes to the old outputs or to the new ones.
        let mut senders = self.senders.lock();
        let closing: Vec<OutputSender> = senders.extract_if(.., |sender| closed.contains(&sender.spec)).collect();
        senders.extend(opened);
        drop(senders);
        self.context = context;
        for OutputSender {
            spec,
            queue,
            exit,
            handover,
            ..
        } in closing
        {
            handover.announce(QueueEnd::Removed);
            drop(queue);
            if !self.wait_for_exit(&exit, progress) && !self.threads.is_stopping() {
                warn!("{spec}: not closed after {} s", CLOSE_TIMEOUT.as_secs());
            }
        }
        Ok(())
    }

    /// Opens `new` in the place of those of `old` that use the same port, file or broker. Estimates that come before a new
    /// output is open wait in its queue. The error is that of the first output that cannot be opened.
    fn replace(
        &self,
        old: &[OutputSpec],
        new: &[&OutputSpec],
        context: &OutputContext,
        progress: &mut dyn FnMut(),
    ) -> Result<(), OutputError> {
        let mut senders = self.senders.lock();
        let mut results = Vec::new();
        for spec in new {
            let replaced: Vec<OutputSender> = senders
                .extract_if(.., |sender| {
                    old.contains(&sender.spec) && sender.spec.conflicts_with(spec)
                })
                .collect();
            let previous = replaced.into_iter().map(Predecessor::of).collect();
            let Opening { sender, result } = self.start_opening(spec, context, previous);
            senders.push(sender);
            results.push(result);
        }
        drop(senders);
        let mut first = Ok(());
        for result in &results {
            first = first.and(self.wait_until_open(result, progress));
        }
        first
    }

    /// Starts the thread of an output, which waits for the `previous` outputs in the same place to end, and then opens it.
    fn start_opening(&self, spec: &OutputSpec, context: &OutputContext, previous: Vec<Predecessor>) -> Opening {
        let (opened, result) = bounded(1);
        let (spec_to_open, context_to_open) = (spec.clone(), context.clone());
        let handover = Handover::default();
        let to_next = handover.clone();
        let sender = self.start_thread(spec, context, handover, move || {
            if !previous.iter().all(|one| one.exit.wait_timeout(CLOSE_TIMEOUT)) {
                let seconds = CLOSE_TIMEOUT.as_secs();
                warn!("{spec_to_open}: the output with the old options is not closed after {seconds} s");
            }
            let backlog = Backlog(previous.iter().flat_map(|one| one.handover.take().0).collect());
            let (output, outcome) = match OpenOutput::open(&spec_to_open, &context_to_open) {
                Ok(mut output) => {
                    output.output.take_over(backlog);
                    (Some(output), Ok(()))
                }
                Err(error) => {
                    // For the old output, which is opened again.
                    to_next.leave(backlog);
                    (None, Err(error))
                }
            };
            // The reload waits for this.
            let _ = opened.send(outcome);
            output
        });
        Opening { sender, result }
    }

    /// Fails if affectd is told to stop meanwhile: it has to end in time.
    fn wait_until_open(
        &self,
        result: &Receiver<Result<(), OutputError>>,
        progress: &mut dyn FnMut(),
    ) -> Result<(), OutputError> {
        loop {
            match result.recv_timeout(PROGRESS_INTERVAL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if self.threads.is_stopping() => {
                    return Err(OutputError::Failed("interrupted, because affectd stops".into()));
                }
                Err(RecvTimeoutError::Timeout) => progress(),
                // The thread could not start or has panicked, which ends affectd with its own error.
                Err(RecvTimeoutError::Disconnected) => return Err(OutputError::ReaderGone),
            }
        }
    }

    /// Waits for at most [`CLOSE_TIMEOUT`], and not when affectd is told to stop. Returns whether the thread has ended.
    fn wait_for_exit(&self, exit: &ExitSignal, progress: &mut dyn FnMut()) -> bool {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while Instant::now() < deadline && !self.threads.is_stopping() {
            if exit.wait_timeout(PROGRESS_INTERVAL) {
                return true;
            }
            progress();
        }
        exit.has_come()
    }

    fn spawn(&self, output: OpenOutput, context: &OutputContext) -> OutputSender {
        let spec = output.spec.clone();
        self.start_thread(&spec, context, Handover::default(), move || Some(output))
    }

    /// Starts a thread that runs the output that `open` returns.
    fn start_thread(
        &self,
        spec: &OutputSpec,
        context: &OutputContext,
        handover: Handover,
        open: impl FnOnce() -> Option<OpenOutput> + Send + 'scope,
    ) -> OutputSender {
        let (queue, items) = queue(OUTPUT_QUEUE, context.when_full, &context.dropped);
        let reload = ReloadRequest::default();
        let input = OutputInput {
            items,
            reload: reload.clone(),
        };
        self.running.fetch_add(1, Ordering::Relaxed);
        let (running, threads, latency) = (Arc::clone(&self.running), self.threads, &self.health.latency);
        let name = format!("output-{}", spec.kind());
        let of_thread = handover.clone();
        let (unwritten, running_output) = self.unwritten.add();
        let exit = threads.start(self.scope, &name, move || {
            let _running_output = running_output;
            match open() {
                Some(output) => output.run(&input, latency, &running, threads, &of_thread),
                None => {
                    running.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        OutputSender {
            spec: spec.clone(),
            queue: queue.count_only(OutputItem::is_estimate),
            reload,
            exit,
            handover,
            unwritten,
        }
    }
}

/// An output that a reload replaces. Its queue has ended.
struct Predecessor {
    exit: ExitSignal,
    handover: Handover,
}

impl Predecessor {
    fn of(sender: OutputSender) -> Predecessor {
        let OutputSender { exit, handover, .. } = sender;
        handover.announce(QueueEnd::Replaced);
        Predecessor { exit, handover }
    }
}

/// An output whose thread opens it.
struct Opening {
    sender: OutputSender,
    result: Receiver<Result<(), OutputError>>,
}

fn context(
    period: Duration,
    when_full: WhenFull,
    controls: Sender<Control>,
    health: &Arc<Health>,
    pause: &Arc<PauseSwitch>,
    host: &Arc<HostIdentity>,
) -> OutputContext {
    OutputContext {
        period,
        when_full,
        controls,
        dropped: Arc::clone(&health.estimates_dropped),
        lost: Arc::clone(&health.output_outages),
        health: LiveHealth::of(Arc::clone(health)),
        pause: Arc::clone(pause),
        host: Arc::clone(host),
    }
}

fn open_all<'a>(
    specs: impl IntoIterator<Item = &'a OutputSpec>,
    context: &OutputContext,
) -> Result<Vec<OpenOutput>, OutputError> {
    specs.into_iter().map(|spec| OpenOutput::open(spec, context)).collect()
}

#[cfg(test)]
mod tests;
