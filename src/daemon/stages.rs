//! The stages of the model, loaded.

use std::thread;
use std::time::Instant;

use log::info;

use crate::config::Config;
use crate::face::FaceStage;
use crate::fusion::FusionStage;
use crate::model::{Bundle, ModelError};

/// What turns pictures and sound into estimates.
pub struct Stages {
    /// `None` where there are no pictures.
    pub face: Option<FaceStage>,
    pub fusion: FusionStage,
}

impl Stages {
    /// Loads them side by side: they are what a start waits for.
    pub fn load(config: &Config, with_face: bool) -> Result<Stages, ModelError> {
        let started = Instant::now();
        let bundle = Bundle::open(config.models.as_deref())?;
        let stages = thread::scope(|scope| {
            let face = with_face.then(|| scope.spawn(|| FaceStage::load(&bundle, config.face)));
            let fusion = FusionStage::load(&bundle, config.fusion)?;
            let face = face
                .map(|loading| loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .transpose()?;
            Ok::<_, ModelError>(Stages { face, fusion })
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
