//! Requests from the readers of the estimates, over a serial line or MQTT.

use crossbeam_channel::Sender;

/// A request to the fusion stage. An output sends it on behalf of a reader. The stage handles it before its next estimate.
#[derive(Debug)]
pub enum Control {
    /// Calibrate to the person, who is at rest for the next ten seconds. `started` gets a message when the calibration starts.
    StartBaseline { started: Sender<()> },
    /// End in order and start again.
    Restart,
}
