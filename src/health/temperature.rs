//! The processor's temperature.

use std::fs;

/// The temperature in °C of the hottest thermal zone, `None` if the kernel reports none. On the boards that affectd runs on,
/// all zones are parts of one chip.
pub fn temperature_c() -> Option<f32> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?.flatten();
    let read = |zone: fs::DirEntry| {
        let text = fs::read_to_string(zone.path().join("temp")).ok()?;
        let thousandths: f32 = text.trim().parse().ok()?;
        Some(thousandths / 1000.0)
    };
    // A sensor that is switched off reports absurd values.
    zones
        .filter_map(read)
        .filter(|t| (-40.0..150.0).contains(t))
        .max_by(f32::total_cmp)
}
