//! What the face stage makes of a camera's frames, for a person who aims the camera.

use std::time::Duration;

use super::aim::Aim;
use crate::capture::{Luma, VideoFrame};
use crate::config::Config;
use crate::face::upright::missing_turn;
use crate::face::{FaceStage, FrameOutcome};
use crate::model::{Bundle, ModelError};

/// The time between two tests for a face that is not upright.
const UPRIGHT_INTERVAL: Duration = Duration::from_secs(2);

/// A camera, as the face stage sees it.
pub struct CameraView<'a> {
    bundle: &'a Bundle,
    config: &'a Config,
    stage: FaceStage,
    /// The newest frame that was analysed.
    image: Option<Luma>,
    /// When a face that is not upright was last looked for, and the setting that makes it upright.
    upright: Option<(Duration, Option<u32>)>,
}

/// The result of one frame.
pub enum Sight {
    Skipped,
    Undecodable,
    Seen(Aim),
}

impl CameraView<'_> {
    pub fn new<'a>(bundle: &'a Bundle, config: &'a Config) -> Result<CameraView<'a>, ModelError> {
        Ok(CameraView {
            bundle,
            config,
            stage: FaceStage::load(bundle, config.face)?,
            image: None,
            upright: None,
        })
    }

    pub fn see(&mut self, frame: VideoFrame) -> Result<Sight, ModelError> {
        // The stage keeps no image.
        let payload = frame.payload.clone();
        match self.stage.process(frame)? {
            FrameOutcome::NotDue => return Ok(Sight::Skipped),
            FrameOutcome::Undecodable(_) => return Ok(Sight::Undecodable),
            FrameOutcome::Face(_) | FrameOutcome::NoFace => {}
        }
        let Ok(image) = payload.into_luma() else {
            return Ok(Sight::Undecodable);
        };
        let image = self.config.face.orientation.apply(image);
        let aim = Aim::of(&image, &self.stage);
        self.image = Some(image);
        Ok(Sight::Seen(aim))
    }

    /// The value of `camera.rotate` that makes the face in the newest frame upright; `None` if it is, or if there is none.
    pub fn missing_rotation(&self) -> Result<Option<u32>, ModelError> {
        let Some(image) = &self.image else { return Ok(None) };
        let turn = missing_turn(self.bundle, self.config.face.min_score, image)?;
        Ok(turn.map(|turn| turn.after(self.config.face.orientation.rotation).degrees()))
    }

    /// The same, tested now and then. `at` is the time of the newest frame.
    pub fn recent_missing_rotation(&mut self, at: Duration) -> Result<Option<u32>, ModelError> {
        match self.upright {
            Some((tested, rotate)) if at.saturating_sub(tested) < UPRIGHT_INTERVAL => Ok(rotate),
            _ => {
                let rotate = self.missing_rotation()?;
                self.upright = Some((at, rotate));
                Ok(rotate)
            }
        }
    }
}
