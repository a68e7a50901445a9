use std::io::Write;

use super::*;

fn load(file: &str, vars: &[(&str, &str)], flags: Overrides) -> Result<Config, String> {
    let mut on_disk = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let vars = vars.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    Config::load(Some(on_disk.path()), vars, &flags).map_err(|e| {
        let name = on_disk.path().display().to_string();
        e.to_string().replace(&name, "affectd.toml")
    })
}

#[test]
fn flags_go_over_the_environment_which_goes_over_the_file() {
    let file = "models = \"/file\"\n[input]\nclip = \"file.mkv\"\n[face]\nrate_hz = 3\nmin_score = 0.7\n";
    let vars = [
        ("AFFECTD_MODELS", "/env"),
        ("AFFECTD_FACE_RATE_HZ", "4"),
        ("AFFECTD_LOG", "debug"),
        ("HOME", "/"),
    ];
    let flags = Overrides {
        models: Some("/flag".into()),
        ..Overrides::default()
    };
    let config = load(file, &vars, flags).unwrap();
    assert_eq!(config.models, Some("/flag".into()));
    assert_eq!(config.face.rate_hz, 4.0);
    assert_eq!(config.face.min_score, 0.7);
    let Source::Clip { path, pace } = config.source else {
        panic!("a clip was given");
    };
    assert_eq!((path, pace), ("file.mkv".into(), Pace::Replay));
}

#[test]
fn nothing_said_means_devices_at_five_estimates_a_second_on_stdout() {
    let config = load("", &[], Overrides::default()).unwrap();
    let Source::Devices(devices) = config.source else {
        panic!("no clip was given");
    };
    let camera = devices.camera.unwrap();
    assert_eq!(camera.device, camera::Choice::Auto);
    assert_eq!(
        (camera.wish.width, camera.wish.height, camera.wish.rate_hz),
        (640, 480, 30.0)
    );
    assert_eq!(devices.microphone.unwrap().device, microphone::Choice::Auto);
    assert_eq!(config.fusion.period, Duration::from_millis(200));
    assert_eq!(config.outputs, ["stdout".parse().unwrap()]);
}

#[test]
fn devices_are_named_found_or_left_off() {
    let vars = [
        ("AFFECTD_CAMERA_DEVICE", "/dev/video2"),
        ("AFFECTD_MICROPHONE_DEVICE", "hw:CARD=Device"),
    ];
    let named = load(
        "[camera]\ndevice = \"auto\"\nrate_hz = 15\n",
        &vars,
        Overrides::default(),
    )
    .unwrap();
    let Source::Devices(devices) = named.source else {
        panic!("no clip was given");
    };
    let camera = devices.camera.unwrap();
    assert_eq!(camera.device, camera::Choice::Path("/dev/video2".into()));
    assert_eq!(camera.wish.rate_hz, 15.0);
    assert_eq!(
        devices.microphone.unwrap().device,
        microphone::Choice::Name("hw:CARD=Device".into())
    );
    let deaf = load("[microphone]\ndevice = \"off\"\n", &[], Overrides::default()).unwrap();
    assert!(matches!(deaf.source, Source::Devices(devices) if devices.microphone.is_none()));
}

#[test]
fn a_misspelt_key_is_named_with_its_line_or_its_variable() {
    let error = load("[face]\nrate_hz = 5\nrate = 5\n", &[], Overrides::default()).unwrap_err();
    insta::assert_snapshot!(error, @"affectd.toml line 3: unknown field `rate`, expected one of `rate_hz`, `detect_every_s`, `min_score`: correct or remove it");
    let error = load("", &[("AFFECTD_FACE_RATE", "5")], Overrides::default()).unwrap_err();
    insta::assert_snapshot!(error, @"environment variable AFFECTD_FACE_RATE: unknown field `rate`, expected one of `rate_hz`, `detect_every_s`, `min_score`: correct or remove it");
}

#[test]
fn values_that_cannot_work_are_refused_with_what_would() {
    let error = |file: &str| load(file, &[], Overrides::default()).unwrap_err();
    insta::assert_snapshot!(error("[face]\nrate_hz = 0\n"), @"face.rate_hz = 0: must be from 1 to 60");
    insta::assert_snapshot!(error("[face]\nmin_score = nan\n"), @"face.min_score = NaN: must be from 0.1 to 1");
    insta::assert_snapshot!(error("[camera]\nwidth = 0\n"), @"camera.width = 0: must be from 64 to 7680");
    insta::assert_snapshot!(error("[camera]\ndevice = \"off\"\n[microphone]\ndevice = \"off\"\n"), @r#"microphone.device = "off": and camera.device is off, too: at least one must be on"#);
    insta::assert_snapshot!(error("[estimate]\nrate_hz = 7\n"), @"estimate.rate_hz = 7: must be 2.5, 5 or 10");
    insta::assert_snapshot!(error("output = []\n"), @r#"output = []: needs at least one output, "stdout" say"#);
    insta::assert_snapshot!(error("output = [\"carrier-pigeon\"]\n"), @r#"output = "carrier-pigeon": no such output: there is stdout, serial:/dev/ttyUSB0, file:/path, mqtt://broker"#);
    insta::assert_snapshot!(error("output = [\"stdout\", \"stdout?format=csv\"]\n"), @r#"output = "stdout?format=csv": writes where stdout does: keep one"#);
    insta::assert_snapshot!(error("[input]\nrealtime = true\n"), @"input.realtime = true: is about clips, and no clip is given: add --input CLIP or leave it out");
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line() {
    let error = load("models = \"x\"\n[face\n", &[], Overrides::default()).unwrap_err();
    assert!(error.starts_with("affectd.toml line 2: "), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_missing_file_is_named() {
    let missing = Path::new("/nonexistent/affectd.toml");
    let error = Config::load(Some(missing), std::iter::empty(), &Overrides::default()).unwrap_err();
    insta::assert_snapshot!(error, @"/nonexistent/affectd.toml: cannot be read (No such file or directory (os error 2)): check the path given with --config or AFFECTD_CONFIG");
}
