//! The fuzz targets as ordinary tests: every input of the corpora, then mutations of them, new ones for `AFFECTD_FUZZ_SECONDS` if it
//! is set. `AFFECTD_FUZZ_SEED` repeats those of an earlier run. `tests/fuzz/README.md` has more.

#[path = "targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use targets::wire::{C_READERS, CReader, CReaders, SMALL};
use targets::{TARGETS, Target, named};

/// The longest mutation, which is also libFuzzer's limit.
const MAX_BYTES: usize = 4096;
/// How many mutations of each target are checked without `AFFECTD_FUZZ_SECONDS`.
const MUTATIONS: u32 = 200;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Reproducible pseudo-random numbers (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to `end` − 1.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// Changes `input` in up to four places. `other` is another input of the corpus.
    fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let from = self.below(input.len() + 1);
            let until = (from + 1 + self.below(16)).min(input.len());
            match self.below(7) {
                0 if from < until => input[from] ^= 1 << self.below(8),
                1 if from < until => input[from] = [0, 1, 0x7F, 0x80, 0xFF][self.below(5)],
                2 => drop(input.drain(from..until)),
                3 => input.extend_from_within(from..until),
                4 => input.insert(from, self.byte()),
                5 => input.truncate(from),
                _ => {
                    let start = self.below(other.len() + 1);
                    let end = start + self.below(other.len() - start + 1);
                    input.splice(from..until, other[start..end].iter().copied());
                }
            }
        }
    }
}

/// Checks an input. If it fails, it is kept in a file, which cargo-fuzz can minimize.
fn check(target: &Target, input: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.check)(input))).is_err() {
        let kept = env::temp_dir().join(format!("affectd-fuzz-{}", target.name));
        fs::write(&kept, input).unwrap();
        panic!(
            "the target {} fails on {origin}: the input is in {}",
            target.name,
            kept.display()
        );
    }
}

fn replay(target: &Target) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder().join("corpus").join(target.name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty(), "no corpus");
    for (path, input) in paths.iter().zip(&corpus) {
        check(target, input, &path.display().to_string());
    }

    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("AFFECTD_FUZZ_SECONDS");
    // Without a time, the same mutations at every run: a new finding must not depend on chance.
    let new_seed = || match seconds {
        Some(_) => SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        None => 1,
    };
    let seed = number("AFFECTD_FUZZ_SEED").unwrap_or_else(new_seed);
    println!("{}: AFFECTD_FUZZ_SEED={seed}", target.name);
    let mut noise = Noise(seed | 1);
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let is_due = |count| end.map_or(count < MUTATIONS, |end| Instant::now() < end);
    for _ in (0..).take_while(|count| is_due(*count)) {
        let mut input = corpus[noise.below(corpus.len())].clone();
        let other = noise.below(corpus.len());
        noise.mutate(&mut input, &corpus[other]);
        input.truncate(MAX_BYTES);
        check(target, &input, &format!("a mutation, with AFFECTD_FUZZ_SEED={seed}"));
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(named(stringify!($name)));
        })*

        #[test]
        fn every_target_has_a_test_a_corpus_and_a_binary() {
            let expected: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            let tests = BTreeSet::from([$(stringify!($name).to_owned()),*, "wire".to_owned()]);
            assert_eq!(tests, expected);
            let names = |sub_folder: &str| -> BTreeSet<String> {
                let entries = fs::read_dir(folder().join(sub_folder)).unwrap();
                let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
                entries.map(|entry| stem(entry.unwrap().path())).collect()
            };
            assert_eq!(names("corpus"), expected);
            assert_eq!(names("fuzz_targets"), expected);
        }
    };
}

replayed! { commands config jpeg manifest matroska mjpeg monitor mqtt mqtt_packets onnx spec wav }

#[test]
fn wire() {
    let libraries = tempfile::tempdir().unwrap();
    let load = |bytes| c_reader(libraries.path(), bytes);
    let readers = CReaders {
        large: load(1024),
        small: load(SMALL),
    };
    C_READERS.set(readers).unwrap();
    replay(named("wire"));
}

/// Compiles the C reader with a buffer of this size, and loads it into this process.
fn c_reader(folder_of_library: &Path, bytes: usize) -> CReader {
    let library = folder_of_library.join(format!("wire{bytes}.so"));
    let compiled = Command::new("cc")
        .args(["-std=c99", "-O1", "-shared", "-fPIC", "-DREAD=affectd_wire_read"])
        .arg(format!("-DAFFECTD_WIRE_BUFFER={bytes}"))
        .arg("-o")
        .arg(&library)
        .arg(folder().join("wire.c"))
        .status()
        .expect("cc, which build-essential brings");
    assert!(compiled.success());
    let path = CString::new(library.as_os_str().as_bytes()).unwrap();
    // SAFETY: both texts end with a zero byte. The library has no constructors.
    let symbol = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        libc::dlsym(handle, c"affectd_wire_read".as_ptr())
    };
    assert!(!symbol.is_null());
    // SAFETY: `wire.c` defines the function with this signature, and the library stays loaded.
    unsafe { std::mem::transmute::<*mut libc::c_void, CReader>(symbol) }
}
