//! The files of the Debian package that a test can run without systemd.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Whether the generator opens the network for these files below a root folder.
fn opens_network(files: &[(&str, &str)]) -> bool {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    files.iter().for_each(|(name, text)| write(name, text));
    fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_affectd"), root.path().join("usr/bin/affectd")).unwrap();
    let generator = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/package/affectd-generator");
    let units = root.path().join("units");
    let status = Command::new("sh")
        .arg(generator)
        .arg(&units)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GENERATOR_ROOT", root.path())
        .status()
        .unwrap();
    assert!(status.success());
    units.join("affectd.service.d/network.conf").exists()
}

#[test]
fn the_generator_opens_the_network_only_for_an_mqtt_output() {
    let with = |config: &str| opens_network(&[("etc/affectd/affectd.toml", config)]);
    assert!(with("output = [\"stdout\", \"mqtt://h\"]\n"));
    assert!(with("output = ['mqtts://h']\n"));
    assert!(with(
        "models = \"/a#b\" # x\noutput = [ # our broker\n \"file:/a#b\", \"mqtt://h\" ]\n"
    ));
    assert!(!with("output = [\"stdout\"] # \"mqtt://h\"\n"));
    assert!(!with("#output = [\"mqtt://h\"]\n"));
    assert!(!with("output = [\"mqtt://h\"\n"));
    assert!(!opens_network(&[]));
    assert!(opens_network(&[(
        "run/affectd/affectd.toml",
        "output = [\"mqtt://h\"]\n"
    )]));
    let drop_in = |line: &str| opens_network(&[("etc/systemd/system/affectd.service.d/mqtt.conf", line)]);
    assert!(drop_in("[Service]\nEnvironment=\"AFFECTD_OUTPUT=mqtt://h\"\n"));
    assert!(!drop_in("[Service]\n#Environment=\"AFFECTD_OUTPUT=mqtt://h\"\n"));
}
