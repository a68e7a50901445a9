//! The files of the Debian package that a test can run without systemd.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The names and texts of the drop-ins that the generator writes for these files below a root folder.
fn drop_in_texts(files: &[(&str, &str)]) -> BTreeMap<String, String> {
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
    let folder = fs::read_dir(units.join("affectd.service.d"));
    let read = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), text)
    };
    folder.into_iter().flatten().map(|entry| read(entry.unwrap())).collect()
}

/// Their names.
fn drop_ins(files: &[(&str, &str)]) -> Vec<String> {
    drop_in_texts(files).into_keys().collect()
}

fn opens_network(files: &[(&str, &str)]) -> bool {
    drop_ins(files).contains(&"network.conf".to_owned())
}

#[test]
fn the_generator_makes_room_for_programs_only_if_a_device_is_one() {
    let with = |config: &str| drop_ins(&[("etc/affectd/affectd.toml", config)]);
    assert_eq!(with("[camera]\ndevice = \"libcamera:\"\n"), ["program.conf"]);
    assert_eq!(
        with("[microphone]\ndevice = \"command:arecord -q\"\n"),
        ["program.conf"]
    );
    let network = with("[camera]\ndevice = \"rtsp://bob:secret@cam/live\"\n");
    assert_eq!(network, ["network.conf", "program.conf"]);
    assert!(with("[camera]\ndevice = \"/dev/video0\"\n").is_empty());
}

#[test]
fn the_generator_gives_access_to_the_configured_led_only() {
    let with = |led: &str| drop_ins(&[("etc/affectd/affectd.toml", &format!("[privacy]\nlight = {led:?}\n"))]);
    assert_eq!(with("/sys/class/leds/ACT"), ["led.conf"]);
    assert_eq!(with("/sys/class/leds/beaglebone:green:usr0"), ["led.conf"]);
    for other in [
        "/etc",
        "/sys/class/leds/a b",
        "/sys/class/leds/x';reboot;'",
        "/sys/class/leds/../../kernel",
        "/sys/class/leds/..",
    ] {
        assert!(with(other).is_empty(), "{other}");
    }
    assert!(drop_ins(&[("etc/affectd/affectd.toml", "")]).is_empty());
}

#[test]
fn the_generator_gives_access_to_the_chip_of_a_configured_button_only() {
    let with = |button: &str| {
        let config = format!("[privacy]\nbutton = {button:?}\n");
        drop_in_texts(&[("etc/affectd/affectd.toml", &config)]).remove("button.conf")
    };
    for button in ["gpiochip0:17", "/dev/gpiochip0:3?active=high"] {
        let text = with(button).unwrap();
        assert!(
            text.contains("DeviceAllow=char-gpiochip rw\n") && text.contains("chgrp affectd /dev/gpiochip0 &&"),
            "{text}"
        );
    }
    for other in ["/etc/passwd:1", "gpiochip0;reboot:1", "gpiochip:1", ""] {
        assert_eq!(with(other), None, "{other}");
    }
}

#[test]
fn the_generator_lets_a_status_page_be_reached_from_where_it_listens() {
    let with = |listen: &str| {
        let config = format!("output = [\"stdout\"]\n[status]\nlisten = \"{listen}\" # the page\n");
        drop_in_texts(&[("etc/affectd/affectd.toml", &config)]).remove("status.conf")
    };
    for listen in ["127.0.0.1:8787", "localhost:8787", "[::1]:8787"] {
        let text = with(listen).unwrap();
        assert!(text.contains("PrivateNetwork=no\n"), "{text}");
        assert!(
            text.contains("IPAddressAllow=localhost\n") && !text.contains("IPAddressDeny"),
            "{text}"
        );
    }
    for listen in ["0.0.0.0:8787", "[::]:8787", "192.168.1.2:8787"] {
        let text = with(listen).unwrap();
        assert!(
            text.contains("IPAddressDeny=\n") && !text.contains("IPAddressAllow"),
            "{text}"
        );
    }
    assert_eq!(with("off"), None);
    assert_eq!(with("nonsense"), None);
    assert_eq!(drop_in_texts(&[]).len(), 0);
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

/// Runs a script of `cross/`, which must refuse its arguments. Returns what it says.
fn refusal(script: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross").join(script);
    let output = Command::new(path).args(arguments).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    error
}

#[test]
fn a_program_for_another_machine_is_neither_packaged_nor_put_on_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("riscv");
    // The header of an ELF file for RISC-V.
    let mut header = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\xf3\0";
    fs::write(&program, header).unwrap();
    let program = program.to_str().unwrap();
    let error = refusal("package.sh", &["arm64", "--binary", program]);
    assert!(
        error.ends_with(&format!(
            "{program} is a program for another architecture, not for arm64: name one that cross/build.sh aarch64 made\n"
        )),
        "{error}"
    );

    header[18] = 0x3e; // x86-64
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/affectd"), header).unwrap();
    fs::create_dir(root.join("DEBIAN")).unwrap();
    let control = "Package: affectd\nVersion: 1\nArchitecture: arm64\nMaintainer: nobody <nobody@example.invalid>\nDescription: none\n";
    fs::write(root.join("DEBIAN/control"), control).unwrap();
    let package = folder.path().join("affectd.deb");
    let built = Command::new("dpkg-deb")
        .arg("--build")
        .args([&root, &package])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let package = package.to_str().unwrap();
    let error = refusal("image.sh", &["pi", "--deb", package]);
    assert!(
        error.ends_with(&format!(
            "{package} has a program for amd64, not for arm64: make the package with cross/package.sh arm64\n"
        )),
        "{error}"
    );
}

/// A root folder with the package's scripts in it. Debian's own program keeps the state of the service there.
struct Installation {
    root: TempDir,
    programs: TempDir,
}

impl Installation {
    fn new() -> Installation {
        let (root, programs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let unit = root.path().join("usr/lib/systemd/system/affectd.service");
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::create_dir_all(root.path().join("var/lib")).unwrap();
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/package");
        fs::copy(package.join("affectd.service"), unit).unwrap();
        // They would act on this machine.
        for name in ["systemd-sysusers", "systemctl", "deb-systemd-invoke"] {
            let program = programs.path().join(name);
            fs::write(&program, format!("#!/bin/sh\necho {name} \"$@\" >&2\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Installation { root, programs }
    }

    /// Runs a script of the package. Returns what it prints, and what the programs print that act on the machine.
    fn run(&self, script: &str, arguments: &[&str]) -> (String, String) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/package").join(script);
        let output = Command::new("sh")
            .arg(path)
            .args(arguments)
            .env("PATH", format!("{}:/usr/bin:/bin", self.programs.path().display()))
            .env("DPKG_ROOT", self.root.path())
            .env("DPKG_MAINTSCRIPT_PACKAGE", "affectd")
            .output()
            .unwrap();
        let [printed, called] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{called}");
        (printed, called)
    }

    fn link(&self) -> PathBuf {
        let folder = self.root.path().join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&folder).unwrap();
        folder.join("affectd.service")
    }

    fn is_enabled(&self) -> bool {
        self.link().is_symlink()
    }

    /// What `systemctl enable` does.
    fn enable(&self) {
        symlink("/usr/lib/systemd/system/affectd.service", self.link()).unwrap();
    }
}

#[test]
fn the_package_neither_enables_nor_starts_the_service() {
    let installation = Installation::new();
    let (printed, called) = installation.run("postinst", &["configure", ""]);
    assert!(printed.contains("sudo systemctl enable --now affectd"), "{printed}");
    let starts = |called: &str| {
        called
            .lines()
            .any(|line| line.contains(" start ") || line.contains(" restart "))
    };
    assert!(!installation.is_enabled() && !starts(&called), "{called}");
    // An upgrade does not, either.
    let (printed, called) = installation.run("postinst", &["configure", "0.1.0-1"]);
    assert!(
        !installation.is_enabled() && !starts(&called) && printed.is_empty(),
        "{called}"
    );
}

#[test]
fn an_upgrade_and_a_new_installation_keep_the_choice_of_the_owner() {
    let installation = Installation::new();
    installation.run("postinst", &["configure", ""]);
    installation.enable();
    let upgrade = || installation.run("postinst", &["configure", "0.1.0-1"]);
    upgrade();
    assert!(installation.is_enabled());
    installation.run("prerm", &["remove"]);
    installation.run("postrm", &["remove"]);
    upgrade();
    assert!(installation.is_enabled());
    fs::remove_file(installation.link()).unwrap();
    upgrade();
    assert!(!installation.is_enabled());
}

/// The crates whose source files the program names, as `NAME-VERSION`: in the messages of panics.
fn crates_that_the_program_names() -> BTreeSet<String> {
    let program = fs::read(env!("CARGO_BIN_EXE_affectd")).unwrap();
    let text = String::from_utf8_lossy(&program);
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let names = text.split("/registry/src/").skip(1).filter_map(|path| {
        let name = path.split('/').nth(1)?;
        Some(name.split(|c| !is_of_name(c)).next()?.to_owned())
    });
    names.collect()
}

#[test]
fn the_bill_of_materials_lists_every_linked_crate_with_its_checksum() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--locked", "--example", "sbom", "--"])
        .args([&format!("{}-unknown-linux-gnu", std::env::consts::ARCH), "1700000000"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bom: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (bom["bomFormat"].as_str(), bom["specVersion"].as_str()),
        (Some("CycloneDX"), Some("1.5"))
    );
    assert_eq!(bom["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(bom["metadata"]["component"]["name"], "affectd");

    let components = bom["components"].as_array().unwrap();
    let libraries: Vec<_> = components.iter().filter(|one| one["type"] == "library").collect();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let listed: BTreeSet<String> = libraries
        .iter()
        .map(|one| format!("{}-{}", text(&one["name"]), text(&one["version"])))
        .collect();
    let named = crates_that_the_program_names();
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> = named.difference(&listed).collect();
    assert!(missing.is_empty(), "linked, but not listed: {missing:?}");

    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    for library in libraries {
        assert!(
            lock.contains(&format!("checksum = \"{}\"", text(&library["hashes"][0]["content"]))),
            "{library}"
        );
        assert!(!text(&library["licenses"][0]["expression"]).is_empty(), "{library}");
    }
    let models = components
        .iter()
        .filter(|one| one["type"] == "machine-learning-model")
        .count();
    assert_eq!(models, 4);
}
