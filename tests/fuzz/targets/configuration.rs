//! The configuration: what `affectd config` prints is a file with the same settings.

use std::cell::RefCell;
use std::fs;

use affectd::cli::config::to_toml;
use affectd::config::{Config, ConfigError, Flags, Layers, Settings};
use affectd::output::HostIdentity;
use tempfile::NamedTempFile;

thread_local! {
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().expect("a temporary file"));
}

/// Before a zero byte, the input is a file. After it come environment variables, one a line.
pub fn check(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    let variables = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let variables: Vec<(String, String)> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (format!("AFFECTD_{key}"), value.to_owned()))
        .collect();
    let (settings, config) = match load(file, &variables) {
        Ok(loaded) => loaded,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
            return;
        }
    };
    let written = to_toml(&settings);
    // A password is not written.
    if written.contains('…') {
        return;
    }
    let (settings, again) = match load(written.as_bytes(), &[]) {
        Ok(loaded) => loaded,
        Err(error) => panic!("{error}: {written}"),
    };
    assert_eq!(again, config, "{written}");
    assert_eq!(values(&to_toml(&settings)), values(&written));
}

fn load(file: &[u8], variables: &[(String, String)]) -> Result<(Settings, Config), ConfigError> {
    FILE.with_borrow_mut(|temporary| {
        fs::write(temporary.path(), file).expect("the temporary file can be written");
        let layers = Layers {
            file: Some(temporary.path()),
            variables,
            flags: Flags::default(),
        };
        let settings = Settings::read(&layers)?;
        let config = Config::from_settings(&settings, &HostIdentity::default())?;
        Ok((settings, config))
    })
}

/// Without the comments, which name the origin of each value.
fn values(toml: &str) -> Vec<&str> {
    toml.lines()
        .map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value))
        .collect()
}
