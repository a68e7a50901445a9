//! Reads a file that may still be written, like `tail -F`.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that is read from its beginning, and from the beginning of each file that takes its place.
pub struct FollowedFile {
    path: PathBuf,
    file: File,
    /// The bytes that have been read.
    position: u64,
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
        if ours.len() < self.position {
            self.file.seek(SeekFrom::Start(0))?;
            self.position = 0;
            return Ok(Progress::Restarted);
        }
        match std::fs::metadata(&self.path) {
            Ok(current) if !is_same(&ours, &current) => {
                // The last lines may have come between the read and the rename.
                if let Some(progress) = self.read_more(buffer)? {
                    return Ok(progress);
                }
                self.file = File::open(&self.path)?;
                self.position = 0;
                Ok(Progress::Restarted)
            }
            // During a rotation the path may name no file for a moment.
            _ => Ok(Progress::Nothing),
        }
    }

    fn read_more(&mut self, buffer: &mut [u8]) -> io::Result<Option<Progress>> {
        let bytes = self.file.read(buffer)?;
        self.position += bytes as u64;
        Ok((bytes > 0).then_some(Progress::Bytes(bytes)))
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
}
