//! Prints the software bill of materials of affectd (CycloneDX 1.5), for `cross/package.sh`:
//!
//! ```text
//! sbom TRIPLE SECONDS
//! ```
//!
//! It lists the crates that are linked into the program for TRIPLE, Rust's standard library, and the embedded models. SECONDS
//! since 1970 is its time.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

const USAGE: &str = "usage: sbom TRIPLE SECONDS";

fn main() -> Result<(), Box<dyn Error>> {
    let [triple, seconds] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| USAGE)?;
    let time = UNIX_EPOCH + Duration::from_secs(seconds.parse()?);
    let mut crates = linked_crates(&triple)?;
    let own = crates
        .iter()
        .position(|one| one.name == "affectd")
        .ok_or("cargo tree does not list affectd")?;
    let own = crates.remove(own);
    let checksums = checksums()?;
    let mut components = Vec::new();
    for one in &crates {
        let key = (one.name.clone(), one.version.clone());
        let checksum = checksums
            .get(&key)
            .ok_or_else(|| format!("Cargo.lock has no checksum of {key:?}"))?;
        components.push(json!({
            "type": "library",
            "bom-ref": one.purl(),
            "name": one.name,
            "version": one.version,
            "hashes": [{ "alg": "SHA-256", "content": checksum }],
            "licenses": one.licenses(),
            "purl": one.purl(),
        }));
    }
    components.push(json!({
        "type": "framework",
        "name": "Rust standard library",
        "version": rust_version()?,
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    }));
    components.extend(models()?);
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": humantime::format_rfc3339_seconds(time).to_string(),
            "component": {
                "type": "application",
                "bom-ref": own.purl(),
                "name": own.name,
                "version": own.version,
                "licenses": own.licenses(),
                "purl": own.purl(),
            },
        },
        "components": components,
    });
    println!("{bom:#}");
    Ok(())
}

struct Crate {
    name: String,
    version: String,
    licence: String,
}

impl Crate {
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn licenses(&self) -> Value {
        // Old crates separate licences by a slash.
        json!([{ "expression": self.licence.replace('/', " OR ") }])
    }
}

/// affectd and the crates that are linked into it: no build scripts, and no macros, which run in the compiler.
fn linked_crates(triple: &str) -> Result<Vec<Crate>, Box<dyn Error>> {
    let tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal,no-proc-macro",
            "--target",
            triple,
        ])
        .args([
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}|{l}",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()?;
    if !tree.status.success() {
        return Err(String::from_utf8_lossy(&tree.stderr).into());
    }
    let mut crates = BTreeMap::new();
    for line in String::from_utf8(tree.stdout)?.lines() {
        let parts = line.split_once('|').and_then(|(package, licence)| {
            let mut words = package.split(' ');
            Some((words.next()?, words.next()?.strip_prefix('v')?, licence))
        });
        let (name, version, licence) = parts.ok_or_else(|| format!("unexpected line of cargo tree: {line}"))?;
        crates.insert((name.to_owned(), version.to_owned()), licence.to_owned());
    }
    let named = crates
        .into_iter()
        .map(|((name, version), licence)| Crate { name, version, licence });
    Ok(named.collect())
}

/// The SHA-256 of each crate's archive, by name and version.
fn checksums() -> Result<BTreeMap<(String, String), String>, Box<dyn Error>> {
    let lock: toml::Table = read("Cargo.lock")?.parse()?;
    let packages = lock
        .get("package")
        .and_then(|packages| packages.as_array())
        .ok_or("Cargo.lock has no packages")?;
    let entry = |package: &toml::Value| {
        let text = |key| package.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        Some(((text("name")?, text("version")?), text("checksum")?))
    };
    Ok(packages.iter().filter_map(entry).collect())
}

fn models() -> Result<Vec<Value>, Box<dyn Error>> {
    let manifest: Value = serde_json::from_str(&read("models/manifest.json")?)?;
    let graphs = manifest["graphs"].as_object().ok_or("manifest.json has no graphs")?;
    let component = |(name, graph): (&String, &Value)| {
        json!({
            "type": "machine-learning-model",
            "name": format!("{} {name}", manifest["name"].as_str().unwrap_or_default()),
            "version": graph["version"],
            "hashes": [{ "alg": "SHA-256", "content": graph["sha256"] }],
            "licenses": [{ "license": { "name": graph["licence"] } }],
        })
    };
    Ok(graphs.iter().map(component).collect())
}

fn rust_version() -> Result<String, Box<dyn Error>> {
    let rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .arg("-vV")
        .output()?;
    let text = String::from_utf8(rustc.stdout)?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.ok_or("rustc does not tell its version")?.to_owned())
}

fn read(name: &str) -> Result<String, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}
