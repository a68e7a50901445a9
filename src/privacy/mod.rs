//! Whether the camera and the microphone may be open.

mod record;
mod switch;

pub use switch::{PauseError, PauseSwitch};
