//! Lines in a file, which is rotated before it grows too large: `affect.csv`, then `affect.csv.1`, and so on to the oldest.
//!
//! Every line goes to the kernel at once. The kernel writes it to the SD card within about half a minute, which spares the
//! card; a power cut loses that half minute. With `fsync=SECONDS` lines reach the card at least that often, at the price of
//! more wear. Rotation and a clean exit always write everything. A torn last line is cut off when the file is opened.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use log::Level;

use super::contract::{Output, OutputContext, OutputError};
use super::line_encoder::{Format, LineEncoder};
use super::options::Options;
use crate::fusion::Estimate;
use crate::health::count;
use crate::rate_limited_log::RateLimitedLog;

/// No line is longer, in bytes. The search for the end of the last line goes no further back.
const MAX_LINE_BYTES: u64 = 4096;

/// `file:PATH?format=…&max_mb=…&keep=…&fsync=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    path: PathBuf,
    format: Format,
    max_size: Megabytes,
    keep: OldFiles,
    fsync: Fsync,
}

/// The size at which a file is rotated, from 1 to 100 000 megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Megabytes(u32);

impl Megabytes {
    fn bytes(self) -> u64 {
        u64::from(self.0) * 1_000_000
    }
}

/// How many old files are kept beside the newest, from 0 to 999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OldFiles(u32);

/// When lines are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fsync {
    /// The kernel decides.
    Off,
    /// At least this often, up to 3600 s; zero for every line.
    Every(Duration),
}

impl FileSpec {
    /// `path` is the text between the colon and the question mark.
    pub fn parse(path: &str, options: &Options) -> Result<FileSpec, String> {
        if path.is_empty() || path.ends_with('/') {
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

    /// Whether the file can be written. Leaves no new file behind.
    pub fn check(&self) -> Result<(), OutputError> {
        let is_new = !self.path.exists();
        let opened = open_to_append(&self.path);
        if is_new && opened.is_ok() {
            let _ = std::fs::remove_file(&self.path);
        }
        opened.map(|_| ()).map_err(|e| OutputError::Failed(self.explain(&e)))
    }

    pub fn open(&self, context: &OutputContext) -> Result<LineFile, OutputError> {
        LineFile::open(self.clone(), context.clone())
    }

    fn explain(&self, error: &io::Error) -> String {
        let path = self.path.display();
        let folder = self.path.parent().unwrap_or(Path::new("/")).display();
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
                format!("{path}: the file system is read-only: use a file on another file system")
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

/// Opens or creates a regular file for appending.
fn open_to_append(path: &Path) -> io::Result<File> {
    // Checked before opening, because opening a named pipe blocks until it has a reader.
    match std::fs::metadata(path) {
        Ok(known) if known.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(known) if !known.is_file() => return Err(ErrorKind::InvalidInput.into()),
        Ok(_) | Err(_) => {}
    }
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// A file of lines, opened for appending.
pub struct LineFile {
    spec: FileSpec,
    context: OutputContext,
    encoder: LineEncoder,
    max_bytes: u64,
    /// `None` after a failed write. The next write opens the file again.
    open: Option<OpenFile>,
    /// Whether the last write succeeded.
    state: WriteState,
    log: RateLimitedLog<WriteState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    Working,
    Failing,
}

struct OpenFile {
    file: File,
    /// Length in bytes; every line in it is whole.
    length: u64,
    last_sync: Instant,
}

impl LineFile {
    fn open(spec: FileSpec, context: OutputContext) -> Result<LineFile, OutputError> {
        let mut output = LineFile {
            encoder: LineEncoder::new(spec.format),
            max_bytes: spec.max_size.bytes(),
            open: None,
            state: WriteState::Working,
            log: RateLimitedLog::new(),
            context,
            spec,
        };
        match output.reopen() {
            Ok(open) => output.open = Some(open),
            Err(e) => return Err(OutputError::Failed(output.spec.explain(&e))),
        }
        Ok(output)
    }

    /// Opens the file after its last whole line. A file with other content is rotated away first.
    fn reopen(&self) -> io::Result<OpenFile> {
        let mut file = open_to_append(&self.spec.path)?;
        let mut length = whole_lines_length(&mut file)?;
        if length > 0 && !self.has_our_format(&mut file)? {
            self.rotate()?;
            file = open_to_append(&self.spec.path)?;
            length = 0;
        }
        file.set_len(length)?;
        if let (0, Some(header)) = (length, self.spec.format.header()) {
            let header = format!("{header}\n");
            file.write_all(header.as_bytes())?;
            length = header.len() as u64;
        }
        Ok(OpenFile {
            file,
            length,
            last_sync: Instant::now(),
        })
    }

    /// Whether the file begins as this format does.
    fn has_our_format(&self, file: &mut File) -> io::Result<bool> {
        let expected = match self.spec.format.header() {
            Some(header) => format!("{header}\n"),
            None => "{\"schema\":".into(),
        };
        let mut beginning = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(expected.len() as u64).read_to_end(&mut beginning)?;
        Ok(beginning == expected.as_bytes())
    }

    /// Renames every file to the next older name. The oldest file is overwritten.
    fn rotate(&self) -> io::Result<()> {
        let name_of = |age: u32| match age {
            0 => self.spec.path.clone(),
            age => {
                let mut name = self.spec.path.clone().into_os_string();
                name.push(format!(".{age}"));
                name.into()
            }
        };
        if self.spec.keep.0 == 0 {
            return std::fs::remove_file(name_of(0));
        }
        for age in (0..self.spec.keep.0).rev() {
            match std::fs::rename(name_of(age), name_of(age + 1)) {
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
            self.rotate()?;
            open = self.reopen()?;
        }
        if let Err(e) = open.file.write_all(line) {
            // A part of the line may be in the file. If it cannot be cut off now, reopening does it.
            let _ = open.file.set_len(open.length);
            return Err(e);
        }
        open.length += line.len() as u64;
        if let Fsync::Every(interval) = self.spec.fsync
            && open.last_sync.elapsed() >= interval
        {
            open.file.sync_data()?;
            open.last_sync = Instant::now();
        }
        self.open = Some(open);
        Ok(())
    }
}

/// The length of `file` in bytes, up to the end of its last whole line. A power cut leaves half a line, or zeros, after it.
fn whole_lines_length(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(MAX_LINE_BYTES);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(MAX_LINE_BYTES).read_to_end(&mut end)?;
    let whole = end.iter().rposition(|b| *b == b'\n').map(|at| from + at as u64 + 1);
    Ok(whole.unwrap_or(if from == 0 { 0 } else { length }))
}

impl Output for LineFile {
    fn write(&mut self, estimate: &Estimate) -> Result<(), OutputError> {
        let line = self.encoder.encode(estimate).to_vec();
        match (self.append(&line), self.state) {
            (Ok(()), WriteState::Working) => {}
            (Ok(()), WriteState::Failing) => {
                self.state = WriteState::Working;
                let text = format_args!("{}: can be written again", self.spec.path.display());
                self.log.set(self.state, Level::Info, text);
            }
            (Err(_), WriteState::Failing) => count(&self.context.dropped),
            (Err(e), WriteState::Working) => {
                count(&self.context.dropped);
                count(&self.context.lost);
                self.state = WriteState::Failing;
                let text = format_args!("{}; affectd tries again with every line", self.spec.explain(&e));
                self.log.set(self.state, Level::Warn, text);
            }
        }
        self.log.flush();
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
