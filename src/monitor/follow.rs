//! Reads a file that may still be written, like `tail -F`.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// More than an estimate and what is before it: two estimates may differ in nothing but their number and time.
const TAIL_BYTES: usize = 2048;

/// A file that is read from its beginning, and from the beginning of each file that takes its place.
pub struct FollowedFile {
    path: PathBuf,
    file: File,
    /// The bytes that have been read.
    position: u64,
    /// The last of them. If the file no longer has them there, it was truncated and written again, however long it is now.
    tail: Vec<u8>,
}

/// The outcome of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes were read.
    Bytes(usize),
    /// Nothing has been written since.
    Nothing,
    /// The file was truncated or replaced: the next bytes are from the beginning.
    Restarted,
    /// The end of something that is not a regular file, such as a pipe.
    End,
}

impl FollowedFile {
    pub fn open(path: &Path) -> io::Result<FollowedFile> {
        Ok(FollowedFile {
            path: path.to_path_buf(),
            file: File::open(path)?,
            position: 0,
            tail: Vec::new(),
        })
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Progress> {
        if let Some(progress) = self.read_more(buffer)? {
            return Ok(progress);
        }
        let ours = self.file.metadata()?;
        if !ours.is_file() {
            return Ok(Progress::End);
        }
        match std::fs::metadata(&self.path) {
            Ok(current) if !is_same(&ours, &current) => {
                // The last lines may have come between the read and the rename.
                if let Some(progress) = self.read_more(buffer)? {
                    return Ok(progress);
                }
                self.file = File::open(&self.path)?;
                self.restart()
            }
            // During a rotation the path may name no file for a moment.
            _ => Ok(Progress::Nothing),
        }
    }

    fn read_more(&mut self, buffer: &mut [u8]) -> io::Result<Option<Progress>> {
        let bytes = self.file.read(buffer)?;
        // Only after the read it is sure that the bytes continue what came before.
        if self.was_truncated()? {
            return self.restart().map(Some);
        }
        self.position += bytes as u64;
        self.tail.extend_from_slice(&buffer[..bytes]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        Ok((bytes > 0).then_some(Progress::Bytes(bytes)))
    }

    fn was_truncated(&self) -> io::Result<bool> {
        if !self.file.metadata()?.is_file() {
            return Ok(false);
        }
        let mut now = vec![0; self.tail.len()];
        match self
            .file
            .read_exact_at(&mut now, self.position - self.tail.len() as u64)
        {
            Ok(()) => Ok(now != self.tail),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// The next bytes are the first of the file.
    fn restart(&mut self) -> io::Result<Progress> {
        self.file.rewind()?;
        self.position = 0;
        self.tail.clear();
        Ok(Progress::Restarted)
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    /// All that can be read now.
    fn rest(followed: &mut FollowedFile) -> String {
        let (mut text, mut buffer) = (String::new(), [0; 8]);
        loop {
            match followed.read(&mut buffer).unwrap() {
                Progress::Bytes(count) => text.push_str(str::from_utf8(&buffer[..count]).unwrap()),
                Progress::Restarted => text.push('|'),
                Progress::Nothing | Progress::End => return text,
            }
        }
    }

    #[test]
    fn a_file_is_followed_while_it_grows_is_rotated_and_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one line\n").unwrap();
        let mut followed = FollowedFile::open(&path).unwrap();
        assert_eq!(rest(&mut followed), "one line\n");
        assert_eq!(rest(&mut followed), "");
        file.write_all(b"two\n").unwrap();
        fs::rename(&path, folder.path().join("a.1")).unwrap();
        assert_eq!(rest(&mut followed), "two\n");
        file.write_all(b"three\n").unwrap();
        fs::write(&path, "four\n").unwrap();
        assert_eq!(rest(&mut followed), "three\n|four\n");
        fs::write(&path, "5\n").unwrap();
        assert_eq!(rest(&mut followed), "|5\n");
    }

    #[test]
    fn a_file_that_was_copied_and_truncated_is_read_from_its_beginning_however_long_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "1 one\n2 two\n").unwrap();
        let mut followed = FollowedFile::open(&path).unwrap();
        assert_eq!(rest(&mut followed), "1 one\n2 two\n");
        // As long as before, longer, and shorter.
        for text in ["3 one\n4 two\n", "5 one\n6 two\n7 three\n", "8\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(rest(&mut followed), format!("|{text}"));
            assert_eq!(rest(&mut followed), "");
        }
    }
}
