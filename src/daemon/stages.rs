//! Loads the face, voice and fusion stages.

use std::thread;
use std::time::Instant;

use log::info;

use crate::config::Config;
use crate::face::FaceStage;
use crate::fusion::FusionStage;
use crate::model::{Bundle, ModelError};
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
            let face = kinds
                .video
                .then(|| scope.spawn(|| FaceStage::load(&bundle, config.face)));
            let voice = VoiceStage::load(&bundle)?;
            let fusion = FusionStage::load(&bundle, config.fusion)?;
            let face = face
                .map(|loading| loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .transpose()?;
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
