//! The joint cross-attention network (Praveen et al. 2022, arXiv 2203.14779): from one window to valence and arousal.

use std::time::Duration;

use serde::Deserialize;

use crate::model::{Bundle, GraphName, ModelError, Session};
use crate::voice::EMBEDDING_LEN;

use super::timeline::{FACE_FEATURES, STEPS, Window};

/// The network's window and its training data, from the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Spec {
    steps: usize,
    /// Seconds per step.
    step_s: f32,
    /// Variance of valence and arousal over the training data.
    prior_variance: [f32; 2],
}

impl Spec {
    pub fn of(bundle: &Bundle) -> Result<Spec, ModelError> {
        let spec: Spec = bundle.preprocessing(GraphName::Fusion)?;
        let valid =
            spec.steps == STEPS && (0.05..=5.0).contains(&spec.step_s) && spec.prior_variance.iter().all(|v| *v > 0.0);
        if !valid {
            return Err(ModelError::Unusable {
                graph: GraphName::Fusion,
                reason: format!("its window is not supported ({spec:?})"),
            });
        }
        Ok(spec)
    }

    /// The duration of one step.
    pub fn step(&self) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`Spec::of` accepts 0.05 to 5 seconds only"
        )]
        Duration::from_millis((self.step_s * 1000.0).round() as u64)
    }
}

/// How a person appears to others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affect {
    /// −1 unpleasant … +1 pleasant.
    pub valence: f32,
    /// −1 calm … +1 excited.
    pub arousal: f32,
    /// 0..1: the share of the training data's variance that the network expects to explain. With 0, the estimate is no better
    /// than the training data's mean.
    pub confidence: f32,
}

impl Affect {
    /// Neutral, of which nothing is known.
    pub const NEUTRAL: Affect = Affect {
        valence: 0.0,
        arousal: 0.0,
        confidence: 0.0,
    };
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

    /// The duration of one step of the window.
    pub fn step(&self) -> Duration {
        self.spec.step()
    }

    /// Runs the network. Confidence is 1 − mean(exp(log variance) / prior variance) over valence and arousal.
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
