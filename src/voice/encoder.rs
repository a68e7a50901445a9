//! What a second of voice carries, as an embedding.

use crate::model::{Bundle, GraphName, ModelError, Session};

use super::mel;

/// Length of an embedding.
pub const EMBEDDING: usize = 64;

pub type Embedding = [f32; EMBEDDING];

pub struct Encoder {
    session: Session,
}

impl Encoder {
    pub fn load(bundle: &Bundle) -> Result<Encoder, ModelError> {
        let graph = GraphName::VoiceEncoder;
        let spec: mel::Spec = bundle.preprocessing(graph)?;
        if !spec.is_met() {
            return Err(ModelError::Unfit {
                graph,
                reason: format!("it was trained on another log-mel spectrogram ({spec:?})"),
            });
        }
        let session = Session::load(
            bundle,
            graph,
            &[("log_mel", &[1, 1, mel::BANDS, mel::FRAMES])],
            &[("embedding", &[1, EMBEDDING, 1, 1])],
        )?;
        Ok(Encoder { session })
    }

    /// `window` is a spectrogram as [`mel::LogMel::window`] makes it.
    pub fn encode(&mut self, window: &[f32]) -> Result<Embedding, ModelError> {
        self.session.run(&[window], |outputs| {
            let mut embedding = [0.0; EMBEDDING];
            embedding.copy_from_slice(outputs[0]);
            embedding
        })
    }
}
