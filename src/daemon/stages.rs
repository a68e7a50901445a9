//! Loads the face, voice and fusion stages.

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use log::info;

use crate::config::Config;
use crate::face::FaceStage;
use crate::fusion::FusionStage;
use crate::model::{Bundle, ModelError};
use crate::named_thread::{self, ThreadRefused};
use crate::voice::VoiceStage;

use super::sources::InputKinds;

/// How soon a stop during a load is noticed.
const LOAD_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The loaded stages, and the kinds of input that they are for.
pub struct Stages {
    /// The name and version of the models.
    pub model: String,
    pub kinds: InputKinds,
    /// `None` if there is no video.
    pub face: Option<FaceStage>,
    pub voice: VoiceStage,
    pub fusion: FusionStage,
}

/// Why stages are not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Thread(#[from] ThreadRefused),
    #[error("interrupted, because affectd stops")]
    Stopped,
}

impl Stages {
    /// Loads the stages, or returns as soon as `stop` is set. `progress` is called several times a second.
    pub fn load_until(
        stop: &AtomicBool,
        config: &Config,
        kinds: InputKinds,
        progress: &mut dyn FnMut(),
    ) -> Result<Stages, LoadError> {
        let config = config.clone();
        let loaded = run_until(stop, "load", move || Stages::load(&config, kinds), progress)?;
        Ok(loaded.ok_or(LoadError::Stopped)??)
    }

    /// Loads the stages in parallel, because the start of affectd waits for them.
    fn load(config: &Config, kinds: InputKinds) -> Result<Stages, ModelError> {
        let started = Instant::now();
        let bundle = Bundle::open(config.models.as_deref(), config.kernel)?;
        let stages = thread::scope(|scope| {
            let load_face = || FaceStage::load(&bundle, config.face);
            let loading = match kinds.video {
                true => named_thread::spawn_scoped(scope, "load-face", load_face).map(Some),
                false => Ok(None),
            };
            let voice = VoiceStage::load(&bundle)?;
            let fusion = FusionStage::load(&bundle, config.fusion)?;
            let face = match loading {
                Ok(Some(loading)) => Some(loading.join().unwrap_or_else(|panic| panic::resume_unwind(panic))?),
                Ok(None) => None,
                // Without another thread, the load takes longer.
                Err(_) => Some(load_face()?),
            };
            Ok::<_, ModelError>(Stages {
                model: format!("{} {}", bundle.manifest().name, bundle.manifest().version),
                kinds,
                face,
                voice,
                fusion,
            })
        })?;
        info!(
            "models: {} {}, {}, loaded in {} ms",
            bundle.manifest().name,
            bundle.manifest().version,
            bundle.location(),
            started.elapsed().as_millis()
        );
        Ok(stages)
    }
}

/// Runs `work` on a thread of its own. Returns `None` as soon as `stop` is set: the thread is then left behind, and ends with the
/// process.
fn run_until<T: Send + 'static>(
    stop: &AtomicBool,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
    progress: &mut dyn FnMut(),
) -> Result<Option<T>, ThreadRefused> {
    let (ended, at_end) = mpsc::channel::<()>();
    let working = named_thread::spawn(name, move || {
        // Dropped at the end, after a panic as well.
        let _ended = ended;
        work()
    })?;
    while at_end.recv_timeout(LOAD_CHECK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        progress();
    }
    Ok(Some(working.join().unwrap_or_else(|panic| panic::resume_unwind(panic))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_does_not_wait_for_work_that_goes_on() {
        let stop = AtomicBool::new(false);
        let (end, waits) = mpsc::channel::<()>();
        let mut calls = 0;
        let mut progress = || {
            calls += 1;
            stop.store(calls == 3, Ordering::Relaxed);
        };
        let result = run_until(&stop, "load", move || waits.recv(), &mut progress);
        assert!(matches!(result, Ok(None)));
        // The work was still going on.
        assert!(end.send(()).is_ok());
        assert_eq!(calls, 3);
    }

    #[test]
    fn work_that_ends_gives_its_result() {
        let stop = AtomicBool::new(false);
        assert!(matches!(run_until(&stop, "load", || 7, &mut || {}), Ok(Some(7))));
    }
}
