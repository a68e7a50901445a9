//! Lines in a file, which is rotated before it grows too large: `affect.csv`, then `affect.csv.1`, and so on to the oldest.
//!
//! Every line goes to the kernel at once. The kernel writes it to the SD card within about half a minute, which spares the
//! card; a power cut loses that half minute. With `fsync=SECONDS` lines reach the card at least that often, at the price of
//! more wear. Rotation and a clean exit always write everything. A torn last line is cut off when the file is opened.

mod content;
mod spec;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use log::{Level, warn};

use super::contract::{Output, OutputContext, OutputError};
use super::line_encoder::LineEncoder;
use crate::fusion::Estimate;
use crate::health::count;
use crate::queue::WhenFull;
use crate::rate_limited_log::RateLimitedLog;
use content::{Content, End, FileError, PRIVATE, end_of_lines, may_delete, may_rename};
use spec::Fsync;

pub use spec::FileSpec;

/// After a failed rotation, the file grows by this share of its greatest size before the next attempt.
const ROTATION_RETRY: u64 = 10;

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
    /// Estimates that are not in the file.
    dropped: u64,
    log: RateLimitedLog<WriteState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    Working,
    Failing,
}

struct OpenFile {
    file: File,
    /// Where the path leads, without symbolic links: old files lie beside the real one.
    path: PathBuf,
    /// Length in bytes; every line in it is whole.
    length: u64,
    /// After a failed rotation, the length at which to try again.
    retry_at: u64,
    last_sync: Instant,
}

impl FileSpec {
    pub fn open(&self, context: &OutputContext) -> Result<LineFile, OutputError> {
        LineFile::open(self.clone(), context.clone())
    }
}

impl LineFile {
    fn open(spec: FileSpec, context: OutputContext) -> Result<LineFile, OutputError> {
        let mut output = LineFile {
            encoder: LineEncoder::new(spec.format),
            max_bytes: spec.max_size.bytes(),
            open: None,
            state: WriteState::Working,
            dropped: 0,
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

    /// Opens the file after its last whole line. A file with lines of another format is rotated first.
    fn reopen(&self) -> Result<OpenFile, FileError> {
        let (mut file, content) = Content::open(&self.spec.path)?;
        let path = std::fs::canonicalize(&self.spec.path)?;
        let end = match content {
            Content::Empty => End::AfterLine(0),
            Content::Lines(format) if format == self.spec.format => {
                end_of_lines(&mut file, format)?.ok_or_else(|| FileError::Foreign(self.spec.path.clone()))?
            }
            Content::Lines(_) => {
                // Even without old files, lines in another format are not deleted.
                self.rotate(&path, self.spec.keep.0.max(1))?;
                file = create(&path)?;
                End::AfterLine(0)
            }
        };
        let mut length = match end {
            End::AfterLine(length) => length,
            End::AfterText(length) => length,
        };
        file.set_len(length)?;
        if let End::AfterText(_) = end {
            file.write_all(b"\n")?;
            length += 1;
        }
        if let (0, Some(header)) = (length, self.spec.format.header()) {
            let header = format!("{header}\n");
            file.write_all(header.as_bytes())?;
            length = header.len() as u64;
        }
        Ok(OpenFile {
            file,
            path,
            length,
            retry_at: 0,
            last_sync: Instant::now(),
        })
    }

    /// Renames every file to the next older name, and deletes those older than `keep`. Fails, with all files in place, if a file
    /// would be renamed or deleted that is not ours.
    fn rotate(&self, path: &Path, keep: u32) -> Result<(), FileError> {
        let name_of = |age: u32| match age {
            0 => path.to_path_buf(),
            age => {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".{age}"));
                name.into()
            }
        };
        // With a lower `keep` than before, there are files behind the oldest.
        let exists = |age: u32| std::fs::symlink_metadata(name_of(age)).is_ok();
        (1..keep).try_for_each(|age| may_rename(&name_of(age)))?;
        may_delete(&name_of(keep))?;
        for age in (keep..).take_while(|age| exists(*age) && may_delete(&name_of(*age)).is_ok()) {
            std::fs::remove_file(name_of(age))?;
        }
        for age in (0..keep).rev() {
            match std::fs::rename(name_of(age), name_of(age + 1)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the open file, or opens it again if another program has renamed, deleted or cut it.
    fn take_open(&mut self) -> Result<OpenFile, FileError> {
        let Some(mut open) = self.open.take() else {
            return self.reopen();
        };
        let ours = open.file.metadata()?;
        match std::fs::metadata(&self.spec.path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) && ours.len() >= open.length => {
                // Another program may have added to it.
                open.length = ours.len();
                Ok(open)
            }
            _ => {
                let _ = open.file.sync_data();
                self.reopen()
            }
        }
    }

    fn append(&mut self, line: &[u8]) -> Result<(), FileError> {
        let mut open = self.take_open()?;
        if open.length + line.len() as u64 > self.max_bytes.max(open.retry_at) {
            open.file.sync_data()?;
            match self.rotate(&open.path, self.spec.keep.0) {
                Ok(()) => open = self.reopen()?,
                Err(e) => {
                    open.retry_at = open.length + self.max_bytes / ROTATION_RETRY;
                    let reason = self.spec.explain(&e);
                    warn!(
                        "{}: grows beyond max_mb, because it cannot be rotated: {reason}",
                        self.spec.path.display()
                    );
                }
            }
        }
        if let Err(e) = open.file.write_all(line) {
            // A part of the line may be in the file. If it cannot be cut off now, reopening does it.
            let _ = open.file.set_len(open.length);
            return Err(e.into());
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

/// Creates a file that only its owner may read. Fails if there is one.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(path)
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
            (Err(_), WriteState::Failing) => {
                self.dropped += 1;
                count(&self.context.dropped);
            }
            (Err(e), WriteState::Working) => {
                self.dropped += 1;
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
        if let Some(open) = &self.open {
            let synced = open.file.sync_data();
            synced.map_err(|e| OutputError::Failed(self.spec.explain(&e.into())))?;
        }
        // A daemon has logged and counted its losses. The result of a replay is its file, so it must be whole.
        match (self.context.when_full, self.dropped) {
            (WhenFull::Wait, 1..) => Err(OutputError::Failed(format!(
                "{}: {} estimates are missing in the file: the log says why; replay the clip again",
                self.spec.path.display(),
                self.dropped
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
