//! Configuration, as it reaches the binary.

use super::{affectd, demo, file};

#[test]
fn a_file_sets_what_flags_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[input]\nclip = {:?}\n[estimate]\nrate_hz = 2.5\n", demo());
    let config = file(&folder, "affectd.toml", config.as_bytes());
    let run = affectd().args(["run", "--config"]).arg(config).output().unwrap();
    assert!(run.status.success());
    let lines = String::from_utf8(run.stdout).unwrap().lines().count();
    assert!((20..=26).contains(&lines), "{lines} lines at 2.5 a second");
}

#[test]
fn a_mistyped_key_ends_it_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(&folder, "affectd.toml", b"[face]\nrte_hz = 5\n");
    let run = affectd().args(["run", "--config"]).arg(config).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    let error = String::from_utf8(run.stderr).unwrap();
    assert!(error.contains("affectd.toml line 2: unknown field `rte_hz`"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_mistyped_variable_ends_it_too() {
    let run = affectd()
        .args(["check"])
        .env("AFFECTD_FACE_RTE_HZ", "5")
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    let error = String::from_utf8(run.stderr).unwrap();
    assert!(error.contains("environment variable AFFECTD_FACE_RTE_HZ"), "{error}");
}
