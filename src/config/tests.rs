use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::raw::{KEYS, RawConfig, RawInput, RawPrivacy, RawStatus, flatten};
use super::*;
use crate::capture::{camera, microphone};
use crate::output::line_encoder::Format;
use crate::output::{HostIdentity, OutputSpec};

/// The settings of a file, of environment variables and of flags. The file is called `affectd.toml` in errors.
fn read(file: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Settings, String> {
    let mut on_disk = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let variables: Vec<_> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let layers = Layers {
        file: Some(on_disk.path()),
        variables: &variables,
        flags,
    };
    let settings = Settings::read(&layers).map_err(|e| {
        let name = on_disk.path().display().to_string();
        e.to_string().replace(&name, "affectd.toml")
    })?;
    Ok(settings)
}

fn load(file: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Config, String> {
    Config::from_settings(&read(file, variables, flags)?, &HostIdentity::default()).map_err(|e| {
        let error = e.to_string();
        // The file has a random name.
        match (error.find("(file "), error.find(".toml)")) {
            (Some(start), Some(end)) => format!("{}(file affectd{}", &error[..start], &error[end..]),
            _ => error,
        }
    })
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = "models = \"/file\"\n[input]\nclip = \"file.mkv\"\n[face]\nrate_hz = 3\nmin_score = 0.7\n";
    let variables = [("AFFECTD_MODELS", "/env"), ("AFFECTD_FACE_RATE_HZ", "4")];
    let flags = Flags {
        models: Some("/flag".into()),
        ..Flags::default()
    };
    let config = load(file, &variables, flags).unwrap();
    assert_eq!(config.models, Some("/flag".into()));
    assert_eq!(config.face.rate_hz, 4.0);
    assert_eq!(config.face.min_score, 0.7);
    let Source::Clip { path, pace } = config.source else {
        panic!("a clip was given");
    };
    assert_eq!((path, pace), ("file.mkv".into(), Pace::Replay));
}

#[test]
fn each_value_has_the_origin_of_the_highest_layer_that_sets_it() {
    let file = "output = [\"file:/f\"]\n[input]\nclip = \"file.mkv\"\n[face]\nrate_hz = 3\nmin_score = 0.7\n";
    let variables = [("AFFECTD_MODELS", "/env"), ("AFFECTD_FACE_RATE_HZ", "4")];
    let flags = Flags {
        models: Some("/flag".into()),
        camera: Some("/dev/video9".into()),
        microphone: Some("off".into()),
        rotate: Some(90),
        clip: Some("flag.mkv".into()),
        realtime: true,
        status: Some("off".into()),
        outputs: vec!["stdout".into()],
    };
    let settings = read(file, &variables, flags).unwrap();
    for (key, flag) in [
        ("models", "--models"),
        ("camera.device", "--camera"),
        ("microphone.device", "--microphone"),
        ("camera.rotate", "--rotate"),
        ("input.clip", "--input"),
        ("input.realtime", "--realtime"),
        ("output", "--output"),
        ("status.listen", "--status"),
    ] {
        assert_eq!(settings.origin(key), Origin::Flag(flag));
    }
    let variable = Origin::Environment("AFFECTD_FACE_RATE_HZ".into());
    assert_eq!(settings.origin("face.rate_hz"), variable);
    assert!(matches!(settings.origin("face.min_score"), Origin::File(_)));
    assert_eq!(settings.origin("camera.width"), Origin::Default);

    let settings = read("", &variables, Flags::default()).unwrap();
    assert_eq!(settings.origin("models"), Origin::Environment("AFFECTD_MODELS".into()));
    assert_eq!(settings.origin("input.clip"), Origin::Default);
}

#[test]
fn the_list_of_keys_is_complete() {
    let all = RawConfig {
        models: Some("/models".into()),
        input: RawInput {
            clip: Some("clip.mkv".into()),
            realtime: true,
        },
        privacy: RawPrivacy {
            light: Some("/sys/class/leds/ACT".into()),
            button: Some("gpiochip0:17".into()),
            ..RawPrivacy::default()
        },
        status: RawStatus {
            token: Some("/token".into()),
            ..RawStatus::default()
        },
        ..RawConfig::default()
    };
    let keys: BTreeSet<String> = flatten(Table::try_from(all).unwrap())
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, KEYS.iter().map(|(key, _)| key.to_string()).collect());
    let settings = read("", &[], Flags::default()).unwrap();
    assert!(
        settings
            .all()
            .map(|setting| setting.key)
            .eq(KEYS.iter().map(|(key, _)| *key))
    );
}

#[test]
fn each_key_can_be_set_by_an_environment_variable() {
    let settings = read("", &[], Flags::default()).unwrap();
    for setting in settings.all() {
        let name = format!("{VARIABLE_PREFIX}{}", setting.key.replace('.', "_").to_uppercase());
        let value = match &setting.value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(_)) => "stdout, file:/tmp/x".into(),
            Some(other) => other.to_string(),
            None => "/some/path".into(),
        };
        let settings = read("", &[(&name, &value)], Flags::default()).unwrap();
        assert_eq!(settings.origin(setting.key), Origin::Environment(name));
    }
}

#[test]
fn the_defaults_are_both_devices_five_estimates_per_second_and_stdout() {
    let config = load("", &[], Flags::default()).unwrap();
    let Source::Devices(devices) = config.source else {
        panic!("no clip was given");
    };
    let camera = devices.camera.unwrap();
    assert_eq!(camera.device, camera::Choice::Auto);
    assert_eq!(
        (camera.mode.width, camera.mode.height, camera.mode.rate_hz),
        (640, 480, 30.0)
    );
    assert_eq!(devices.microphone.unwrap().device, microphone::Choice::Auto);
    assert_eq!(config.fusion.period, Duration::from_millis(200));
    assert_eq!(config.outputs, [OutputSpec::Stdout { format: Format::Json }]);
}

#[test]
fn devices_are_chosen_by_name_automatically_or_off() {
    let variables = [
        ("AFFECTD_CAMERA_DEVICE", "/dev/video2"),
        ("AFFECTD_MICROPHONE_DEVICE", "hw:CARD=Device"),
    ];
    let named = load(
        "[camera]\ndevice = \"auto\"\nrate_hz = 15\n",
        &variables,
        Flags::default(),
    )
    .unwrap();
    let Source::Devices(devices) = named.source else {
        panic!("no clip was given");
    };
    let camera = devices.camera.unwrap();
    assert_eq!(camera.device, camera::Choice::Path("/dev/video2".into()));
    assert_eq!(camera.mode.rate_hz, 15.0);
    assert_eq!(
        devices.microphone.unwrap().device,
        microphone::Choice::Name("hw:CARD=Device".into())
    );
    let off = load("[microphone]\ndevice = \"off\"\n", &[], Flags::default()).unwrap();
    assert!(matches!(off.source, Source::Devices(devices) if devices.microphone.is_none()));
}

#[test]
fn an_unknown_key_is_reported_with_its_line_or_its_variable() {
    let error = load("[face]\nrate_hz = 5\nrate = 5\n", &[], Flags::default()).unwrap_err();
    insta::assert_snapshot!(error, @"affectd.toml line 3: unknown field `rate`, expected one of `rate_hz`, `detect_every_s`, `min_score`: correct or remove it");
    let error = load("", &[("AFFECTD_FACE_RATE", "5")], Flags::default()).unwrap_err();
    insta::assert_snapshot!(error, @"environment variable AFFECTD_FACE_RATE: unknown field `rate`, expected one of `rate_hz`, `detect_every_s`, `min_score`: correct or remove it");
}

#[test]
fn impossible_values_are_rejected_with_the_possible_ones() {
    let error = |file: &str| load(file, &[], Flags::default()).unwrap_err();
    insta::assert_snapshot!(error("[face]\nrate_hz = 0\n"), @"face.rate_hz = 0 (file affectd.toml): must be from 1 to 60");
    insta::assert_snapshot!(error("[face]\nmin_score = nan\n"), @"face.min_score = NaN (file affectd.toml): must be from 0.1 to 1");
    insta::assert_snapshot!(error("[camera]\nwidth = 0\n"), @"camera.width = 0 (file affectd.toml): must be from 64 to 7680");
    insta::assert_snapshot!(error("face = [1]"), @"affectd.toml: face is a section: write [face] on a line, and its keys below: correct or remove it");
    insta::assert_snapshot!(error("[camera]\ndevice = \"off\"\n[microphone]\ndevice = \"off\"\n"), @r#"microphone.device = "off" (file affectd.toml): camera.device is off, too: switch at least one of them on"#);
    insta::assert_snapshot!(error("[estimate]\nrate_hz = 7\n"), @"estimate.rate_hz = 7 (file affectd.toml): must be 2.5, 5 or 10");
    insta::assert_snapshot!(error("output = []\n"), @r#"output = [] (file affectd.toml): needs at least one output, for example "stdout""#);
    insta::assert_snapshot!(error("output = [\"carrier-pigeon\"]\n"), @r#"output = "carrier-pigeon": unknown output: use stdout, serial:/dev/ttyUSB0, file:/path or mqtt://broker"#);
    insta::assert_snapshot!(error("output = [\"stdout\", \"stdout?format=csv\"]\n"), @r#"output = "stdout?format=csv": writes to the same place as stdout: keep one"#);
    insta::assert_snapshot!(error("output = [\"file:/tmp/y.csv\", \"file:/tmp/../tmp/./y.csv\"]\n"), @r#"output = "file:/tmp/../tmp/./y.csv": writes to the same place as file:/tmp/y.csv?format=json&max_mb=10&keep=4&fsync=off: keep one"#);
    insta::assert_snapshot!(error("output = [\"file:/tmp/z.1\", \"file:/tmp/z\"]\n"), @r#"output = "file:/tmp/z": an old file of one would get the name of the other, file:/tmp/z.1?format=json&max_mb=10&keep=4&fsync=off: use another name"#);
    insta::assert_snapshot!(error("[input]\nrealtime = true\n"), @"input.realtime = true (file affectd.toml): applies to clips only, and no clip is given: add --input CLIP, or remove it");
    let from_variable = load("", &[("AFFECTD_FACE_RATE_HZ", "99")], Flags::default()).unwrap_err();
    insta::assert_snapshot!(from_variable, @"face.rate_hz = 99 (environment AFFECTD_FACE_RATE_HZ): must be from 1 to 60");
}

#[test]
fn text_that_is_not_toml_is_rejected_with_its_line() {
    let error = load("models = \"x\"\n[face\n", &[], Flags::default()).unwrap_err();
    assert!(error.starts_with("affectd.toml line 2: "), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_missing_file_is_named() {
    let layers = Layers {
        file: Some(Path::new("/nonexistent/affectd.toml")),
        ..Layers::default()
    };
    let error = Config::load(&layers, &HostIdentity::default()).unwrap_err();
    insta::assert_snapshot!(error, @"/nonexistent/affectd.toml: cannot be read (No such file or directory (os error 2)): check the path given with --config or AFFECTD_CONFIG");
}

#[test]
fn a_password_in_a_value_of_the_wrong_type_is_not_shown() {
    for file in [
        "output = \"mqtt://li:hunter2@b\"",
        "output = [\"mqtt//li:hunter2@b\"]",
        "output = [\"mqtt:/li:hunter2@b\"]",
        "output = [\"mqtt://li%3Ahunter2@b\"]",
        "\"mqtt://li:hunter2@b\" = 1",
        "[camera]\nwidth = \"mqtt://li:hunter2@b\"",
        "[estimate]\nbaseline = \"mqtt://li:hunter2@b\"",
    ] {
        let error = load(&format!("{file}\n"), &[], Flags::default())
            .map(|_| ())
            .unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_password_in_an_output_spec_is_rejected_and_not_shown() {
    for spec in [
        "mqtt://li:hunter2@broker",
        "mqtt://broker?password=hunter2",
        "mqtt://broker?password=a&hunter2",
        "stdout?password=hunter2",
        "file:/tmp/x?token=hun&ter2",
    ] {
        let flags = Flags {
            outputs: vec![spec.into()],
            ..Flags::default()
        };
        for error in [
            load("", &[], flags).unwrap_err(),
            load("", &[("AFFECTD_OUTPUT", spec)], Flags::default()).unwrap_err(),
            load(&format!("output = [{spec:?}]"), &[], Flags::default()).unwrap_err(),
        ] {
            assert!(!error.contains("ter2"), "{error}");
            assert!(error.contains("password_file"), "{error}");
        }
    }
}

#[test]
fn a_value_of_the_wrong_type_is_described_in_plain_words_and_not_shown() {
    let error = |file: &str| load(file, &[], Flags::default()).unwrap_err();
    insta::assert_snapshot!(error("output = \"mqtt://u:hunter2@b\"\n"), @r#"affectd.toml line 1: must be a list, for example ["stdout"], not a text: correct or remove it"#);
    insta::assert_snapshot!(error("models = 5\n"), @"affectd.toml line 1: must be a text in quotes, not 5: correct or remove it");
    insta::assert_snapshot!(error("[camera]\nwidth = \"wide\"\n"), @"affectd.toml line 2: must be a whole number, not a text: correct or remove it");
    insta::assert_snapshot!(error("[camera]\nwidth = -1\n"), @"affectd.toml line 2: must be a whole number, not -1: correct or remove it");
    insta::assert_snapshot!(error("[face]\nrate_hz = []\n"), @"affectd.toml line 2: must be a number, not a list: correct or remove it");
    insta::assert_snapshot!(error("[models]\n"), @"affectd.toml line 1: must be a text in quotes, not a section or a date: correct or remove it");
    let error = load("", &[("AFFECTD_INPUT_REALTIME", "often")], Flags::default()).unwrap_err();
    insta::assert_snapshot!(error, @"environment variable AFFECTD_INPUT_REALTIME: must be true or false, not a text: correct or remove it");
}

#[test]
fn a_comma_in_a_path_does_not_split_a_list_of_outputs() {
    let outputs = |list: &str| {
        let settings = read("", &[("AFFECTD_OUTPUT", list)], Flags::default()).unwrap();
        settings.raw().unwrap().output
    };
    assert_eq!(
        outputs("stdout, file:/a,b.csv,serial:/dev/x"),
        ["stdout", "file:/a,b.csv", "serial:/dev/x"]
    );
    assert_eq!(outputs("file:/a,stdout"), ["file:/a", "stdout"]);
    assert_eq!(outputs("file:/a,mqtt//u:pw@b"), ["file:/a", "mqtt//u:pw@b"]);
    assert_eq!(outputs("file:/a,telegraph:x"), ["file:/a", "telegraph:x"]);
    assert_eq!(outputs("stdout,nonsense"), ["stdout", "nonsense"]);
}

#[test]
fn a_clip_needs_no_device() {
    let off = "[camera]\ndevice = \"off\"\n[microphone]\ndevice = \"off\"\n";
    let flags = Flags {
        clip: Some("a.mkv".into()),
        ..Flags::default()
    };
    assert!(matches!(load(off, &[], flags).unwrap().source, Source::Clip { .. }));
}
