//! Finds the commit that affectd is built from, for `affectd --version`.
//!
//! Everything here depends on the commit alone and not on the time of the build, so two builds of one commit are equal.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// What the binary is made of. A change here that is not committed marks the commit as `.dirty`.
const INPUTS: &[&str] = &["build.rs", "Cargo.lock", "Cargo.toml", "src"];
/// Of these, the files that a build may embed.
const MODELS: &str = "models";
const MODEL_FILES: &[&str] = &["json", "onnx"];
const SHORT_HASH: usize = 7;

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|e| panic!("{name}, which Cargo sets: {e}"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let inputs = inputs(&root);
    for input in &inputs {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let commit = Git::at(&root).map_or_else(|| "unknown commit".into(), |git| git.commit(&inputs));
    // Not named AFFECTD_*: Cargo also sets it for `cargo run`, where those names are configuration.
    println!(
        "cargo::rustc-env=BUILD_IDENTITY={commit}, {}, {}",
        variable("CARGO_CFG_TARGET_ARCH"),
        variable("PROFILE")
    );
}

fn inputs(root: &Path) -> Vec<PathBuf> {
    let models = std::fs::read_dir(root.join(MODELS)).into_iter().flatten().flatten();
    let is_model = |path: &PathBuf| {
        path.extension()
            .is_some_and(|e| MODEL_FILES.iter().any(|known| e == *known))
    };
    let mut inputs: Vec<PathBuf> = INPUTS.iter().map(|name| root.join(name)).collect();
    inputs.extend(models.map(|entry| entry.path()).filter(is_model));
    inputs
}

/// The repository whose top folder is this package.
struct Git<'a> {
    root: &'a Path,
}

impl Git<'_> {
    /// `None` without git, and for a release unpacked inside another repository, whose commit says nothing about it.
    fn at(root: &Path) -> Option<Git<'_>> {
        let git = Git { root };
        let top = git.run(&["rev-parse", "--show-toplevel"])?;
        (Path::new(&top).canonicalize().ok()? == root.canonicalize().ok()?).then_some(git)
    }

    /// What the command prints; `None` if it fails.
    fn run(&self, arguments: &[&str]) -> Option<String> {
        // Without optional locks, `git status` leaves the index as it is.
        let mut command = Command::new("git");
        command
            .arg("--no-optional-locks")
            .args(arguments)
            .current_dir(self.root);
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    }

    /// `162dcda 2026-11-29`, or `162dcda.dirty 2026-11-29` if an input has changed since that commit.
    fn commit(&self, inputs: &[PathBuf]) -> String {
        self.watch();
        let Some(hash) = self.run(&["rev-parse", "HEAD"]) else {
            return "unknown commit".into();
        };
        let mut status = vec!["status", "--porcelain", "--"];
        status.extend(inputs.iter().filter_map(|path| path.to_str()));
        let dirty = match self.run(&status) {
            Some(changes) if changes.is_empty() => "",
            _ => ".dirty",
        };
        let date = self.date().map(|date| format!(" {date}")).unwrap_or_default();
        format!("{:.SHORT_HASH$}{dirty}{date}", hash)
    }

    /// The day of `SOURCE_DATE_EPOCH`, or else of the commit, in UTC.
    fn date(&self) -> Option<String> {
        let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => self.run(&["show", "-s", "--format=%ct", "HEAD"])?,
        };
        let seconds: u64 = seconds
            .parse()
            .unwrap_or_else(|e| panic!("SOURCE_DATE_EPOCH={seconds}: {e}: give seconds since 1970"));
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        time.split('T').next().map(str::to_owned)
    }

    /// Runs this script again when HEAD moves. Only files that exist are named: Cargo takes a missing one as changed, and
    /// would build everything on every call.
    fn watch(&self) {
        let mut watched = vec!["HEAD".to_owned(), "packed-refs".to_owned()];
        if let Some(branch) = self.run(&["symbolic-ref", "-q", "HEAD"]) {
            // A branch whose ref is packed gets a file of its own with the next commit. The log of HEAD shows that.
            watched.push(branch);
            watched.push("logs/HEAD".to_owned());
        }
        for name in watched {
            // In a worktree these lie in different folders, which git knows.
            let path = self.run(&["rev-parse", "--git-path", &name]);
            if let Some(path) = path.map(|path| self.root.join(path)).filter(|path| path.exists()) {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
}
