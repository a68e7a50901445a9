//! Entries for `tests/fuzz`: what the monitor makes of a stream of bytes.

use super::decoder::StreamDecoder;
use super::lines::LineSplitter;
use super::plot;
use super::received::Received;
use super::session::Session;

/// What was received, in its `Debug` form, which tests can compare.
pub fn lines<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut splitter = LineSplitter::default();
    shown(chunks.into_iter().flat_map(|chunk| splitter.push(chunk)))
}

/// The messages in lines or frames. Reports of noise are left out, because they depend on how the bytes are divided.
pub fn stream<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut decoder = StreamDecoder::default();
    let received = chunks.into_iter().flat_map(|chunk| decoder.push(chunk));
    shown(received.filter(|one| *one != Received::Noise))
}

/// What `affectd monitor --plain` prints at the end of a stream, and the plot that it saves.
pub fn session(stream: &[u8]) -> (String, String) {
    let mut session = Session::new("fuzzing".into(), "");
    for received in StreamDecoder::default().push(stream) {
        session.receive(received);
    }
    (session.line(), plot::svg(&session))
}

fn shown(received: impl Iterator<Item = Received>) -> Vec<String> {
    received.map(|one| format!("{one:?}")).collect()
}
