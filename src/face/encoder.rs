//! The face encoder: from a face crop to its appearance.

use crate::model::{Bundle, GraphName, ModelError, Session};

use super::crop;
use super::observation::{Appearance, EXPRESSIONS, Expressions};

/// The encoder's scores: two sets of logits, then valence and arousal.
const SCORES: usize = 2 * EXPRESSIONS.len() + 2;

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

impl Appearance {
    /// `scores` are [`SCORES`] numbers.
    fn from_scores(scores: &[f32]) -> Appearance {
        let (votes, rest) = scores.split_at(EXPRESSIONS.len());
        let (shown, rated) = rest.split_at(EXPRESSIONS.len());
        Appearance {
            votes: Expressions::from_logits(votes),
            shown: Expressions::from_logits(shown),
            valence: rated[0],
            arousal: rated[1],
        }
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
            &[("scores", &[1, SCORES, 1, 1])],
        )?;
        Ok(Encoder { session })
    }

    /// `face` is the output of [`crop::Framing::crop`].
    pub fn encode(&mut self, face: &[f32]) -> Result<Appearance, ModelError> {
        self.session.run(&[face], |outputs| Appearance::from_scores(outputs[0]))
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

    #[test]
    fn the_reported_expression_is_the_mean_of_both_opinions() {
        let mut scores = [0.0; SCORES];
        scores[0] = 1000.0; // votes: neutral
        scores[8 + 4] = 1000.0; // shown: anger
        (scores[16], scores[17]) = (-0.25, 0.5);
        let appearance = Appearance::from_scores(&scores);
        assert_eq!(appearance.expressions().0, [0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!((appearance.valence, appearance.arousal), (-0.25, 0.5));
    }

    #[test]
    fn contempt_is_on_top_when_one_opinion_is_sure_of_it() {
        let mut scores = [-50.0; SCORES];
        scores[0] = 0.0; // votes: neutral
        (scores[8], scores[8 + 7]) = (0.2f32.ln(), 0.8f32.ln()); // shown: neutral, contempt
        let reported = Appearance::from_scores(&scores).expressions().0;
        assert!((reported[0] - 0.6 / 1.4).abs() < 1e-6, "{reported:?}");
        assert!((reported[7] - 0.8 / 1.4).abs() < 1e-6, "{reported:?}");
    }
}
