//! Lines in a file that is turned over before it grows too large: `affect.csv`, then `affect.csv.1`, and so on to the oldest.
//!
//! Every line is given to the kernel at once, which writes it to the card when it sees fit, within about half a minute. That
//! spares the card; a power cut takes the last half minute along. With `fsync=SECONDS` it is written at least that often, for
//! more wear. When a file is turned over and at a clean end it is always written. A torn last line is cut off at the start.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::lines::{Format, Lines};
use super::spec::{Options, option};
use super::{Output, OutputError, Service};
use crate::fusion::Estimate;
use crate::health::count;

/// A line is never longer: looking for the last line's end needs to go no further back.
const LONGEST_LINE: u64 = 4096;

/// `file:PATH?format=…&max_mb=…&keep=…&fsync=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    path: PathBuf,
    format: Format,
    max: Megabytes,
    /// Files kept beside the newest.
    keep: Keep,
    fsync: Fsync,
}

/// From 1 to 100 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Megabytes(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Keep(u32);

/// How long the kernel may keep lines to itself; `None` for as long as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fsync(Option<Duration>);

impl FileSpec {
    /// `path` is what stands between the colon and the question mark.
    pub fn parse(path: &str, options: Options) -> Result<FileSpec, String> {
        if path.is_empty() || path.ends_with('/') {
            return Err("names no file: give its path, file:/var/log/affectd/affect.jsonl say".into());
        }
        let [format, max, keep, fsync] = options.take(["format", "max_mb", "keep", "fsync"])?;
        Ok(FileSpec {
            path: path.into(),
            format: option("format", format, Format::Json)?,
            max: option("max_mb", max, Megabytes(10))?,
            keep: option("keep", keep, Keep(4))?,
            fsync: option("fsync", fsync, Fsync(None))?,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn check(&self) -> Result<(), OutputError> {
        let fresh = !self.path.exists();
        let opened = open_to_append(&self.path);
        if fresh && opened.is_ok() {
            // There was none before, so it is ours and empty.
            let _ = std::fs::remove_file(&self.path);
        }
        opened.map(|_| ()).map_err(|e| OutputError::Failed(self.explain(&e)))
    }

    pub fn open(&self, service: &Service) -> Result<LineFile, OutputError> {
        LineFile::open(self.clone(), service.clone())
    }

    fn explain(&self, error: &io::Error) -> String {
        let path = self.path.display();
        let folder = self.path.parent().unwrap_or(Path::new("/")).display();
        match error.kind() {
            ErrorKind::NotFound => format!("{path}: no such folder: create it with mkdir -p {folder}"),
            ErrorKind::NotADirectory => format!("{path}: part of the path is a file: correct it"),
            ErrorKind::IsADirectory => format!("{path}: is a folder: name a file in it"),
            ErrorKind::InvalidInput => {
                format!("{path}: is not a regular file: name one, or use another kind of output")
            }
            ErrorKind::PermissionDenied => {
                format!("{path}: permission denied: let the user affectd runs as write to {folder}")
            }
            ErrorKind::ReadOnlyFilesystem => {
                format!("{path}: the file system is read-only: name a file on another one")
            }
            ErrorKind::StorageFull => format!("{path}: no space left: free some, or lower max_mb and keep"),
            _ => format!("{path}: cannot be written ({error}): check the disk, or name another file"),
        }
    }
}

impl fmt::Display for FileSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, format) = (self.path.display(), self.format);
        write!(
            f,
            "file:{path}?format={format}&max_mb={}&keep={}",
            self.max.0, self.keep.0
        )?;
        match self.fsync.0 {
            None => f.write_str("&fsync=off"),
            Some(every) => write!(f, "&fsync={}", every.as_secs()),
        }
    }
}

impl FromStr for Megabytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(mb @ 1..=100_000) => Ok(Megabytes(mb)),
            _ => Err("is a number of megabytes from 1 to 100000"),
        }
    }
}

impl FromStr for Keep {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(files @ 0..=999) => Ok(Keep(files)),
            _ => Err("is a number of old files from 0 to 999"),
        }
    }
}

impl FromStr for Fsync {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("off", _) => Ok(Fsync(None)),
            (_, Ok(seconds @ 0..=3600)) => Ok(Fsync(Some(Duration::from_secs(seconds)))),
            _ => Err("is off or a number of seconds from 0 (every line) to 3600"),
        }
    }
}

/// Opens a file to add to; it must be a regular one.
fn open_to_append(path: &Path) -> io::Result<File> {
    // Looked at first: to open a named pipe would wait for its reader.
    match std::fs::metadata(path) {
        Ok(known) if known.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(known) if !known.is_file() => return Err(ErrorKind::InvalidInput.into()),
        Ok(_) | Err(_) => {}
    }
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// A file that lines are added to.
pub struct LineFile {
    spec: FileSpec,
    service: Service,
    lines: Lines,
    max_bytes: u64,
    /// `None` after a failure, until it can be opened again.
    open: Option<Open>,
    failing: bool,
}

struct Open {
    file: File,
    /// Of whole lines.
    length: u64,
    synced: Instant,
}

impl LineFile {
    fn open(spec: FileSpec, service: Service) -> Result<LineFile, OutputError> {
        let mut output = LineFile {
            lines: Lines::new(spec.format),
            max_bytes: u64::from(spec.max.0) * 1_000_000,
            open: None,
            failing: false,
            service,
            spec,
        };
        match output.reopen() {
            Ok(open) => output.open = Some(open),
            Err(e) => return Err(OutputError::Failed(output.spec.explain(&e))),
        }
        Ok(output)
    }

    /// Opens the file at the end of its last whole line. One that holds other lines than ours is turned over first.
    fn reopen(&self) -> io::Result<Open> {
        let mut file = open_to_append(&self.spec.path)?;
        let mut length = whole_lines(&mut file)?;
        if length > 0 && !self.begins_like_ours(&mut file)? {
            self.turn_over()?;
            file = open_to_append(&self.spec.path)?;
            length = 0;
        }
        file.set_len(length)?;
        if let (0, Some(header)) = (length, self.spec.format.header()) {
            let header = format!("{header}\n");
            file.write_all(header.as_bytes())?;
            length = header.len() as u64;
        }
        Ok(Open {
            file,
            length,
            synced: Instant::now(),
        })
    }

    fn begins_like_ours(&self, file: &mut File) -> io::Result<bool> {
        let expected = match self.spec.format.header() {
            Some(header) => format!("{header}\n"),
            None => "{\"schema\":".into(),
        };
        let mut beginning = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(expected.len() as u64).read_to_end(&mut beginning)?;
        Ok(beginning == expected.as_bytes())
    }

    /// Every file takes the place of the next older one; the oldest goes.
    fn turn_over(&self) -> io::Result<()> {
        let place = |age: u32| match age {
            0 => self.spec.path.clone(),
            age => {
                let mut name = self.spec.path.clone().into_os_string();
                name.push(format!(".{age}"));
                name.into()
            }
        };
        if self.spec.keep.0 == 0 {
            return std::fs::remove_file(place(0));
        }
        for age in (0..self.spec.keep.0).rev() {
            match std::fs::rename(place(age), place(age + 1)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        if open.length + line.len() as u64 > self.max_bytes {
            open.file.sync_data()?;
            self.turn_over()?;
            open = self.reopen()?;
        }
        if let Err(e) = open.file.write_all(line) {
            // Half a line may be there. If it cannot be cut off now, it is when the file is opened again.
            let _ = open.file.set_len(open.length);
            return Err(e);
        }
        open.length += line.len() as u64;
        if self.spec.fsync.0.is_some_and(|every| open.synced.elapsed() >= every) {
            open.file.sync_data()?;
            open.synced = Instant::now();
        }
        self.open = Some(open);
        Ok(())
    }
}

/// The length of `file` up to the end of its last whole line: a power cut leaves half a line, or zeros.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LONGEST_LINE);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(LONGEST_LINE).read_to_end(&mut end)?;
    let whole = end.iter().rposition(|b| *b == b'\n').map(|at| from + at as u64 + 1);
    Ok(whole.unwrap_or(if from == 0 { 0 } else { length }))
}

impl Output for LineFile {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        let line = self.lines.line(estimate).to_vec();
        match self.append(&line) {
            Ok(()) if self.failing => {
                info!("{}: written again", self.spec.path.display());
                self.failing = false;
            }
            Ok(()) => {}
            Err(e) => {
                self.service.dropped.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    count(&self.service.lost);
                    warn!("{}; tried again with every line", self.spec.explain(&e));
                }
                self.failing = true;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        match &self.open {
            Some(open) => open
                .file
                .sync_data()
                .map_err(|e| OutputError::Failed(self.spec.explain(&e))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
