//! A file that keeps a pause over restarts of the service and of the board.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
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
            // The next start only looks whether there is such a file, whatever is in it. So a full disk or a file system that has
            // become read-only keeps an earlier pause.
            true => match create(path) {
                Err(_) if path.try_exists().unwrap_or(false) => Ok(()),
                created => created,
            },
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

/// Does not wait for a reader, if somebody has put a named pipe there.
fn create(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    file.write_all(TEXT)?;
    file.sync_all()
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
    fn whatever_has_the_name_of_the_record_keeps_a_pause() {
        let folder = tempfile::tempdir().unwrap();
        let record = PauseRecord::in_folder(Some(folder.path()));
        fs::create_dir(folder.path().join(FILE)).unwrap();
        record.write(true).unwrap();
        fs::remove_dir(folder.path().join(FILE)).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(folder.path().join(FILE))
            .status();
        assert!(made.unwrap().success());
        record.write(true).unwrap();
        assert!(record.read());
        record.write(false).unwrap();
        assert!(!record.read());
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
