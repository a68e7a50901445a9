//! The threads of affectd, and the queues between them.
//!
//! ```text
//! camera ─▶ face ──┐
//!                  ├─▶ fusion ─▶ output-*
//! microphone ──────┘
//! ```
//!
//! When a clip is replayed, full queues wait, so nothing is lost and the same clip gives the same estimates. In real time, full
//! queues drop the oldest items and count them, so no stage falls behind.
//!
//! The main thread starts the others. Then it feeds the systemd watchdog while all of them make progress, and applies a
//! changed configuration on SIGHUP.

mod board_watch;
mod button_watch;
mod callbacks;
mod device_supervisor;
mod error;
mod fault_injection;
mod handover;
mod health_reporter;
mod health_socket;
mod input_feed;
mod lifecycle;
mod load_shedder;
mod off_hours_watch;
mod output_senders;
mod output_thread;
mod output_threads;
mod pipeline;
mod sources;
mod stages;
mod stall_detector;
mod systemd;
mod thread_group;
mod unwritten;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::config::{Config, Pace, Source};
use crate::health::{Health, SourceState};
use crate::output::{HostIdentity, OutputError};
use crate::privacy::{ButtonLine, CaptureLight};
use crate::status::{ModelName, PreparedPage, StatusPage};
use health_socket::HealthSocket;
use lifecycle::{Daemon, Readers, when_full};
use off_hours_watch::OffHoursWatch;
use output_threads::{OutputPlan, OutputThreads};
use pipeline::Pipeline;
use sources::Sources;
use stages::{LoadError, Stages};
use thread_group::ThreadGroup;

pub use callbacks::{Callbacks, ReplayProgress};
pub use error::DaemonError;
pub use fault_injection::Fault;
pub use lifecycle::Signals;

/// Why affectd ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Done,
    /// A reader of an output requested a restart.
    RestartRequested,
}

/// How long the threads may take to end after a stop. Then affectd ends without those that are stuck, for example in a write
/// that nobody reads. MQTT needs 3.2 s, after a stop has reached it through the stages, which takes a period of the estimates. The rest
/// of the five that the documents promise is for noticing the signal.
const STOP_TIMEOUT: Duration = Duration::from_millis(4300);
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs until the source ends, all readers of the outputs are gone, or a signal stops it. `health_socket` is where
/// `affectd health` asks. `leave` ends the process with a result while threads are stuck.
pub fn run(
    config: Config,
    host: &Arc<HostIdentity>,
    signals: &Signals,
    health_socket: Option<&Path>,
    fault: Option<Fault>,
    callbacks: &Callbacks,
    leave: impl FnOnce(Result<Ending, DaemonError>) -> Infallible,
) -> Result<Ending, DaemonError> {
    let started = Instant::now();
    if let Some(fault) = fault {
        fault.at_start();
    }
    let Some((sources, pace)) = Sources::open(&config.source, &signals.stop)? else {
        return Ok(Ending::Done);
    };
    let stages = match Stages::load_until(&signals.stop, &config, sources.kinds(), &mut || {}) {
        Ok(stages) => stages,
        Err(LoadError::Stopped) => return Ok(Ending::Done),
        Err(LoadError::Model(error)) => return Err(error.into()),
        Err(LoadError::Thread(error)) => return Err(error.into()),
    };
    let page = PreparedPage::new(config.status.as_ref(), host, None)?;
    let model = ModelName::default();
    model.set(stages.model.clone());
    let light = match &config.source {
        Source::Clip { .. } => CaptureLight::default(),
        Source::Devices(_) => CaptureLight::open(config.privacy.light.as_deref())?,
    };
    let button_line = config
        .privacy
        .button
        .clone()
        .filter(|_| matches!(config.source, Source::Devices(_)));
    let button = button_line.as_ref().map(ButtonLine::open).transpose()?;
    let mut off_hours = OffHoursWatch::new(config.privacy.off_hours.clone());
    // Before anything is opened.
    off_hours.poll(&signals.pause);
    let health = Arc::new(Health {
        pause: Arc::clone(&signals.pause),
        ..Health::default()
    });
    // The first health report is sent before the threads of the sources run.
    let kinds = sources.kinds();
    if kinds.video {
        health.camera.set(SourceState::Starting, None);
        health.face_rate_hz.set(config.face.rate_hz);
    }
    if kinds.audio {
        health.microphone.set(SourceState::Starting, None);
    }
    let pipeline = Pipeline {
        epoch: Instant::now(),
        pace,
        health: &health,
        stop: &signals.stop,
        restart: AtomicBool::new(false),
        fault,
        pause: &signals.pause,
        light,
        frames: Default::default(),
        audio: Default::default(),
        last_seq: AtomicU64::new(0),
        last_face_id: AtomicU32::new(0),
        preview: Arc::default(),
    };
    let threads = ThreadGroup::new(&signals.stop);
    thread::scope(|scope| {
        let plan = OutputPlan {
            specs: &config.outputs,
            period: config.fusion.period,
            when_full: when_full(pace),
        };
        let outputs = OutputThreads::start(scope, &threads, &health, &plan, &signals.pause, host)?;
        let unwritten = outputs.unwritten();
        let context = outputs.status_context(model.clone(), Arc::clone(&pipeline.preview));
        let live_health = context.live_health.clone();
        let _socket = health_socket.and_then(|path| HealthSocket::start(path, live_health));
        let page = StatusPage::start(page, context)?;
        if let Some(line) = &button_line {
            let (pause, stop) = (&signals.pause, &signals.stop);
            threads.start(scope, "button", move || {
                button_watch::run(line, button, pause, stop);
                Ok(())
            });
        }
        let readers = Readers { outputs, page, model };
        Daemon::start(scope, &pipeline, &threads, readers, config, sources, stages)
            .supervise(signals, off_hours, callbacks);
        if pace == Pace::Realtime {
            // The last output may have ended while the devices still run, or are absent.
            threads.stop();
        }
        let stuck = wait_for_end(&threads, &signals.stop);
        let result = || {
            info!("{health}; took {:.2} s", started.elapsed().as_secs_f32());
            threads.result()?;
            Ok(match pipeline.restart.load(Ordering::Relaxed) {
                true => Ending::RestartRequested,
                false => Ending::Done,
            })
        };
        if !stuck.is_empty() {
            warn!(
                "not ended after {} s and left behind: {}",
                STOP_TIMEOUT.as_secs(),
                stuck.join(", ")
            );
            let lost = unwritten.of_running();
            health.estimates_dropped.fetch_add(lost, Ordering::Relaxed);
            // A service has counted its losses. The result of a replay must be whole.
            if pace == Pace::Replay && lost > 0 {
                threads.record_failure(OutputError::Failed(unwritten_message(&stuck, lost)).into());
            }
            match leave(result()) {}
        }
        result()
    })
}

/// One line for the user.
fn unwritten_message(stuck: &[String], lost: u64) -> String {
    let outputs: Vec<&str> = stuck
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("output-"))
        .collect();
    let estimates = match lost {
        1 => "1 estimate was".to_owned(),
        lost => format!("{lost} estimates were"),
    };
    format!(
        "{}: {estimates} not written: make sure that the outputs are read, and replay the clip again",
        outputs.join(", ")
    )
}

/// Waits for all threads to end. Returns those that have not ended some time after a stop. Without a stop, it waits for as long
/// as the outputs write.
fn wait_for_end(threads: &ThreadGroup, stop: &AtomicBool) -> Vec<String> {
    let mut deadline = None;
    loop {
        let running = threads.wait_timeout(STOP_CHECK_INTERVAL);
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) {
            deadline.get_or_insert(now + STOP_TIMEOUT);
        }
        if running.is_empty() || deadline.is_some_and(|deadline| now >= deadline) {
            return running;
        }
    }
}
