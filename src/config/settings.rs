//! The effective settings: each key with its value and its origin.
//!
//! Four layers, lowest first: defaults, the file, `AFFECTD_*` environment variables, flags. A layer replaces single keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::ConfigError;
use super::origin::Origin;
use super::raw::{KEYS, Kind, RawConfig, flatten, kind_of, nest};
use crate::output::masked_quotes;

/// The file that is read without `--config`, if it exists.
pub const DEFAULT_FILE: &str = "/etc/affectd/affectd.toml";
/// The prefix of the environment variables that set keys.
pub const VARIABLE_PREFIX: &str = "AFFECTD_";

/// The layers above the defaults.
#[derive(Debug, Clone, Default)]
pub struct Layers<'a> {
    /// The file; `None` for [`DEFAULT_FILE`], if it exists.
    pub file: Option<&'a Path>,
    /// `AFFECTD_*` variables that set a key, by their names.
    pub variables: &'a [(String, String)],
    pub flags: Flags,
}

/// Flags that set a key.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub models: Option<PathBuf>,
    pub clip: Option<PathBuf>,
    pub realtime: bool,
    /// Empty if not given.
    pub outputs: Vec<String>,
}

/// The value of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub key: &'static str,
    /// `None` for a key without a default that no layer sets.
    pub value: Option<Value>,
    pub origin: Origin,
}

/// All keys that have a value. Each value has the type of its key, but may be out of range.
#[derive(Debug, Clone)]
pub struct Settings(BTreeMap<String, (Value, Origin)>);

impl Settings {
    /// Reads all layers. Fails if a layer cannot be read, or has an unknown key or a value of the wrong type.
    pub fn read(layers: &Layers) -> Result<Settings, ConfigError> {
        let defaults = Table::try_from(RawConfig::default()).map_err(|e| malformed("defaults", &e.to_string()))?;
        let mut settings = Settings(BTreeMap::new());
        settings.lay(defaults, &Origin::Default);
        let default_file = Path::new(DEFAULT_FILE);
        let file = layers.file.or_else(|| default_file.is_file().then_some(default_file));
        if let Some(path) = file {
            settings.lay(read_file(path)?, &Origin::File(path.to_path_buf()));
        }
        for (name, value) in layers.variables {
            settings.lay(read_variable(name, value)?, &Origin::Environment(name.clone()));
        }
        for (key, flag, value) in layers.flags.values()? {
            settings.0.insert(key.to_owned(), (value, Origin::Flag(flag)));
        }
        Ok(settings)
    }

    fn lay(&mut self, layer: Table, origin: &Origin) {
        let values = flatten(layer).into_iter();
        self.0.extend(values.map(|(key, value)| (key, (value, origin.clone()))));
    }

    /// The values in their raw form.
    pub fn raw(&self) -> Result<RawConfig, ConfigError> {
        let values = self.0.iter().map(|(key, (value, _))| (key.clone(), value.clone()));
        from_table(nest(values)).map_err(|why| malformed("configuration", &why))
    }

    /// Every key, in the order of the file.
    pub fn all(&self) -> impl Iterator<Item = Setting> {
        KEYS.iter().map(|(key, _)| Setting {
            key,
            value: self.0.get(*key).map(|(value, _)| value.clone()),
            origin: self.origin(key),
        })
    }

    /// Where the value of `key` comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.0.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }
}

fn malformed(origin: &str, reason: &str) -> ConfigError {
    ConfigError::Malformed {
        origin: origin.to_owned(),
        // The reason may quote a value.
        reason: masked_quotes(&one_line(reason)),
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn from_table(table: Table) -> Result<RawConfig, String> {
    check_sections(&table)?;
    table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())
}

/// serde would read `face = [5]` as a section with its first key.
fn check_sections(table: &Table) -> Result<(), String> {
    let sections = KEYS.iter().filter_map(|(key, _)| Some(key.split_once('.')?.0));
    for section in sections {
        if table.get(section).is_some_and(|value| !value.is_table()) {
            return Err(format!(
                "{section} is a section: write [{section}] on a line, and its keys below"
            ));
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    let invalid = |e: toml::de::Error| {
        let line = e.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let origin = match line {
            Some(line) => format!("{} line {line}", path.display()),
            None => path.display().to_string(),
        };
        malformed(&origin, e.message())
    };
    // The text is parsed twice: as the raw form, for errors with a line number, and as a table, for the keys that the file sets.
    toml::from_str::<RawConfig>(&text).map_err(invalid)?;
    let table = toml::from_str::<Table>(&text).map_err(invalid)?;
    check_sections(&table).map_err(|reason| malformed(&path.display().to_string(), &reason))?;
    Ok(table)
}

/// `AFFECTD_FACE_RATE_HZ=5` sets `face.rate_hz` to 5.
fn read_variable(name: &str, value: &str) -> Result<Table, ConfigError> {
    let key = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
    let key = key.to_lowercase().replacen('_', ".", 1);
    let text = || Value::String(value.to_owned());
    let parsed = match kind_of(&key) {
        Kind::Text => text(),
        Kind::List => Value::Array(value.split(',').map(|item| Value::String(item.trim().into())).collect()),
        Kind::Plain => toml::from_str::<Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(text),
    };
    let table = nest([(key, parsed)]);
    match from_table(table.clone()) {
        Ok(_) => Ok(table),
        Err(why) => Err(malformed(&format!("environment variable {name}"), &why)),
    }
}

impl Flags {
    /// Key, flag and value of each flag that is given.
    fn values(&self) -> Result<Vec<(&'static str, &'static str, Value)>, ConfigError> {
        let text = |flag: &str, path: &Path| match path.to_str() {
            Some(text) => Ok(Value::String(text.to_owned())),
            None => Err(malformed(&format!("flag {flag}"), "the path is not valid UTF-8")),
        };
        let mut values = Vec::new();
        if let Some(models) = &self.models {
            values.push(("models", "--models", text("--models", models)?));
        }
        if let Some(clip) = &self.clip {
            values.push(("input.clip", "--input", text("--input", clip)?));
        }
        if self.realtime {
            values.push(("input.realtime", "--realtime", Value::Boolean(true)));
        }
        if !self.outputs.is_empty() {
            let specs = self.outputs.iter().cloned().map(Value::String).collect();
            values.push(("output", "--output", Value::Array(specs)));
        }
        Ok(values)
    }
}
