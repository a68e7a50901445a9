//! A file that keeps a pause over restarts of the service and of the board.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The name of the file in the service's state directory.
const FILE: &str = "paused";
const TEXT: &[u8] = b"affectd is paused. The command resume deletes this file.\n";

/// The file, which exists while affectd is paused.
#[derive(Debug)]
pub struct PauseRecord {
    /// `None` if there is no state directory: then nothing is kept.
    path: Option<PathBuf>,
}

impl PauseRecord {
    pub fn in_folder(state_directory: Option<&Path>) -> PauseRecord {
        PauseRecord {
            path: state_directory.map(|folder| folder.join(FILE)),
        }
    }

    /// Whether affectd was paused when it ended. True if that cannot be read.
    pub fn read(&self) -> bool {
        self.path.as_ref().is_some_and(|path| path.try_exists().unwrap_or(true))
    }

    /// Writes or deletes the file, and waits until it is on the disk. The error is one line for the user.
    pub fn write(&self, paused: bool) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let written = match paused {
            true => File::create(path).and_then(|mut file| {
                file.write_all(TEXT)?;
                file.sync_all()
            }),
            false => match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        written
            .and_then(|()| sync_folder(path))
            .map_err(|error| format!("{}: {error}: check the folder and its file system", path.display()))
    }
}

/// Without this, a power cut may bring a deleted file back, or lose a new one.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_kept_until_the_resume() {
        let folder = tempfile::tempdir().unwrap();
        let record = || PauseRecord::in_folder(Some(folder.path()));
        assert!(!record().read());
        for _ in 0..2 {
            record().write(true).unwrap();
            assert!(record().read());
        }
        for _ in 0..2 {
            record().write(false).unwrap();
            assert!(!record().read());
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_counts_as_paused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(PauseRecord::in_folder(Some(&file)).read());
        let error = PauseRecord::in_folder(Some(&file)).write(true).unwrap_err();
        assert!(error.contains("file/paused: Not a directory"), "{error}");
    }

    #[test]
    fn without_a_state_directory_nothing_is_kept() {
        let record = PauseRecord::in_folder(None);
        record.write(true).unwrap();
        assert!(!record.read());
    }
}
