//! The voice encoder: from the log-mel window of one second to an embedding.

use crate::model::{Bundle, GraphName, ModelError, Session};

use super::mel;
use super::observation::{EMBEDDING_LEN, Embedding};

pub struct Encoder {
    session: Session,
}

impl Encoder {
    pub fn load(bundle: &Bundle) -> Result<Encoder, ModelError> {
        let graph = GraphName::VoiceEncoder;
        let spec: mel::Spec = bundle.preprocessing(graph)?;
        if !spec.is_supported() {
            return Err(ModelError::Unusable {
                graph,
                reason: format!("it needs a log-mel spectrogram that affectd does not compute ({spec:?})"),
            });
        }
        let session = Session::load(
            bundle,
            graph,
            &[("log_mel", &[1, 1, mel::BANDS, mel::FRAMES])],
            &[("embedding", &[1, EMBEDDING_LEN, 1, 1])],
        )?;
        Ok(Encoder { session })
    }

    /// `window` is the output of [`mel::LogMel::window`].
    pub fn encode(&mut self, window: &[f32]) -> Result<Embedding, ModelError> {
        self.session.run(&[window], |outputs| {
            let mut embedding = [0.0; EMBEDDING_LEN];
            embedding.copy_from_slice(outputs[0]);
            embedding
        })
    }
}
