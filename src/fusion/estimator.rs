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
    /// Variance of the targets of valence and arousal.
    prior_variance: [f32; 2],
    /// Weights of the claimed log variance of valence and of arousal, see [`Claim`].
    variance_weights: [[f32; CLAIM_FEATURES]; 2],
}

/// Numbers of an estimate that its claimed variance depends on.
const CLAIM_FEATURES: usize = 10;
/// Limits of the network's own and of the claimed log variance.
const LOG_VARIANCE: (f32, f32) = (-6.0, 1.0);

impl Spec {
    pub fn of(bundle: &Bundle) -> Result<Spec, ModelError> {
        let spec: Spec = bundle.preprocessing(GraphName::Fusion)?;
        let valid = spec.steps == STEPS
            && (0.05..=5.0).contains(&spec.step_s)
            && spec.prior_variance.iter().all(|v| *v > 0.0 && v.is_finite())
            && spec.variance_weights.iter().flatten().all(|w| w.is_finite());
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

    /// Runs the network. Confidence is 1 − mean(claimed variance / prior variance) over valence and arousal.
    pub fn estimate(&mut self, window: &Window) -> Result<Affect, ModelError> {
        let spec = self.spec;
        let inputs = [&window.face[..], &window.voice, &window.mask];
        self.session.run(&inputs, |outputs| {
            let [valence, arousal] = [outputs[0][0], outputs[0][1]].map(|value| value.clamp(-1.0, 1.0));
            let claim = Claim {
                valence,
                arousal,
                log_variance: [outputs[1][0], outputs[1][1]],
                shares: window.shares(),
            };
            let claimed = claim.variance(&spec.variance_weights);
            let unexplained = (claimed[0] / spec.prior_variance[0] + claimed[1] / spec.prior_variance[1]) / 2.0;
            Affect {
                valence,
                arousal,
                confidence: (1.0 - unexplained).clamp(0.0, 1.0),
            }
        })
    }
}

/// The variance that affectd claims for an estimate.
///
/// A network knows its training data too well: its own variances say little about people whom it never saw. So the log variance of
/// each dimension is a linear function of ten numbers of the estimate. Its weights were fitted to the errors on speakers that were
/// left out of the training (`models/training/metrics/claimed_variance.py`).
struct Claim {
    valence: f32,
    arousal: f32,
    /// The network's own.
    log_variance: [f32; 2],
    /// The shares of the window's steps with a face and with a voice.
    shares: [f32; 2],
}

impl Claim {
    fn variance(&self, weights: &[[f32; CLAIM_FEATURES]; 2]) -> [f32; 2] {
        let (low, high) = LOG_VARIANCE;
        let [own_v, own_a] = self.log_variance.map(|l| l.clamp(low, high));
        let (v, a) = (self.valence, self.arousal);
        let features = [
            1.0,
            own_v,
            own_a,
            v,
            a,
            v * v,
            a * a,
            v * a,
            self.shares[0],
            self.shares[1],
        ];
        weights.map(|row| {
            let log: f32 = row.iter().zip(features).map(|(w, x)| w * x).sum();
            log.clamp(low, high).exp()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claimed_variance_is_a_log_linear_function_of_the_estimate() {
        let claim = Claim {
            valence: 0.5,
            arousal: -0.25,
            log_variance: [-9.0, -2.0],
            shares: [0.5, 1.0],
        };
        let mut weights = [[0.0; CLAIM_FEATURES]; 2];
        // The network's own log variance of −9 counts as −6.
        weights[0] = [-1.0, 0.25, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0];
        weights[1] = [0.0, 0.0, 0.5, 1.0, 2.0, 0.0, 0.0, 4.0, 1.0, -1.0];
        let [valence, arousal] = claim.variance(&weights);
        assert!((valence - (-1.0f32 - 1.5 + 0.5).exp()).abs() < 1e-6);
        assert!((arousal - (-1.0f32 + 0.5 - 0.5 - 0.5 + 0.5 - 1.0).exp()).abs() < 1e-6);
    }

    #[test]
    fn an_absurd_claim_is_limited() {
        let claim = Claim {
            valence: 0.0,
            arousal: 0.0,
            log_variance: [0.0; 2],
            shares: [0.0; 2],
        };
        let weights = [[100.0; CLAIM_FEATURES], [-100.0; CLAIM_FEATURES]];
        assert_eq!(claim.variance(&weights), [LOG_VARIANCE.1.exp(), LOG_VARIANCE.0.exp()]);
    }
}
