//! Why a configuration is rejected.

use std::path::PathBuf;

use super::origin::Origin;

/// Each text is one line: the thing, the reason, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read ({reason}): check the path given with --config or AFFECTD_CONFIG", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error(
        "{path}: is not UTF-8, but probably {encoding}: convert it with iconv -f {encoding} -t UTF-8 {path} >NEW, and use the \
         new file",
        path = .path.display()
    )]
    NotUtf8 { path: PathBuf, encoding: &'static str },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{origin}: {reason}: correct or remove it")]
    Malformed { origin: String, reason: String },
    #[error("{key} = {value} ({origin}): must be from {min} to {max}")]
    OutOfRange {
        key: &'static str,
        value: f64,
        origin: Origin,
        min: f64,
        max: f64,
    },
    #[error("{key} = {value} ({origin}): {reason}")]
    Invalid {
        key: &'static str,
        value: String,
        origin: Origin,
        reason: String,
    },
    /// An output spec. It is shown without passwords.
    #[error("output = \"{spec}\": {reason}")]
    Output { spec: String, reason: String },
}
