//! What is in a file: lines of ours, the remains of a power cut, or something that belongs to somebody else.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::output::line_encoder::Format;
use crate::output::place::{folder_of, real_path};

/// No line of ours is longer, in bytes. The search for the end of the last line goes no further back.
const MAX_LINE_BYTES: u64 = 4096;
/// How much is read at once while looking for the end of zeros, in bytes.
const BLOCK_BYTES: u64 = 64 * 1024;
/// Only the owner may read estimates: they are about a person.
pub const PRIVATE: u32 = 0o600;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file has content that affectd did not write. It is never changed, renamed or removed.
    #[error("{0}: has content that affectd did not write")]
    Foreign(PathBuf),
}

/// What a file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing, or only zeros, as a power cut leaves them.
    Empty,
    /// Lines of this format.
    Lines(Format),
}

impl Content {
    /// Opens or creates a regular file for appending, readable by its owner only if it is new. Changes nothing in it.
    pub fn open(path: &Path) -> Result<(File, Content), FileError> {
        refuse_irregular(path)?;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(PRIVATE).open(path)?;
        match Content::of(&mut file)? {
            Some(content) => Ok((file, content)),
            None => Err(FileError::Foreign(path.into())),
        }
    }

    /// Whether [`Content::open`] would succeed. Creates and changes nothing.
    pub fn check(path: &Path) -> Result<(), FileError> {
        refuse_irregular(path)?;
        match OpenOptions::new().read(true).append(true).open(path) {
            Ok(mut file) => match Content::of(&mut file)? {
                Some(_) => Ok(()),
                None => Err(FileError::Foreign(path.into())),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(may_create_in(folder_of(&real_path(path)))?),
            Err(e) => Err(e.into()),
        }
    }

    /// `None` if the file begins with something that affectd does not write.
    fn of(file: &mut File) -> io::Result<Option<Content>> {
        for format in [Format::Json, Format::Csv] {
            let expected = beginning(format);
            let mut actual = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.take(expected.len() as u64).read_to_end(&mut actual)?;
            if actual == expected {
                return Ok(Some(Content::Lines(format)));
            }
        }
        let empty = nonzero_length(file)? == 0;
        Ok(empty.then_some(Content::Empty))
    }
}

/// Checked before opening, because opening a named pipe blocks until it has a reader.
fn refuse_irregular(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(known) if known.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(known) if !known.is_file() => Err(ErrorKind::InvalidInput.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether this process may create a file in `folder`. A trial would show the file to other programs.
fn may_create_in(folder: &Path) -> io::Result<()> {
    let folder = CString::new(folder.as_os_str().as_bytes())?;
    let mode = libc::W_OK | libc::X_OK;
    // SAFETY: `folder` ends with a zero byte and lives until the call returns.
    match unsafe { libc::faccessat(libc::AT_FDCWD, folder.as_ptr(), mode, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How every file of this format begins. No JSON of other programs begins with the same two members.
fn beginning(format: Format) -> Vec<u8> {
    match format.header() {
        Some(header) => format!("{header}\n").into_bytes(),
        None => b"{\"schema\":1,\"seq\":".to_vec(),
    }
}

/// Whether `text`, which has no end of line, can be the beginning of a line of ours.
fn is_torn_line(text: &[u8], format: Format) -> bool {
    match format {
        Format::Json => {
            let expected = beginning(format);
            let common = text.len().min(expected.len());
            text[..common] == expected[..common]
        }
        Format::Csv => text.iter().all(|b| b.is_ascii_digit() || b",.:TZ-".contains(b)),
    }
}

/// Whether the file at `path` may be replaced: it is absent, or has nothing but lines of ours.
pub fn is_ours(path: &Path) -> Result<(), FileError> {
    let known = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        known => known?,
    };
    if known.is_file() && Content::of(&mut File::open(path)?)?.is_some() {
        return Ok(());
    }
    Err(FileError::Foreign(path.into()))
}

/// Where the next line goes, in bytes from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After a whole line.
    AfterLine(u64),
    /// After text that affectd did not write. The text stays, and a line end follows it.
    AfterText(u64),
}

/// Finds the end of the last whole line in a file with lines of `format`. After it there may be zeros and a part of a line, as a
/// power cut leaves them.
pub fn end_of_lines(file: &mut File, format: Format) -> io::Result<End> {
    let length = nonzero_length(file)?;
    let from = length.saturating_sub(MAX_LINE_BYTES);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(length - from).read_to_end(&mut end)?;
    let whole = end.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let has_start = whole > 0 || from == 0;
    match has_start && is_torn_line(&end[whole..], format) {
        true => Ok(End::AfterLine(from + whole as u64)),
        false => Ok(End::AfterText(length)),
    }
}

/// The length of the file without the zeros at its end.
fn nonzero_length(file: &mut File) -> io::Result<u64> {
    let mut length = file.metadata()?.len();
    let mut block = Vec::new();
    while length > 0 {
        let from = length.saturating_sub(BLOCK_BYTES);
        block.clear();
        file.seek(SeekFrom::Start(from))?;
        file.take(length - from).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|b| *b != 0) {
            return Ok(from + at as u64 + 1);
        }
        length = from;
    }
    Ok(0)
}
