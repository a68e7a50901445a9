//! The time of day of affectd, which a test can step. The machine's own clock stays as it is: a library that is loaded into
//! affectd adds the step.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Clock {
    library: PathBuf,
    step: PathBuf,
}

impl Clock {
    /// Compiles the library into `folder`.
    pub fn new(folder: &Path) -> Clock {
        let clock = Clock {
            library: folder.join("clock.so"),
            step: folder.join("clock"),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/clock.c");
        // Rust needs this compiler, too, for linking.
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&clock.library, &source])
            .status()
            .unwrap_or_else(|e| panic!("cc cannot be started ({e}): sudo apt-get install build-essential"));
        assert!(compiled.success());
        File::create(&clock.step).unwrap().write_all(&[0; 8]).unwrap();
        clock
    }

    /// Lets `command` use this clock.
    pub fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAULTS_CLOCK", &self.step);
    }

    /// Steps the time of day by so many seconds from the real one.
    pub fn step(&self, seconds: i64) {
        let file = fs::OpenOptions::new().write(true).open(&self.step).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}
