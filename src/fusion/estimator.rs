//! The joint cross-attention network: one window in, valence and arousal out.

use std::time::Duration;

use serde::Deserialize;

use crate::model::{Bundle, GraphName, ModelError, Session};
use crate::voice::EMBEDDING_LEN;

use super::timeline::{FACE_FEATURES, STEPS, Window};

/// What the manifest says of the network's window and of the data it was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Spec {
    steps: usize,
    step_s: f32,
    /// Variance of valence and arousal over the training data.
    prior_variance: [f32; 2],
}

impl Spec {
    pub fn of(bundle: &Bundle) -> Result<Spec, ModelError> {
        let spec: Spec = bundle.preprocessing(GraphName::Fusion)?;
        let sound =
            spec.steps == STEPS && (0.05..=5.0).contains(&spec.step_s) && spec.prior_variance.iter().all(|v| *v > 0.0);
        if !sound {
            return Err(ModelError::Unusable {
                graph: GraphName::Fusion,
                reason: format!("its window is not one affectd can fill ({spec:?})"),
            });
        }
        Ok(spec)
    }

    /// From one step to the next.
    pub fn step(&self) -> Duration {
        Duration::from_millis((self.step_s * 1000.0).round() as u64)
    }
}

/// How somebody seems to feel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affect {
    /// −1 unpleasant … +1 pleasant.
    pub valence: f32,
    /// −1 calm … +1 excited.
    pub arousal: f32,
    /// 0..1: the share of the spread of feelings in the training data that the network thinks it has explained. 0 is as
    /// good as always saying the average.
    pub confidence: f32,
}

pub struct Estimator {
    session: Session,
    spec: Spec,
}

impl Estimator {
    pub fn load(bundle: &Bundle) -> Result<Estimator, ModelError> {
        let spec = Spec::of(bundle)?;
        let session = Session::load(
            bundle,
            GraphName::Fusion,
            &[
                ("face", &[1, FACE_FEATURES, 1, STEPS]),
                ("voice", &[1, EMBEDDING_LEN, 1, STEPS]),
                ("mask", &[1, 2, 1, STEPS]),
            ],
            &[("affect", &[1, 2, 1, 1]), ("log_variance", &[1, 2, 1, 1])],
        )?;
        Ok(Estimator { session, spec })
    }

    /// From one step of the window to the next.
    pub fn step(&self) -> Duration {
        self.spec.step()
    }

    pub fn estimate(&mut self, window: &Window) -> Result<Affect, ModelError> {
        let prior = self.spec.prior_variance;
        let inputs = [&window.face[..], &window.voice, &window.mask];
        self.session.run(&inputs, |outputs| {
            let (affect, log_variance) = (outputs[0], outputs[1]);
            let unexplained = (0..2).map(|k| log_variance[k].exp() / prior[k]).sum::<f32>() / 2.0;
            Affect {
                valence: affect[0].clamp(-1.0, 1.0),
                arousal: affect[1].clamp(-1.0, 1.0),
                confidence: (1.0 - unexplained).clamp(0.0, 1.0),
            }
        })
    }
}
