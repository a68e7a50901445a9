//! The environment variables that affectd reads. `main` reads them once, and passes each to the layer that uses it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use log::LevelFilter;

use crate::config::{ConfigError, VARIABLE_PREFIX};

const CONFIG: &str = "AFFECTD_CONFIG";
const LOG: &str = "AFFECTD_LOG";
const KERNEL: &str = "AFFECTD_KERNEL";
const FAULT: &str = "AFFECTD_FAULT";
/// `main` also sets it for the new process of a restart.
pub const PAUSED: &str = "AFFECTD_PAUSED";
/// Set by systemd for a unit with `LoadCredential=`.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// Set by systemd for a unit with `StateDirectory=`.
const STATE: &str = "STATE_DIRECTORY";
/// Set by systemd for a unit with `RuntimeDirectory=`.
const RUNTIME: &str = "RUNTIME_DIRECTORY";

/// Set by systemd if standard error is connected to the journal.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// See no-color.org.
const NO_COLOR: &str = "NO_COLOR";

/// The variables that name the locale of characters, most important first.
const LOCALE: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];
const TERM: &str = "TERM";

/// What is logged without `AFFECTD_LOG`.
const DEFAULT_LOG: &str = "info";

/// All that affectd reads from its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `AFFECTD_CONFIG`: the configuration file.
    pub config: Option<PathBuf>,
    /// `AFFECTD_LOG`: levels, as `env_logger` reads them.
    pub log: String,
    /// `AFFECTD_KERNEL`: the kernels to use instead of the best ones.
    pub kernel: Option<String>,
    /// `AFFECTD_FAULT`: the fault to inject. Only a build with the feature `faults` reads it.
    pub fault: Option<String>,
    /// `JOURNAL_STREAM`: the socket of the systemd journal, if the service writes to it.
    pub journal_stream: Option<String>,
    /// `NO_COLOR`: no colours in a terminal.
    pub no_color: bool,
    /// The locale of characters, such as `de_DE.UTF-8`; `None` for that of C.
    pub locale: Option<String>,
    /// `TERM`: the kind of terminal.
    pub terminal: Option<String>,
    /// The folder of this service's credentials.
    pub credentials: Option<PathBuf>,
    /// `AFFECTD_PAUSED`: whether affectd starts paused.
    pub paused: bool,
    /// The folder in which this service keeps its state.
    pub state_directory: Option<PathBuf>,
    /// The folder in which this service keeps the socket of its health record.
    pub runtime_directory: Option<PathBuf>,
    /// All other `AFFECTD_*` variables. Each sets a key of the configuration.
    pub settings: Vec<(String, String)>,
}

impl Environment {
    /// Fails if a variable of affectd is not UTF-8, or if `AFFECTD_LOG` names no level. Other variables may be anything.
    pub fn parse(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Environment, ConfigError> {
        let mut environment = Environment {
            config: None,
            log: DEFAULT_LOG.to_owned(),
            kernel: None,
            fault: None,
            journal_stream: None,
            no_color: false,
            locale: None,
            terminal: None,
            credentials: None,
            paused: false,
            state_directory: None,
            runtime_directory: None,
            settings: Vec::new(),
        };
        let mut locales = [const { None }; LOCALE.len()];
        for (name, value) in variables {
            // Set but empty counts as not set, as usual in a shell.
            if value.is_empty() {
                continue;
            }
            let name = name.to_string_lossy().into_owned();
            match name.as_str() {
                STATE => environment.state_directory = Some(first_folder(&value)),
                RUNTIME => environment.runtime_directory = Some(first_folder(&value)),
                CREDENTIALS => environment.credentials = Some(value.into()),
                JOURNAL_STREAM => environment.journal_stream = value.into_string().ok(),
                NO_COLOR => environment.no_color = true,
                TERM => environment.terminal = value.into_string().ok(),
                CONFIG => environment.config = Some(value.into()),
                name if !name.starts_with(VARIABLE_PREFIX) => {
                    if let Some(rank) = LOCALE.iter().position(|variable| *variable == name) {
                        locales[rank] = value.into_string().ok();
                    }
                }
                _ => environment.set(name, value)?,
            }
        }
        environment.locale = locales.into_iter().flatten().next();
        Ok(environment)
    }

    /// Whether a terminal shows colours, and its user wants them.
    pub fn has_colors(&self) -> bool {
        !self.no_color && !self.is_terminal_dumb()
    }

    /// Whether the terminal knows no escape sequences.
    pub fn is_terminal_dumb(&self) -> bool {
        matches!(self.terminal.as_deref(), None | Some("dumb"))
    }

    fn set(&mut self, name: String, value: OsString) -> Result<(), ConfigError> {
        let Ok(value) = value.into_string() else {
            return Err(invalid(&name, "its value is not valid UTF-8"));
        };
        match name.as_str() {
            LOG => {
                check_levels(&value).map_err(|why| invalid(LOG, &why))?;
                self.log = value;
            }
            PAUSED => {
                self.paused = match value.as_str() {
                    "1" => true,
                    "0" => false,
                    _ => return Err(invalid(PAUSED, "must be 1 or 0")),
                };
            }
            KERNEL => self.kernel = Some(value),
            FAULT if cfg!(feature = "faults") => self.fault = Some(value),
            _ => self.settings.push((name, value)),
        }
        Ok(())
    }
}

/// systemd separates several folders with colons.
fn first_folder(value: &OsStr) -> PathBuf {
    let first = value.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
    OsStr::from_bytes(first).into()
}

fn invalid(name: &str, reason: &str) -> ConfigError {
    ConfigError::Malformed {
        origin: format!("environment variable {name}"),
        reason: reason.to_owned(),
    }
}

/// Checks levels such as `info` or `warn,affectd::capture=debug`. `env_logger` would take an unknown level for the name of a
/// module, and log nothing.
fn check_levels(text: &str) -> Result<(), String> {
    for directive in text.split(',') {
        let level = directive.rsplit('=').next().unwrap_or_default();
        if LevelFilter::from_str(level.trim()).is_err() {
            return Err(format!(
                "\"{level}\" is not a log level (off, error, warn, info, debug, trace)"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Environment::parse(variables).map_err(|e| e.to_string())
    }

    #[test]
    fn configuration_keys_are_told_from_the_other_variables() {
        let environment = parse(&[
            ("HOME", "/"),
            ("AFFECTD_CONFIG", "/etc/x.toml"),
            ("AFFECTD_KERNEL", "tract"),
            ("AFFECTD_LOG", "warn,affectd::capture=debug"),
            ("AFFECTD_FACE_RATE_HZ", "5"),
            ("CREDENTIALS_DIRECTORY", "/run/credentials/affectd.service"),
            ("STATE_DIRECTORY", "/var/lib/affectd:/var/lib/other"),
            ("RUNTIME_DIRECTORY", "/run/affectd"),
            ("AFFECTD_PAUSED", "1"),
        ]);
        let environment = environment.unwrap();
        assert_eq!(environment.config, Some("/etc/x.toml".into()));
        assert_eq!(environment.kernel.as_deref(), Some("tract"));
        assert_eq!(environment.log, "warn,affectd::capture=debug");
        assert_eq!(environment.credentials, Some("/run/credentials/affectd.service".into()));
        assert_eq!(environment.state_directory, Some("/var/lib/affectd".into()));
        assert_eq!(environment.runtime_directory, Some("/run/affectd".into()));
        assert!(environment.paused);
        assert_eq!(environment.settings, [("AFFECTD_FACE_RATE_HZ".into(), "5".into())]);
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let names = [
            "AFFECTD_LOG",
            "AFFECTD_KERNEL",
            "AFFECTD_CONFIG",
            "AFFECTD_MODELS",
            "CREDENTIALS_DIRECTORY",
        ];
        let empty = parse(&names.map(|name| (name, "")));
        assert_eq!(empty, parse(&[]));
    }

    #[test]
    fn whether_affectd_starts_paused_is_1_or_0() {
        assert!(!parse(&[("AFFECTD_PAUSED", "0")]).unwrap().paused);
        let error = parse(&[("AFFECTD_PAUSED", "yes")]).unwrap_err();
        insta::assert_snapshot!(error, @"environment variable AFFECTD_PAUSED: must be 1 or 0: correct or remove it");
    }

    #[test]
    fn an_unknown_log_level_is_rejected() {
        let error = |text| parse(&[("AFFECTD_LOG", text)]).unwrap_err();
        insta::assert_snapshot!(error("verbose"), @r#"environment variable AFFECTD_LOG: "verbose" is not a log level (off, error, warn, info, debug, trace): correct or remove it"#);
        insta::assert_snapshot!(error("info,tract=quiet"), @r#"environment variable AFFECTD_LOG: "quiet" is not a log level (off, error, warn, info, debug, trace): correct or remove it"#);
        insta::assert_snapshot!(error("info,"), @r#"environment variable AFFECTD_LOG: "" is not a log level (off, error, warn, info, debug, trace): correct or remove it"#);
    }

    #[test]
    fn only_variables_of_affectd_must_be_utf_8() {
        let bytes = || OsString::from_vec(vec![b'x', 0xff]);
        assert!(Environment::parse([("LS_COLORS".into(), bytes()), (bytes(), "x".into())]).is_ok());
        let error = Environment::parse([("AFFECTD_MODELS".into(), bytes())]).unwrap_err();
        insta::assert_snapshot!(error, @"environment variable AFFECTD_MODELS: its value is not valid UTF-8: correct or remove it");
    }
}
