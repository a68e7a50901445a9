//! `affectd forget`: deletes what a device has left on the brokers.

use std::fmt::Write;

use super::error::CommandError;
use crate::config::Config;
use crate::output::mqtt::{DeviceName, Mqtt};
use crate::output::{HostIdentity, OutputSpec};
use crate::printable::printable;

/// Deletes it from the broker of each MQTT output. Returns a line for each deleted topic.
pub fn forget(config: &Config, device: &DeviceName, host: &HostIdentity) -> Result<String, CommandError> {
    let mut text = String::new();
    let mut brokers = 0;
    for output in &config.outputs {
        let OutputSpec::Mqtt(address) = output else { continue };
        brokers += 1;
        let topics = Mqtt::forget(address, device, host)?;
        if topics.is_empty() {
            let _ = writeln!(text, "{address}: {} has left nothing", device.as_str());
        }
        for topic in topics {
            let _ = writeln!(text, "{}", printable(&format!("{address}: deleted {topic}")));
        }
    }
    match brokers {
        0 => Err(CommandError::NoBroker),
        _ => Ok(text),
    }
}
