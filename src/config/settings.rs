//! The effective settings: each key with its value and its origin.
//!
//! Four layers, lowest first: defaults, the file, `AFFECTD_*` environment variables, flags. A layer replaces single keys.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::ConfigError;
use super::origin::Origin;
use super::raw::{KEYS, Kind, RawConfig, flatten, kind_of, nest};
use crate::secrets::masked_quotes;
use crate::small_file;

/// The file that is read without `--config`, if it exists.
pub const DEFAULT_FILE: &str = "/etc/affectd/affectd.toml";
/// The flag that names a clip.
const CLIP_FLAG: &str = "--input";
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

impl Layers<'_> {
    /// The file that is read, if there is one.
    pub fn path(&self) -> Option<&Path> {
        let default_file = Path::new(DEFAULT_FILE);
        self.file.or_else(|| default_file.is_file().then_some(default_file))
    }
}

/// Flags that set a key.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub models: Option<PathBuf>,
    pub camera: Option<String>,
    pub microphone: Option<String>,
    pub rotate: Option<u32>,
    pub clip: Option<PathBuf>,
    pub realtime: bool,
    pub status: Option<String>,
    /// Empty if not given.
    pub outputs: Vec<OsString>,
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
pub struct Settings {
    values: BTreeMap<String, (Value, Origin)>,
    /// The paths in them may be any bytes, which a TOML value cannot hold.
    flags: Flags,
}

impl Settings {
    /// Reads all layers. Fails if a layer cannot be read, or has an unknown key or a value of the wrong type.
    pub fn read(layers: &Layers) -> Result<Settings, ConfigError> {
        let defaults = Table::try_from(RawConfig::default()).map_err(|e| malformed("defaults", &e.to_string()))?;
        let mut settings = Settings {
            values: BTreeMap::new(),
            flags: layers.flags.clone(),
        };
        settings.lay(defaults, &Origin::Default);
        if let Some(path) = layers.path() {
            settings.lay(read_file(path)?, &Origin::File(path.to_path_buf()));
        }
        for (name, value) in layers.variables {
            settings.lay(read_variable(name, value)?, &Origin::Environment(name.clone()));
        }
        for (key, flag, value) in layers.flags.values() {
            settings.values.insert(key.to_owned(), (value, Origin::Flag(flag)));
        }
        settings.show_clip();
        Ok(settings)
    }

    /// With a clip on the command line, the outputs in the file are not meant: they belong to the service, and the user wants to
    /// see the estimates.
    fn show_clip(&mut self) {
        if self.flags.clip.is_some() && matches!(self.origin("output"), Origin::File(_)) {
            let stdout = Value::Array(vec![Value::String("stdout".into())]);
            self.values.insert("output".into(), (stdout, Origin::Flag(CLIP_FLAG)));
        }
    }

    fn lay(&mut self, layer: Table, origin: &Origin) {
        let values = flatten(layer).into_iter();
        self.values
            .extend(values.map(|(key, value)| (key, (value, origin.clone()))));
    }

    /// The values in their raw form.
    pub fn raw(&self) -> Result<RawConfig, ConfigError> {
        let values = self.values.iter().map(|(key, (value, _))| (key.clone(), value.clone()));
        let mut raw = from_table(nest(values)).map_err(|why| malformed("configuration", &why))?;
        let Flags { models, clip, .. } = self.flags.clone();
        raw.models = models.or(raw.models);
        raw.input.clip = clip.or(raw.input.clip);
        Ok(raw)
    }

    /// The output specs, of which those in `raw` have lost what is not UTF-8.
    pub fn output_specs(&self, raw: &RawConfig) -> Vec<OsString> {
        match self.flags.outputs.is_empty() {
            true => raw.output.iter().map(OsString::from).collect(),
            false => self.flags.outputs.clone(),
        }
    }

    /// Every key, in the order of the file.
    pub fn all(&self) -> impl Iterator<Item = Setting> {
        KEYS.iter().map(|(key, _)| Setting {
            key,
            value: self.values.get(*key).map(|(value, _)| value.clone()),
            origin: self.origin(key),
        })
    }

    /// Where the value of `key` comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.values
            .get(key)
            .map_or(Origin::Default, |(_, origin)| origin.clone())
    }
}

fn malformed(origin: &str, reason: &str) -> ConfigError {
    ConfigError::Malformed {
        origin: origin.to_owned(),
        // The reason may quote a value.
        reason: in_plain_words(&masked_quotes(&one_line(reason))),
    }
}

/// serde's message about a value of the wrong type, without the names of its types and without the value, which may be a
/// password.
fn in_plain_words(message: &str) -> String {
    let mismatch = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|mismatch| mismatch.rsplit_once(", expected "));
    let Some((found, expected)) = mismatch else {
        return message.to_owned();
    };
    let expected = match expected {
        "a sequence" => "a list, for example [\"stdout\"]",
        "a string" | "path string" | "string or table" => "a text in quotes",
        "u32" | "u64" | "i64" => "a whole number",
        "f64" | "floating point" => "a number",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "a section",
        other => other,
    };
    let quoted = || found.split('`').nth(1);
    let found = match found {
        text if text.starts_with("string") => "a text",
        "map" => "a section or a date",
        "sequence" => "a list",
        other => quoted().unwrap_or(other),
    };
    format!("must be {expected}, not {found}")
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

/// The text of a file, without a byte order mark. The error names the encoding of a file that is not UTF-8.
fn text_of(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.starts_with(b"\xff\xfe\0\0") || bytes.starts_with(b"\0\0\xfe\xff") {
        return Err("UTF-32");
    }
    let has_utf_16_mark = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    if has_utf_16_mark || bytes.iter().take(2).any(|byte| *byte == 0) {
        return Err("UTF-16");
    }
    let text = str::from_utf8(bytes).map_err(|_| "ISO-8859-1")?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// A longer file is no configuration.
const MAX_CONFIG_BYTES: usize = 1 << 20;

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let bytes = small_file::read(path, MAX_CONFIG_BYTES).map_err(|e| ConfigError::Unreadable {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    let text = text_of(&bytes).map_err(|encoding| ConfigError::NotUtf8 {
        path: path.to_path_buf(),
        encoding,
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
    toml::from_str::<RawConfig>(text).map_err(invalid)?;
    let table = toml::from_str::<Table>(text).map_err(invalid)?;
    check_sections(&table).map_err(|reason| malformed(&path.display().to_string(), &reason))?;
    Ok(table)
}

/// Splits a list of output specs at its commas. A comma inside a path is followed by something else than a spec.
fn specs(list: &str) -> Vec<String> {
    let begins_spec = |text: &str| {
        let word: String = text.trim_start().chars().take_while(char::is_ascii_lowercase).collect();
        let rest = &text.trim_start()[word.len()..];
        let is_kind = ["stdout", "serial", "file", "mqtt", "mqtts"].contains(&word.as_str());
        (is_kind && (rest.trim().is_empty() || rest.starts_with('?')))
            || (!word.is_empty() && (rest.starts_with(':') || rest.starts_with("//")))
    };
    let mut specs: Vec<String> = Vec::new();
    for part in list.split(',') {
        match specs.last_mut() {
            Some(spec) if has_path(spec) && !begins_spec(part) => spec.extend([",", part]),
            _ => specs.push(part.into()),
        }
    }
    specs.iter().map(|spec| spec.trim().to_owned()).collect()
}

/// Whether a spec has a path, in which a comma may stand.
fn has_path(spec: &str) -> bool {
    let spec = spec.trim_start();
    (spec.starts_with("file:") || spec.starts_with("serial:")) && !spec.contains('?')
}

/// `AFFECTD_FACE_RATE_HZ=5` sets `face.rate_hz` to 5.
fn read_variable(name: &str, value: &str) -> Result<Table, ConfigError> {
    let key = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
    let key = key.to_lowercase().replacen('_', ".", 1);
    let text = || Value::String(value.to_owned());
    let parsed = match kind_of(&key) {
        Kind::Text => text(),
        Kind::List => Value::Array(specs(value).into_iter().map(Value::String).collect()),
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
    fn values(&self) -> Vec<(&'static str, &'static str, Value)> {
        let text = |text: &OsStr| Value::String(text.to_string_lossy().into_owned());
        let mut values = Vec::new();
        if let Some(models) = &self.models {
            values.push(("models", "--models", text(models.as_os_str())));
        }
        for (key, flag, device) in [
            ("camera.device", "--camera", &self.camera),
            ("microphone.device", "--microphone", &self.microphone),
        ] {
            if let Some(device) = device {
                values.push((key, flag, Value::String(device.clone())));
            }
        }
        if let Some(degrees) = self.rotate {
            values.push(("camera.rotate", "--rotate", Value::Integer(degrees.into())));
        }
        if let Some(clip) = &self.clip {
            values.push(("input.clip", CLIP_FLAG, text(clip.as_os_str())));
        }
        if self.realtime {
            values.push(("input.realtime", "--realtime", Value::Boolean(true)));
        }
        if let Some(address) = &self.status {
            values.push(("status.listen", "--status", Value::String(address.clone())));
        }
        if !self.outputs.is_empty() {
            let specs = self.outputs.iter().map(|spec| text(spec)).collect();
            values.push(("output", "--output", Value::Array(specs)));
        }
        values
    }
}
