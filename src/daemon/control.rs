//! What a reader may ask of the daemon, by way of the output it reads.

use crossbeam_channel::Sender;

/// A request to the `fusion` thread, which answers at its next tick.
#[derive(Debug)]
pub enum Control {
    /// Take the coming seconds as the person's neutral. The answer says whether that began.
    Baseline { answer: Sender<Result<(), String>> },
}

/// Answers a request; whoever asked may have gone since.
pub fn answer(to: &Sender<Result<(), String>>, answer: Result<(), String>) {
    let _ = to.try_send(answer);
}
