//! Whether the camera and the microphone may be open, and the light that shows that they are.

mod board_clock;
mod button;
mod light;
mod off_hours;
mod record;
mod switch;
mod time_zone;

pub use board_clock::is_set_by_battery_clock;
pub use button::{Button, ButtonError, ButtonLine};
pub use light::{CaptureLight, LightError};
pub use off_hours::OffHours;
pub use switch::{Closed, PauseError, PauseReason, PauseSwitch};
pub use time_zone::missing_time_zone;
