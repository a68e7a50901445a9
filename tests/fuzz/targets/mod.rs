//! What must hold for every input, one function for each parser of bytes from outside.
//!
//! cargo-fuzz calls them, and so does `tests/fuzz/replay.rs` in the ordinary tests. A target panics if a property does not hold.

mod chunks;
mod clips;
mod commands;
mod configuration;
mod jpeg;
mod models;
mod monitor;
mod mqtt;
mod specs;
pub mod wire;

/// A parser, and what must hold for its input.
pub struct Target {
    /// The name of its cargo-fuzz target, and of its folder in `corpus/`.
    pub name: &'static str,
    pub check: fn(&[u8]),
}

const fn target(name: &'static str, check: fn(&[u8])) -> Target {
    Target { name, check }
}

pub const TARGETS: [Target; 13] = [
    target("commands", commands::check),
    target("config", configuration::check),
    target("jpeg", jpeg::check),
    target("manifest", models::check_manifest),
    target("matroska", clips::check_matroska),
    target("mjpeg", clips::check_mjpeg),
    target("monitor", monitor::check),
    target("mqtt", mqtt::check),
    target("mqtt_packets", mqtt::check_packets),
    target("onnx", models::check_onnx),
    target("spec", specs::check),
    target("wav", clips::check_wav),
    target("wire", wire::check),
];

/// The target with this name. Panics if there is none.
pub fn named(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("no target is called {name}"))
}
