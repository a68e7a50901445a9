//! `affectd config`: the effective configuration, with the origin of each value.

use std::fmt::Write;

use toml::Value;

use crate::config::{Setting, Settings};
use crate::printable::{has_hidden, printable, printable_json, printable_toml};
use crate::secrets::{masked, masked_command, masked_name};

/// A configuration file with all keys and their values. A comment names the origin of each value.
pub fn to_toml(settings: &Settings) -> String {
    let mut text = format!(
        "# The effective configuration of affectd {}.\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut current = None;
    for Setting { key, value, origin } in settings.all() {
        let (section, name) = match key.split_once('.') {
            Some((section, name)) => (Some(section), name),
            None => (None, key),
        };
        // Writing into a string cannot fail.
        if section != current {
            let _ = writeln!(text, "\n[{}]", section.unwrap_or_default());
            current = section;
        }
        // A line break in a path would end the comment.
        let origin = origin.to_string();
        let origin = printable(&origin);
        let _ = match value {
            Some(value) => writeln!(text, "{name} = {}  # {origin}", in_toml(&shown(key, value))),
            None => writeln!(text, "# {name}: not set  # {origin}"),
        };
    }
    text
}

/// `{"face.rate_hz": {"value": 10.0, "origin": "default"}, …}`; the value is null if a key is not set.
pub fn to_json(settings: &Settings) -> String {
    let entries = settings.all().map(|Setting { key, value, origin }| {
        let entry = serde_json::json!({ "value": value.map(|value| shown(key, value)), "origin": origin.to_string() });
        (key.to_owned(), entry)
    });
    printable_json(&serde_json::Value::Object(entries.collect()).to_string()) + "\n"
}

/// The value in the notation of TOML, without characters that could control the terminal.
fn in_toml(value: &Value) -> String {
    match value {
        Value::String(text) if has_hidden(text) => printable_toml(text),
        Value::Array(items) => format!("[{}]", items.iter().map(in_toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Without passwords, which are in output specs, addresses and commands. A path that only looks like one stays as it is.
fn shown(key: &str, value: Value) -> Value {
    match value {
        Value::String(text) if text.starts_with("command:") => Value::String(masked_command(&text)),
        Value::String(text) if key == "output" || text.contains("://") => Value::String(masked(&text)),
        Value::String(text) if key.ends_with("device") => Value::String(masked_name(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| shown(key, item)).collect()),
        other => other,
    }
}
