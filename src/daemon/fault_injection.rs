//! Deliberate faults, to test how affectd recovers from them. Only a build with the feature `faults` has any.

use crate::health::Health;

/// A fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The face stage hangs after 20 frames.
    #[cfg(feature = "faults")]
    HangFace,
    /// The face stage panics at its first frame.
    #[cfg(feature = "faults")]
    PanicFace,
    /// The main thread panics.
    #[cfg(feature = "faults")]
    PanicMain,
}

impl Fault {
    /// The fault with this name, which is the value of `AFFECTD_FAULT`. A build without the feature `faults` has no faults.
    /// There, `AFFECTD_FAULT` is rejected as an unknown configuration variable.
    pub fn from_name(name: &str) -> Option<Fault> {
        match name {
            #[cfg(feature = "faults")]
            "hang-face" => Some(Fault::HangFace),
            #[cfg(feature = "faults")]
            "panic-face" => Some(Fault::PanicFace),
            #[cfg(feature = "faults")]
            "panic-main" => Some(Fault::PanicMain),
            _ => {
                log::error!("AFFECTD_FAULT={name}: unknown fault: use hang-face, panic-face or panic-main");
                None
            }
        }
    }

    /// Called on the main thread at the start.
    pub fn at_start(self) {
        match self {
            #[cfg(feature = "faults")]
            Fault::PanicMain => panic!("AFFECTD_FAULT=panic-main"),
            #[cfg(feature = "faults")]
            Fault::HangFace | Fault::PanicFace => {}
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
            Fault::PanicMain => {}
            #[cfg(feature = "faults")]
            Fault::PanicFace => panic!("AFFECTD_FAULT=panic-face"),
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
