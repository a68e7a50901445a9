//! Entries for `tests/fuzz`: what the monitor makes of a stream of bytes.

use super::plot;
use super::received::{LineSplitter, Received};
use super::session::Session;
use super::source::Decoders;
use crate::output::serial::Wire;

/// What was received, in its `Debug` form, which tests can compare.
pub fn lines<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut splitter = LineSplitter::default();
    shown(chunks.into_iter().flat_map(|chunk| splitter.push(chunk)))
}

/// As [`lines`], from a serial port. The advice to use the other `wire` is left out: its place depends on the chunks.
pub fn port<'a>(wire: Wire, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut decoders = Decoders::default();
    let received = chunks.into_iter().flat_map(|chunk| decoders.push(wire, chunk));
    shown(received.filter(|one| !matches!(one, Received::Status(_))))
}

/// What `affectd monitor --plain` prints at the end of a stream, and the plot that it saves.
pub fn session(stream: &[u8]) -> (String, String) {
    let mut session = Session::new("fuzzing".into(), "");
    for received in LineSplitter::default().push(stream) {
        session.receive(received);
    }
    (session.line(), plot::svg(&session))
}

fn shown(received: impl Iterator<Item = Received>) -> Vec<String> {
    received.map(|one| format!("{one:?}")).collect()
}
