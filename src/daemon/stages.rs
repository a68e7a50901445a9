//! Loads the face, voice and fusion stages.

use std::thread;
use std::time::Instant;

use log::info;

use crate::config::Config;
use crate::face::FaceStage;
use crate::fusion::FusionStage;
use crate::model::{Bundle, ModelError};
use crate::named_thread;
use crate::voice::VoiceStage;

use super::sources::InputKinds;

/// The loaded stages, and the kinds of input that they are for.
pub struct Stages {
    pub kinds: InputKinds,
    /// `None` if there is no video.
    pub face: Option<FaceStage>,
    pub voice: VoiceStage,
    pub fusion: FusionStage,
}

impl Stages {
    /// Loads the stages in parallel, because the start of affectd waits for them.
    pub fn load(config: &Config, kinds: InputKinds) -> Result<Stages, ModelError> {
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
                Ok(Some(loading)) => Some(
                    loading
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
                ),
                Ok(None) => None,
                // Without another thread, the load takes longer.
                Err(_) => Some(load_face()?),
            };
            Ok::<_, ModelError>(Stages {
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
