//! How a file output is written on the command line and in the configuration.

use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::content::{Content, FileError};
use crate::output::contract::OutputError;
use crate::output::line_encoder::Format;
use crate::output::options::Options;
use crate::output::place::{folder_of, real_path};

/// `file:PATH?format=…&max_mb=…&keep=…&fsync=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) max_size: Megabytes,
    pub(super) keep: OldFiles,
    pub(super) fsync: Fsync,
}

/// The size at which a file is rotated, from 1 to 100 000 megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Megabytes(u32);

impl Megabytes {
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.0) * 1_000_000
    }
}

/// How many old files are kept beside the newest, from 0 to 999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldFiles(pub(super) u32);

/// When lines are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fsync {
    /// The kernel decides.
    Off,
    /// At least this often, up to 3600 s; zero for every line.
    Every(Duration),
}

impl FileSpec {
    /// `path` is the text between the colon and the question mark.
    pub fn parse(path: impl AsRef<OsStr>, options: &Options) -> Result<FileSpec, String> {
        let path = path.as_ref();
        if path.is_empty() || path.as_encoded_bytes().ends_with(b"/") {
            return Err("the path of a file is missing: write, for example, file:/var/log/affectd/affect.jsonl".into());
        }
        options.allow_only(&["format", "max_mb", "keep", "fsync"])?;
        Ok(FileSpec {
            path: path.into(),
            format: options.get_or("format", Format::Json)?,
            max_size: options.get_or("max_mb", Megabytes(10))?,
            keep: options.get_or("keep", OldFiles(4))?,
            fsync: options.get_or("fsync", Fsync::Off)?,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file can be written. Creates no file, and changes no existing one.
    pub fn check(&self) -> Result<(), OutputError> {
        Content::check(&self.path).map_err(|e| OutputError::Failed(self.explain(&e)))
    }

    /// One line for the user about a failure of this file.
    pub(super) fn explain(&self, error: &FileError) -> String {
        let path = self.path.display();
        let real = real_path(&self.path);
        let folder = folder_of(&real).display();
        let error = match error {
            FileError::Io(error) => error,
            FileError::Foreign(file) => {
                let file = file.display();
                return format!("{file}: has content that affectd did not write: move it away, or use another file");
            }
        };
        match error.kind() {
            ErrorKind::NotFound => format!("{path}: no such folder: create it with mkdir -p {folder}"),
            ErrorKind::NotADirectory => format!("{path}: part of the path is a file: correct the path"),
            ErrorKind::IsADirectory => format!("{path}: is a folder: name a file in it"),
            ErrorKind::InvalidInput => {
                format!("{path}: is not a regular file: name a regular file, or use another kind of output")
            }
            ErrorKind::PermissionDenied => {
                format!("{path}: permission denied: allow the user that runs affectd to write to {folder}")
            }
            ErrorKind::ReadOnlyFilesystem => {
                format!(
                    "{path}: its file system is read-only, for this service at least: use a folder that it may write to, for \
                     example /var/log/affectd"
                )
            }
            ErrorKind::StorageFull => {
                format!("{path}: no space left on the disk: free some space, or lower max_mb and keep")
            }
            _ => format!("{path}: cannot be written ({error}): check the disk, or use another file"),
        }
    }
}

impl fmt::Display for FileSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, format) = (self.path.display(), self.format);
        write!(
            f,
            "file:{path}?format={format}&max_mb={}&keep={}",
            self.max_size.0, self.keep.0
        )?;
        match self.fsync {
            Fsync::Off => f.write_str("&fsync=off"),
            Fsync::Every(every) => write!(f, "&fsync={}", every.as_secs()),
        }
    }
}

impl FromStr for Megabytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(mb @ 1..=100_000) => Ok(Megabytes(mb)),
            _ => Err("must be a number of megabytes from 1 to 100000"),
        }
    }
}

impl FromStr for OldFiles {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(files @ 0..=999) => Ok(OldFiles(files)),
            _ => Err("must be a number of old files from 0 to 999"),
        }
    }
}

impl FromStr for Fsync {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("off", _) => Ok(Fsync::Off),
            (_, Ok(seconds @ 0..=3600)) => Ok(Fsync::Every(Duration::from_secs(seconds))),
            _ => Err("must be off, or a number of seconds from 0 (every line) to 3600"),
        }
    }
}
