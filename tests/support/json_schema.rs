//! Validates JSON against the schemas in `cross/schema`.
//!
//! It implements the keywords of JSON Schema 2020-12 that these schemas use, and panics on any other keyword, so that none is
//! silently ignored. A validator from crates.io would enable features of crates that tract shares, and so build tract again
//! for the tests.

use std::path::Path;

use serde_json::{Map, Value};

pub struct Schema(Value);

impl Schema {
    /// Reads `cross/schema/NAME.schema.json`.
    pub fn read(name: &str) -> Schema {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cross/schema/{name}.schema.json"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let schema: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        Schema(schema)
    }

    /// The properties of the object that the schema describes, and of the objects in it: `face`, `face.id`.
    pub fn property_names(&self) -> Vec<String> {
        fn collect(schema: &Value, prefix: &str, names: &mut Vec<String>) {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                names.push(format!("{prefix}{name}"));
                collect(property, &format!("{prefix}{name}."), names);
            }
        }
        let mut names = Vec::new();
        collect(&self.0, "", &mut names);
        names
    }

    /// Checks `value`. The error contains the place in the value and the violated rule.
    pub fn validate(&self, value: &Value) -> Result<(), String> {
        self.check(object(&self.0), value, "$")
    }

    fn check(&self, schema: &Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
        for (keyword, rule) in schema {
            let valid = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => true,
                "$ref" => {
                    let name = rule.as_str().and_then(|r| r.strip_prefix("#/$defs/"));
                    let name = name.unwrap_or_else(|| panic!("{rule} is not a reference to $defs"));
                    self.check(object(&self.0["$defs"][name]), value, at)?;
                    true
                }
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|t| has_type(value, text(t))),
                    one => has_type(value, text(one)),
                },
                "const" => value == rule,
                "enum" => array(rule).contains(value),
                "minimum" => value.as_f64().is_none_or(|n| n >= number(rule)),
                "maximum" => value.as_f64().is_none_or(|n| n <= number(rule)),
                "format" => {
                    assert_eq!(rule, "date-time");
                    value.as_str().is_none_or(|t| humantime::parse_rfc3339(t).is_ok())
                }
                "minItems" => value.as_array().is_none_or(|a| a.len() as f64 >= number(rule)),
                "maxItems" => value.as_array().is_none_or(|a| a.len() as f64 <= number(rule)),
                "uniqueItems" => {
                    assert_eq!(rule, true);
                    let unique =
                        |items: &Vec<Value>| items.iter().enumerate().all(|(k, item)| !items[..k].contains(item));
                    value.as_array().is_none_or(unique)
                }
                "items" => {
                    for (k, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(object(rule), item, &format!("{at}[{k}]"))?;
                    }
                    true
                }
                "required" => {
                    let has =
                        |object: &Map<String, Value>| array(rule).iter().all(|name| object.contains_key(text(name)));
                    value.as_object().is_none_or(has)
                }
                "properties" => {
                    for (name, property) in object(rule) {
                        if let Some(value) = value.as_object().and_then(|o| o.get(name)) {
                            self.check(object(property), value, &format!("{at}.{name}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = schema.get("properties").and_then(Value::as_object);
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if known.is_none_or(|known| !known.contains_key(name)) {
                            self.check(object(rule), value, &format!("{at}.{name}"))?;
                        }
                    }
                    true
                }
                "propertyNames" => {
                    for name in value.as_object().into_iter().flat_map(Map::keys) {
                        self.check(object(rule), &name.as_str().into(), &format!("the name {at}.{name}"))?;
                    }
                    true
                }
                other => panic!("the keyword {other} is not implemented"),
            };
            if !valid {
                return Err(format!("{at}: {value} violates {keyword}: {rule}"));
            }
        }
        Ok(())
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        other => panic!("the type {other} is unknown"),
    }
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{value} is not an object"))
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is not an array"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}
