//! What is in a file: lines of ours, the remains of a power cut, or something that belongs to somebody else.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::output::csv::HEADER;
use crate::output::line_encoder::Format;
use crate::output::place::{folder_of, real_path};

/// No line of ours is longer, in bytes.
const MAX_LINE_BYTES: u64 = 4096;
/// How much is read at once while looking for the end of zeros, in bytes.
const BLOCK_BYTES: u64 = 64 * 1024;
/// A power cut leaves at most a few blocks of zeros, in bytes. A larger file of zeros belongs to somebody else.
const MAX_ZEROS_ALONE: u64 = BLOCK_BYTES;
/// A power cut leaves no more zeros after lines, in bytes: half a minute of lines is far less.
const MAX_ZEROS_AFTER_LINES: u64 = 16 * 1024 * 1024;
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
    /// Nothing, or a few zeros, as a power cut leaves them.
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
        let is_small = file.metadata()?.len() <= MAX_ZEROS_ALONE;
        let is_empty = is_small && nonzero_length(file)? == Some(0);
        Ok(is_empty.then_some(Content::Empty))
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

/// Whether `line` can be a whole line of ours.
fn is_line(line: &[u8], format: Format) -> bool {
    match format {
        Format::Json => line.starts_with(&beginning(format)) && line.ends_with(b"}"),
        Format::Csv => is_header(line) || (is_row(line) && commas(line) == commas(HEADER.as_bytes())),
    }
}

/// Whether `text`, which has no end of line, can be the beginning of the line after `last`.
fn is_torn_line(text: &[u8], last: Option<&[u8]>, format: Format) -> bool {
    match format {
        Format::Json => {
            let expected = beginning(format);
            let common = text.len().min(expected.len());
            text[..common] == expected[..common]
        }
        // Only the number tells a row from other numbers, which somebody may have added.
        Format::Csv => is_row(text) && last.is_some_and(|last| is_header(last) || continues(last, text)),
    }
}

fn is_header(line: &[u8]) -> bool {
    line == HEADER.as_bytes()
}

fn is_row(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_digit() || b",.:TZ-".contains(b))
}

fn commas(line: &[u8]) -> usize {
    line.iter().filter(|b| **b == b',').count()
}

/// Whether the row `text` has the number after that of the row `last`, or the first number, as after a restart. The number may
/// be cut.
fn continues(last: &[u8], text: &[u8]) -> bool {
    let cells = |row: &[u8]| row.splitn(2, |b| *b == b',').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let before = str::from_utf8(&cells(last)[0])
        .ok()
        .and_then(|seq| seq.parse::<u64>().ok());
    let expected = [before.map(|seq| seq.saturating_add(1)), Some(1)];
    expected.into_iter().flatten().any(|seq| match &cells(text)[..] {
        [cut] => seq.to_string().as_bytes().starts_with(cut),
        [whole, ..] => seq.to_string().as_bytes() == whole,
        [] => false,
    })
}

/// Fails if there is a file at `path` that does not begin as ours do, or anything but a file.
pub fn may_rename(path: &Path) -> Result<(), FileError> {
    open_ours(path).map(|_| ())
}

/// Fails if there is a file at `path` that does not begin and end as ours do, or anything but a file.
pub fn may_delete(path: &Path) -> Result<(), FileError> {
    let Some((mut file, content)) = open_ours(path)? else {
        return Ok(());
    };
    let ends_as_ours = match content {
        Content::Empty => true,
        Content::Lines(format) => Tail::read(&mut file)?.is_some_and(|tail| tail.is_ours(format)),
    };
    match ends_as_ours {
        true => Ok(()),
        false => Err(FileError::Foreign(path.into())),
    }
}

/// Opens a file that begins as ours do; `None` if there is no file.
fn open_ours(path: &Path) -> Result<Option<(File, Content)>, FileError> {
    let known = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        known => known?,
    };
    if known.is_file() {
        let mut file = File::open(path)?;
        if let Some(content) = Content::of(&mut file)? {
            return Ok(Some((file, content)));
        }
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
/// power cut leaves them. `None` if there are more zeros than that.
pub fn end_of_lines(file: &mut File, format: Format) -> io::Result<Option<End>> {
    let tail = Tail::read(file)?;
    Ok(tail.map(|tail| match tail.rest.is_empty() || tail.is_ours(format) {
        true => End::AfterLine(tail.length - tail.rest.len() as u64),
        false => End::AfterText(tail.length),
    }))
}

/// The end of a file of lines.
struct Tail {
    /// The length of the file without the zeros at its end, in bytes.
    length: u64,
    /// The last whole line, without its end. `None` if there is none, or if it is longer than ours.
    last: Option<Vec<u8>>,
    /// What follows the last whole line, or the end of it if it is longer than a line of ours.
    rest: Vec<u8>,
    /// Whether `rest` is at the start of a line.
    rest_is_whole: bool,
}

impl Tail {
    /// `None` if the file ends with more zeros than a power cut leaves.
    fn read(file: &mut File) -> io::Result<Option<Tail>> {
        let Some(length) = nonzero_length(file)? else {
            return Ok(None);
        };
        // The last whole line, and a part of the next.
        let from = length.saturating_sub(2 * MAX_LINE_BYTES);
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.take(length - from).read_to_end(&mut end)?;
        let last_break = end.iter().rposition(|b| *b == b'\n');
        let rest = end.split_off(last_break.map_or(0, |at| at + 1));
        let last = last_break.and_then(|at| {
            let before = &end[..at];
            match before.iter().rposition(|b| *b == b'\n') {
                Some(start) => Some(before[start + 1..].to_vec()),
                None => (from == 0).then(|| before.to_vec()),
            }
        });
        Ok(Some(Tail {
            length,
            last,
            rest,
            rest_is_whole: last_break.is_some() || from == 0,
        }))
    }

    /// Whether the last whole line is ours, and nothing but a part of the next one follows it.
    fn is_ours(&self, format: Format) -> bool {
        let rest_is_ours = self.rest.is_empty() || is_torn_line(&self.rest, self.last.as_deref(), format);
        let last_is_ours = match &self.last {
            Some(line) => is_line(line, format),
            // A file with one line, which is torn.
            None => self.length == self.rest.len() as u64,
        };
        self.rest_is_whole && rest_is_ours && last_is_ours
    }
}

/// The length of the file without the zeros at its end. `None` if there are more zeros than a power cut leaves.
fn nonzero_length(file: &mut File) -> io::Result<Option<u64>> {
    let whole = file.metadata()?.len();
    let mut length = whole;
    let mut block = Vec::new();
    while length > 0 {
        let from = length.saturating_sub(BLOCK_BYTES);
        block.clear();
        file.seek(SeekFrom::Start(from))?;
        file.take(length - from).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|b| *b != 0) {
            return Ok(Some(from + at as u64 + 1));
        }
        length = from;
        if whole - length > MAX_ZEROS_AFTER_LINES {
            return Ok(None);
        }
    }
    Ok(Some(0))
}
