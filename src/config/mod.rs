//! The configuration. It comes from a TOML file. `AFFECTD_*` environment variables override the file, and flags override both.
//!
//! ```text
//! defaults, file, environment, flags ─▶ Settings (value and origin of each key) ─▶ RawConfig (types) ─▶ Config (ranges)
//! ```

mod checked;
mod error;
mod origin;
mod raw;
mod settings;
mod validate;

pub use checked::{Config, DeviceSettings, Pace, PrivacySettings, Source};
pub use error::ConfigError;
pub use origin::Origin;
pub use settings::{DEFAULT_FILE, Flags, Layers, Setting, Settings, VARIABLE_PREFIX};

#[cfg(test)]
mod tests;
