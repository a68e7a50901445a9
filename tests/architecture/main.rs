//! The architecture of `src/`: imports point downwards only, and modules beside each other never import in a circle.
//!
//! `cargo test --release --test architecture -- --nocapture` also prints which module imports which.
//!
//! The test reads the source text, so it also sees paths without a `use`, such as `crate::health::count(…)`. Code under
//! `#[cfg(test)]` is ignored: a test may use whatever it needs.

mod graph;
mod imports;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use graph::Sources;

/// The modules of the crate, lowest layer first. A module imports only from layers below its own. Modules of one layer do
/// not import each other.
const LAYERS: &[&[&str]] = &[
    &["privacy", "sync"],
    &[
        "caught_panic",
        "control",
        "health",
        "named_thread",
        "printable",
        "queue",
        "rate_limited_log",
        "retry",
        "secrets",
        "small_file",
        "udev",
    ],
    &["capture", "model"],
    &["face", "voice"],
    &["fusion"],
    &["output"],
    &["status"],
    &["config"],
    &["daemon"],
    &["monitor"],
    &["cli"],
    &["main"],
];

fn sources() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    Sources::new(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

#[test]
fn imports_point_downwards() {
    let sources = sources();
    println!("{}", sources.overview(LAYERS));
    let found = sources.upward_imports(LAYERS);
    assert!(found.is_empty(), "upward imports:\n{}", found.join("\n"));
}

#[test]
fn modules_beside_each_other_do_not_import_in_a_circle() {
    let found: Vec<String> = sources().circles().iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "import circles:\n{}", found.join("\n"));
}

#[test]
fn int8_imports_nothing_of_ours() {
    let sources = sources();
    let found = sources.outward_imports(&["model", "int8"]);
    assert!(
        found.is_empty(),
        "imports from outside of model/int8:\n{}",
        found.join("\n")
    );
    // The operators do not even need the rest of int8, so they compile without tract.
    let found = sources.outward_imports(&["model", "int8", "operators"]);
    assert!(
        found.is_empty(),
        "imports from outside of operators:\n{}",
        found.join("\n")
    );
}

#[test]
fn every_module_has_a_layer() {
    let modules = sources().top_level_modules();
    let listed: Vec<&str> = LAYERS.concat();
    let without: Vec<_> = modules.iter().filter(|m| !listed.contains(&m.as_str())).collect();
    assert!(without.is_empty(), "add {without:?} to LAYERS");
    let gone: Vec<_> = listed.iter().filter(|name| !modules.contains(**name)).collect();
    assert!(gone.is_empty(), "remove {gone:?} from LAYERS");
}

/// The code between backticks in the last column of the table of threats.
fn tests_of_threats(security: &str) -> Vec<&str> {
    let section = security
        .split("## Threats")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next());
    let rows = section
        .expect("a section on threats")
        .lines()
        .filter(|line| line.starts_with("| "));
    rows.skip(2)
        .filter_map(|row| row.rsplit('|').nth(1))
        .flat_map(|tests| tests.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn the_tests_that_the_security_page_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let named = tests_of_threats(&named);
    assert!(named.len() > 20, "{named:?}");
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let missing: Vec<&str> = named
        .into_iter()
        .filter(|name| !text.contains(&format!("fn {name}(")))
        .collect();
    assert!(
        missing.is_empty(),
        "SECURITY.md names tests that do not exist: {missing:?}"
    );
}
