//! The configuration and the environment, as they reach the binary, and `affectd config`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::{affectd, demo, file};

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap().trim().to_owned()
}

/// What `affectd config` prints.
fn config(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = affectd()
        .arg("config")
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", error(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The values alone, without their origins.
fn values(config: &str) -> toml::Table {
    toml::from_str(config).unwrap()
}

/// A file that sets some keys.
fn some_settings(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let text = "output = [\"stdout\"]\n[face]\nrate_hz = 3\n[estimate]\nbaseline = \"each-person\"\n";
    file(folder, "affectd.toml", text.as_bytes())
}

#[test]
fn the_file_sets_what_flags_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[input]\nclip = {:?}\n[estimate]\nrate_hz = 2.5\n", demo());
    let config = file(&folder, "affectd.toml", config.as_bytes());
    let run = affectd().args(["run", "--config"]).arg(config).output().unwrap();
    assert!(run.status.success());
    let lines = String::from_utf8(run.stdout).unwrap().lines().count();
    assert!((20..=26).contains(&lines), "{lines} lines at 2.5 per second");
}

#[test]
fn an_unknown_key_ends_affectd_with_code_2_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(&folder, "affectd.toml", b"[face]\nrte_hz = 5\n");
    let run = affectd().args(["run", "--config"]).arg(config).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    let error = error(&run);
    assert!(error.contains("affectd.toml line 2: unknown field `rte_hz`"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn an_unknown_variable_ends_affectd_with_code_2() {
    let check = affectd().arg("check").env("AFFECTD_FACE_RTE_HZ", "5").output().unwrap();
    assert_eq!(check.status.code(), Some(2));
    let error = error(&check);
    assert!(error.contains("environment variable AFFECTD_FACE_RTE_HZ"), "{error}");
}

#[test]
fn an_unknown_log_level_ends_affectd_with_code_2() {
    let model = affectd().arg("model").env("AFFECTD_LOG", "verbose").output().unwrap();
    assert_eq!(model.status.code(), Some(2));
    insta::assert_snapshot!(error(&model), @r#"affectd: environment variable AFFECTD_LOG: "verbose" is not a log level (off, error, warn, info, debug, trace): correct or remove it"#);
}

#[test]
fn a_variable_that_is_not_utf_8_is_an_error_only_if_it_is_ours() {
    let bytes = OsStr::from_bytes(b"x\xff");
    let model = affectd().arg("model").env("SOME_OTHER", bytes).output().unwrap();
    assert!(model.status.success(), "{}", error(&model));
    let model = affectd().arg("model").env("AFFECTD_MODELS", bytes).output().unwrap();
    assert_eq!(model.status.code(), Some(2));
    insta::assert_snapshot!(error(&model), @"affectd: environment variable AFFECTD_MODELS: its value is not valid UTF-8: correct or remove it");
}

#[test]
fn a_clip_on_the_command_line_writes_to_stdout_unless_an_output_is_given_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "affectd.toml", b"output = [\"file:/nonexistent/estimates\"]\n");
    let run = |arguments: &[&str]| {
        let mut run = affectd();
        run.args(["run", "--config"]).arg(&path).args(arguments).arg("--input");
        run.arg(demo()).output().unwrap()
    };
    let shown = run(&[]);
    assert!(shown.status.success(), "{}", error(&shown));
    assert!(String::from_utf8(shown.stdout).unwrap().lines().count() >= 45);
    let estimates = folder.path().join("x");
    let written = run(&["--output", &format!("file:{}", estimates.display())]);
    assert!(
        written.status.success() && written.stdout.is_empty(),
        "{}",
        error(&written)
    );
    assert!(estimates.exists());
    let text = config(&["--config", path.to_str().unwrap(), "--input", "x.mkv"], &[]);
    assert!(text.contains("output = [\"stdout\"]  # flag --input"), "{text}");
}

#[test]
fn a_configuration_in_another_encoding_is_named_with_the_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let text = "output = [\"stdout\"]\n";
    let utf_16: Vec<u8> = std::iter::once(0xfeff)
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    for (name, bytes, encoding) in [
        ("utf16", &utf_16[..], "UTF-16"),
        ("utf16-without-mark", &utf_16[2..], "UTF-16"),
        ("latin1", b"models = \"/m\xfcller\"\n", "ISO-8859-1"),
    ] {
        let path = file(&folder, name, bytes);
        let output = affectd().arg("config").arg("--config").arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let path = path.display();
        assert_eq!(
            error(&output),
            format!(
                "affectd: {path}: is not UTF-8, but probably {encoding}: convert it with iconv -f {encoding} -t UTF-8 {path} \
                 >NEW, and use the new file"
            )
        );
    }
    let marked = file(&folder, "marked", format!("\u{feff}{text}").as_bytes());
    assert!(config(&["--config", marked.to_str().unwrap()], &[]).contains("# file "));
}

#[test]
fn config_prints_each_value_with_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let path = some_settings(&folder);
    let path = path.to_str().unwrap();
    let text = config(
        &[
            "--config",
            path,
            "--output",
            "file:/tmp/estimates.jsonl?keep=2",
            "--models",
            "/m",
        ],
        &[("AFFECTD_FACE_MIN_SCORE", "0.7"), ("AFFECTD_CAMERA_DEVICE", "off")],
    );
    insta::assert_snapshot!(text.replace(path, "/etc/affectd/affectd.toml"), @r#"
    # The effective configuration of affectd 0.1.0.
    models = "/m"  # flag --models
    output = ["file:/tmp/estimates.jsonl?keep=2"]  # flag --output

    [camera]
    device = "off"  # environment AFFECTD_CAMERA_DEVICE
    width = 640  # default
    height = 480  # default
    rate_hz = 30.0  # default
    format = "auto"  # default
    delay_s = 0.0  # default
    rotate = 0  # default
    flip = "none"  # default

    [microphone]
    device = "auto"  # default
    delay_s = 0.0  # default
    channel = "mix"  # default

    [input]
    # clip: not set  # default
    realtime = false  # default

    [face]
    rate_hz = 3  # file /etc/affectd/affectd.toml
    detect_every_s = 0.4  # default
    min_score = 0.7  # environment AFFECTD_FACE_MIN_SCORE

    [estimate]
    rate_hz = 5.0  # default
    smoothing_s = 0.5  # default
    baseline = "each-person"  # file /etc/affectd/affectd.toml

    [privacy]
    off = ""  # default
    # light: not set  # default
    # button: not set  # default

    [status]
    listen = "off"  # default
    # token: not set  # default
    preview = "outline"  # default
    unencrypted_image = false  # default
    hosts = []  # default
    "#);
}

#[test]
fn the_output_of_config_is_a_configuration_file_with_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = some_settings(&folder);
    let text = config(
        &[
            "--config",
            path.to_str().unwrap(),
            "--input",
            "a \"clip\".mkv",
            "--realtime",
        ],
        &[
            ("AFFECTD_ESTIMATE_SMOOTHING_S", "0.25"),
            ("AFFECTD_MICROPHONE_DEVICE", "hw:CARD=Device"),
        ],
    );
    let again = file(&folder, "again.toml", text.as_bytes());
    let again = config(&["--config", again.to_str().unwrap()], &[]);
    assert_eq!(values(&again), values(&text));
    assert_eq!(values(&text)["input"]["clip"].as_str(), Some("a \"clip\".mkv"));
}

#[test]
fn config_as_json_has_every_key_with_value_and_origin() {
    let text = config(&["--json"], &[("AFFECTD_FACE_RATE_HZ", "4")]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let entry = |value: Value, origin: &str| serde_json::json!({ "value": value, "origin": origin });
    assert_eq!(
        json["face.rate_hz"],
        entry(4.into(), "environment AFFECTD_FACE_RATE_HZ")
    );
    assert_eq!(json["face.min_score"], entry(0.5.into(), "default"));
    assert_eq!(json["output"], entry(serde_json::json!(["stdout"]), "default"));
    assert_eq!(json["models"], entry(Value::Null, "default"));
}

#[test]
fn the_packaged_file_documents_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/package/affectd.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let is_key_or_section = |line: &str| line.starts_with('[') || line.contains(" = ");
    // Without the `#` in front of a key. Of the keys set, `output` is the package's own choice.
    let lines = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    let lines: Vec<&str> = lines
        .filter(|line| !line.starts_with(' ') && is_key_or_section(line))
        .collect();
    let documented = values(&lines.join("\n"));
    let mut defaults = values(&config(&[], &[]));
    // Clips are given by a flag.
    defaults.remove("input");
    for (section, default) in defaults {
        match default.as_table() {
            Some(default) => {
                for (key, default) in default {
                    let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|n| n as f64));
                    let value = &documented[&section][key];
                    assert!(
                        value == default || number(value) == number(default),
                        "{section}.{key} = {value}"
                    );
                }
            }
            None => assert!(documented.contains_key(&section), "{section}"),
        }
    }
    assert!(documented.contains_key("models"));
}

#[test]
fn config_never_shows_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let password = file(&folder, "password", b"hunter2");
    let spec = format!("mqtt://li@broker?password_file={}", password.display());
    let text = config(&["--output", &spec], &[]);
    assert!(text.contains(&spec) && !text.contains("hunter2"), "{text}");
    for spec in [
        "mqtt://li:hunter2@broker",
        "mqtt://broker?password=hunter2",
        "stdout?token=hunter2",
    ] {
        let by_flag = affectd().args(["config", "--output", spec]).output().unwrap();
        let by_variable = affectd()
            .args(["config", "--json"])
            .env("AFFECTD_OUTPUT", spec)
            .output()
            .unwrap();
        for output in [by_flag, by_variable] {
            assert!(!output.status.success());
            assert_eq!(output.stdout, b"");
            assert!(!error(&output).contains("hunter2"), "{}", error(&output));
        }
    }
    // A password where none belongs is masked, too.
    let text = config(&["--input", "rtsp://li:hunter2@camera/stream"], &[]);
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_password_in_a_misplaced_argument_is_not_shown() {
    for arguments in [
        &["run", "--input", "mqtt://bob:hunter2@h"][..],
        &["run", "--input=mqtt://b?password%3Dhunter2"],
        &["run", "--output", "mqtt://bob/hunter2@h"],
        &["run", "--output", "mqtt://b?passwordhunter2"],
        &["run", "--models", "mqtt://bob/hunter2@h"],
        &["check", "--config", "mqtt;//bob:hunter2@h"],
        &["bench", "--model", "mqtt://bob:hunter2@h"],
        &["monitor", "mqtt;//bob:hunter2@h"],
        &["monitor", "mqtt:/bob:hunter2@h"],
        &["monitor", "mqtt://b?passwordhunter2"],
        &["mqtt://bob:hunter2@h"],
        &["run", "mqtt://bob:hunter2@h"],
        &["forget", "mqtt://bob:hunter2@h"],
    ] {
        let run = affectd().args(arguments).output().unwrap();
        let error = error(&run);
        assert!(
            !run.status.success() && !error.contains("hunter2"),
            "{arguments:?}: {error}"
        );
        assert!(
            error.contains('…') || error.contains("write %40"),
            "{arguments:?}: {error}"
        );
    }
    // A path is not an address.
    let text = config(&["--models", "/a?token=1"], &[]);
    assert!(text.contains("models = \"/a?token=1\""), "{text}");
}
