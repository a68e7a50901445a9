//! Requests from those who read the estimates, for example over a serial line.

use crossbeam_channel::Sender;

/// A request to the fusion stage, which carries it out before its next estimate. An output sends it on behalf of a reader.
#[derive(Debug)]
pub enum Control {
    /// Measure the person's resting face during the next ten seconds. `started` gets a message when that begins.
    StartBaseline { started: Sender<()> },
}
