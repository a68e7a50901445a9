//! What a reader may ask of the daemon, by way of the output it reads.

use crossbeam_channel::Sender;

/// A request to the `fusion` thread, which answers at its next tick.
#[derive(Debug)]
pub enum Control {
    /// Take the coming ten seconds for the person's rest. The answer comes when that begins.
    Baseline { begun: Sender<()> },
}
