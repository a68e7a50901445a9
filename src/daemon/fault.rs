//! Faults on purpose, for the bench: only in a build with the feature `faults`.

use crate::health::Health;

/// With `AFFECTD_FAULT=hang-face` the face stage looks at twenty pictures and then never comes back.
#[cfg(feature = "faults")]
pub fn perhaps_hang(health: &Health) {
    use std::sync::atomic::Ordering;
    if health.looks.load(Ordering::Relaxed) >= 20 && std::env::var_os("AFFECTD_FAULT").is_some_and(|f| f == "hang-face")
    {
        log::error!("face: hangs, as AFFECTD_FAULT asks");
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(feature = "faults"))]
pub fn perhaps_hang(_: &Health) {}
