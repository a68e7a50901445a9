//! Model bundles: where they are found, and the errors for a damaged one.

use std::path::Path;

use super::{Replay, affectd, demo, models};

/// A copy of the shipped models that a test may damage.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(models()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".int8.onnx") || name == "manifest.json" {
            std::fs::copy(entry.path(), folder.path().join(name)).unwrap();
        }
    }
    folder
}

fn run_with(folder: &Path) -> Replay {
    let run = affectd()
        .args(["run", "--models"])
        .arg(folder)
        .arg("--input")
        .arg(demo())
        .output()
        .unwrap();
    Replay::from(run)
}

#[test]
fn a_copy_of_the_models_works_in_any_folder() {
    let folder = copy();
    let replay = run_with(folder.path());
    assert_eq!(replay.code, Some(0), "{}", replay.log);
}

#[test]
fn a_copied_binary_works_without_any_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("affectd");
    // By another process: a process that another test starts would inherit the open copy, which then could not be run.
    let copied = std::process::Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_affectd"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command
            .env_clear()
            .env("AFFECTD_CONFIG", "/dev/null")
            .current_dir(folder.path());
        command.args(arguments).output().unwrap()
    };
    let replay = Replay::from(run(&["run", "--input", demo().to_str().unwrap()]));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    assert!(
        replay.log.contains(", embedded in this program, loaded in "),
        "{}",
        replay.log
    );
    assert!(replay.count(&["face", "voice"]) > 0);
    let bench = run(&["bench", "--iterations", "1"]);
    assert!(bench.status.success());
    let (table, log) = (
        String::from_utf8_lossy(&bench.stdout),
        String::from_utf8_lossy(&bench.stderr),
    );
    match Path::new("/usr/share/affectd/demo.mkv").exists() {
        true => assert!(table.contains("pipeline on "), "{table}"),
        false => assert!(
            log.contains(
                "bench: the pipeline is not measured: demo.mkv is not installed: give a clip with --input CLIP"
            ),
            "{log}"
        ),
    }
    let bench = run(&["bench", "--iterations", "1", "--input", demo().to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&bench.stdout).contains("pipeline on "));
    let card = String::from_utf8(run(&["model"]).stdout).unwrap();
    assert!(card.starts_with("affectd-av "), "{card}");
    assert!(
        card.lines().next().unwrap().ends_with(", embedded in this program"),
        "{card}"
    );
}

#[test]
fn a_given_folder_replaces_the_embedded_models() {
    let folder = copy();
    for arguments in [
        vec!["model", "--models", folder.path().to_str().unwrap()],
        vec!["model"],
    ] {
        let card = affectd()
            .args(arguments)
            .env("AFFECTD_MODELS", folder.path())
            .output()
            .unwrap();
        let card = String::from_utf8(card.stdout).unwrap();
        let expected = format!(", in {}", folder.path().display());
        assert!(card.lines().next().unwrap().ends_with(&expected), "{card}");
    }
}

#[test]
fn a_missing_graph_is_named() {
    let folder = copy();
    std::fs::remove_file(folder.path().join("fusion.int8.onnx")).unwrap();
    let replay = run_with(folder.path());
    assert_eq!(replay.code, Some(4));
    insta::assert_snapshot!(replay.error(folder.path()), @"affectd: fusion.int8.onnx: cannot be read (No such file or directory (os error 2)): restore the file from the release or check its permissions");
}

#[test]
fn a_changed_graph_is_rejected() {
    let folder = copy();
    let path = folder.path().join("voice_encoder.int8.onnx");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let replay = run_with(folder.path());
    assert_eq!(replay.code, Some(4));
    let error = replay.error(folder.path());
    assert!(
        error.starts_with("affectd: voice_encoder.int8.onnx: does not match the manifest (SHA-256 "),
        "{error}"
    );
    assert!(
        error.ends_with("restore the file from the release, or register the new graph in manifest.json"),
        "{error}"
    );
}

#[test]
fn inputs_and_outputs_that_a_file_lacks_are_rejected() {
    for (role, expected) in [
        (
            "inputs",
            "affectd: face_detector: input \"more\" is in the manifest but not in the file",
        ),
        (
            "outputs",
            "affectd: face_detector: output \"more\" is in the manifest but not in the file",
        ),
    ] {
        let folder = copy();
        let path = folder.path().join("manifest.json");
        let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        manifest["graphs"]["face_detector"][role]["more"] = serde_json::json!([1]);
        std::fs::write(&path, manifest.to_string()).unwrap();
        let replay = run_with(folder.path());
        assert_eq!(replay.code, Some(4));
        let error = replay.error(folder.path());
        assert_eq!(error, format!("{expected}: use the models of this affectd's release"));
    }
}

#[test]
fn preprocessing_that_gives_no_numbers_is_rejected() {
    for (graph, key, value, reason) in [
        (
            "face_encoder",
            "side_per_eye_distance",
            "1e39",
            "its framing of faces is not supported",
        ),
        (
            "face_encoder",
            "eye_mid",
            "[0.5,-1e39]",
            "its framing of faces is not supported",
        ),
        ("fusion", "prior_variance", "[1e39,0.1]", "its window is not supported"),
    ] {
        let folder = copy();
        let path = folder.path().join("manifest.json");
        let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        manifest["graphs"][graph]["preprocessing"][key] = serde_json::from_str(value).unwrap();
        std::fs::write(&path, manifest.to_string()).unwrap();
        let replay = run_with(folder.path());
        assert_eq!(replay.code, Some(4), "{}", replay.log);
        let error = replay.error(folder.path());
        assert!(error.starts_with(&format!("affectd: {graph}: {reason} (")), "{error}");
    }
}

#[test]
fn a_manifest_in_a_newer_format_asks_for_an_update() {
    let folder = copy();
    let newer = r#"{"format": 2, "graphs": "in a form of the future"}"#;
    std::fs::write(folder.path().join("manifest.json"), newer).unwrap();
    let replay = run_with(folder.path());
    assert_eq!(replay.code, Some(4));
    insta::assert_snapshot!(replay.error(folder.path()), @"affectd: manifest.json: written in manifest format 2, this affectd reads up to 1: update affectd, or use the models of its release");
}

#[test]
fn a_manifest_that_is_not_json_and_a_folder_without_one_are_named() {
    let folder = copy();
    std::fs::write(folder.path().join("manifest.json"), "{\"format\": 1").unwrap();
    let replay = run_with(folder.path());
    assert_eq!(replay.code, Some(4));
    insta::assert_snapshot!(replay.error(folder.path()), @"affectd: manifest.json: not a model manifest (EOF while parsing an object at line 1 column 12): restore the file from the release");

    std::fs::remove_file(folder.path().join("manifest.json")).unwrap();
    let replay = run_with(folder.path());
    assert_eq!(replay.code, Some(4));
    let error = replay
        .error(folder.path())
        .replace(&folder.path().display().to_string(), "DIR");
    insta::assert_snapshot!(error, @"affectd: DIR: has no manifest.json: give the folder of a model bundle, or remove --models, AFFECTD_MODELS and `models` to use the embedded models");
}

#[test]
fn check_reports_every_part_and_exits_with_the_code_of_the_first_failure() {
    let folder = copy();
    std::fs::remove_file(folder.path().join("face_encoder.int8.onnx")).unwrap();
    let check = affectd()
        .args(["check", "--input", "nowhere.mkv", "--models"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(4));
    let report = String::from_utf8(check.stdout).unwrap();
    let report = report.replace(&format!("{}/", folder.path().display()), "");
    // The state of the clock depends on the machine.
    let report: Vec<&str> = report.lines().filter(|line| !line.contains("clock: ")).collect();
    insta::assert_snapshot!(report.join("\n"), @r#"
    ok   configuration
    fail models: face_encoder.int8.onnx: cannot be read (No such file or directory (os error 2)): restore the file from the release or check its permissions
    fail input: nowhere.mkv: no such file: check the path of the clip
    ok   output: stdout
    "#);

    let good = affectd().args(["check", "--input"]).arg(demo()).output().unwrap();
    assert!(good.status.success());
}

#[test]
fn the_model_card_has_licence_source_and_figures_of_every_graph() {
    let card = affectd().arg("model").output().unwrap();
    assert!(card.status.success());
    let card = String::from_utf8(card.stdout).unwrap();
    for graph in ["face_detector", "face_encoder", "voice_encoder", "fusion"] {
        assert!(card.contains(&format!("\n{graph} ")), "{card}");
    }
    for word in ["  licence  ", "  source   ", "  figures  "] {
        assert!(card.matches(word).count() >= 4, "{card}");
    }
    assert!(card.contains("the models do not know how a person feels"));
}

#[test]
fn what_a_manifest_says_does_not_control_the_terminal() {
    let folder = copy();
    let path = folder.path().join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["name"] = "\u{1b}]0;title\u{7}\u{202e}\n  forged".into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    let output = affectd()
        .args(["model", "--models"])
        .arg(folder.path())
        .output()
        .unwrap();
    let card = String::from_utf8(output.stdout).unwrap();
    assert!(card.starts_with(r"\u{1b}]0;title\u{7}\u{202e}\n  forged 0."), "{card}");
}
