//! The face encoder: from a face crop to expression probabilities.

use crate::model::{Bundle, GraphName, ModelError, Session};

use super::crop;
use super::observation::{EXPRESSIONS, Expressions};

impl Expressions {
    /// Softmax.
    fn from_logits(logits: &[f32]) -> Expressions {
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let mut weights = [0.0; EXPRESSIONS.len()];
        for (w, logit) in weights.iter_mut().zip(logits) {
            *w = (logit - largest).exp();
        }
        let total: f32 = weights.iter().sum();
        Expressions(weights.map(|w| w / total))
    }
}

pub struct Encoder {
    session: Session,
}

impl Encoder {
    pub fn load(bundle: &Bundle) -> Result<Encoder, ModelError> {
        let session = Session::load(
            bundle,
            GraphName::FaceEncoder,
            &[("face", &[1, 1, crop::SIDE, crop::SIDE])],
            &[("logits", &[1, EXPRESSIONS.len(), 1, 1])],
        )?;
        Ok(Encoder { session })
    }

    /// `face` is the output of [`crop::Framing::crop`].
    pub fn encode(&mut self, face: &[f32]) -> Result<Expressions, ModelError> {
        self.session
            .run(&[face], |outputs| Expressions::from_logits(outputs[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logits_become_probabilities() {
        let e = Expressions::from_logits(&[1000.0, 1000.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1000.0]);
        assert_eq!(e.0, [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
