//! Reads small files of the user: configurations, passwords, certificates.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the writer of a pipe may take.
const PIPE_PATIENCE: Duration = Duration::from_secs(2);
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The content of a file of at most `limit` bytes. It may be a pipe, as a shell makes one for `<(command)`, but only one that somebody
/// writes to: nothing waits for ever, and nothing is read without end.
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // The open of a pipe would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let is_pipe = file.metadata()?.file_type().is_fifo();
    let mut file = file.take(limit as u64 + 1);
    let mut bytes = Vec::new();
    let deadline = Instant::now() + PIPE_PATIENCE;
    while let Err(error) = file.read_to_end(&mut bytes) {
        if error.kind() != ErrorKind::WouldBlock {
            return Err(error);
        }
        if Instant::now() >= deadline {
            let why = format!("its writer takes longer than {} s", PIPE_PATIENCE.as_secs());
            return Err(io::Error::new(ErrorKind::TimedOut, why));
        }
        sleep(CHECK_INTERVAL);
    }
    if bytes.len() > limit {
        return Err(too_large(limit));
    }
    if is_pipe && bytes.is_empty() {
        return Err(io::Error::other("nothing writes to this pipe"));
    }
    Ok(bytes)
}

fn too_large(limit: usize) -> io::Error {
    let limit = match limit {
        kib if kib >= 1024 => format!("{} KiB", limit / 1024),
        bytes => format!("{bytes} bytes"),
    };
    io::Error::new(ErrorKind::FileTooLarge, format!("larger than {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::process::Command;

    #[test]
    fn a_file_up_to_the_limit_is_read_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"12345").unwrap();
        assert_eq!(read(file.path(), 5).unwrap(), b"12345");
        assert_eq!(read(file.path(), 4).unwrap_err().to_string(), "larger than 4 bytes");
        assert_eq!(read(Path::new("/dev/null"), 5).unwrap(), b"");
    }

    #[test]
    fn an_endless_file_is_an_error() {
        let error = read(Path::new("/dev/zero"), 64 * 1024).unwrap_err();
        assert_eq!(error.to_string(), "larger than 64 KiB");
    }

    #[test]
    fn a_pipe_is_read_if_somebody_writes_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read(&pipe, 100).unwrap_err().to_string(), "nothing writes to this pipe");
        // Both ends are open, but nothing is written.
        let mut both = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        assert_eq!(read(&pipe, 100).unwrap_err().kind(), ErrorKind::TimedOut);
        both.write_all(b"secret").unwrap();
        let reader = File::open(&pipe).unwrap();
        drop(both);
        assert_eq!(read(&pipe, 100).unwrap(), b"secret");
        drop(reader);
    }
}
