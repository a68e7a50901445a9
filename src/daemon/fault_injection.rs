//! Deliberate faults, to test how affectd recovers from them. Only a build with the feature `faults` has any.

use crate::health::Health;

/// A fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The face stage hangs after 20 frames.
    #[cfg(feature = "faults")]
    HangFace,
}

impl Fault {
    /// The fault with this name, which is the value of `AFFECTD_FAULT`. A build without the feature `faults` has no faults.
    /// There, `AFFECTD_FAULT` is rejected as an unknown configuration variable.
    pub fn from_name(name: &str) -> Option<Fault> {
        match name {
            #[cfg(feature = "faults")]
            "hang-face" => Some(Fault::HangFace),
            _ => {
                log::error!("AFFECTD_FAULT={name}: unknown fault: the known one is hang-face");
                None
            }
        }
    }

    /// Called by the face stage before each frame.
    #[cfg_attr(
        not(feature = "faults"),
        expect(unused_variables, reason = "there is no fault to inject")
    )]
    pub fn before_frame(self, health: &Health) {
        match self {
            #[cfg(feature = "faults")]
            Fault::HangFace => {
                if health.frames_analyzed.load(std::sync::atomic::Ordering::Relaxed) >= 20 {
                    log::error!("face: hangs, because AFFECTD_FAULT=hang-face");
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
    }
}
