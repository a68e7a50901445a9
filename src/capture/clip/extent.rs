//! How far a clip has been read.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The length of a clip, as far as it is known.
#[derive(Debug, Clone)]
pub enum Extent {
    /// A file that affectd reads itself. Recordings that were interrupted do not know their duration, but files have a size.
    Bytes(Arc<BytesRead>),
    Duration(Duration),
    Unknown,
}

/// The bytes of a file that its readers have read.
#[derive(Debug, Default)]
pub struct BytesRead {
    total: AtomicU64,
    /// By the reader that is ahead.
    read: AtomicU64,
}

impl Extent {
    /// The part of the clip, 0 to 1, that has been replayed when it is at `position`; `None` if the length is not known.
    pub fn fraction(&self, position: Duration) -> Option<f64> {
        let (done, total) = match self {
            Extent::Bytes(bytes) => (bytes.read.load(Relaxed) as f64, bytes.total.load(Relaxed) as f64),
            Extent::Duration(duration) => (position.as_secs_f64(), duration.as_secs_f64()),
            Extent::Unknown => return None,
        };
        (total > 0.0).then(|| (done / total).min(1.0))
    }
}

/// A reader of a file that counts.
pub struct CountedFile {
    file: File,
    position: u64,
    bytes: Arc<BytesRead>,
}

impl CountedFile {
    /// `file` is at its beginning.
    pub fn new(file: File, bytes: &Arc<BytesRead>) -> CountedFile {
        bytes
            .total
            .store(file.metadata().map_or(0, |metadata| metadata.len()), Relaxed);
        CountedFile {
            file,
            position: 0,
            bytes: Arc::clone(bytes),
        }
    }
}

impl Read for CountedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.position += count as u64;
        self.bytes.read.fetch_max(self.position, Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_reader_that_is_ahead_counts() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[0; 100]).unwrap();
        let bytes = Arc::default();
        let extent = Extent::Bytes(Arc::clone(&bytes));
        assert_eq!(extent.fraction(Duration::ZERO), None);
        let mut readers = [(); 2].map(|()| CountedFile::new(file.reopen().unwrap(), &bytes));
        readers[0].read_exact(&mut [0; 75]).unwrap();
        readers[1].read_exact(&mut [0; 50]).unwrap();
        assert_eq!(extent.fraction(Duration::ZERO), Some(0.75));
    }

    #[test]
    fn the_position_in_a_known_duration_counts() {
        let extent = Extent::Duration(Duration::from_secs(10));
        assert_eq!(extent.fraction(Duration::from_secs(4)), Some(0.4));
        assert_eq!(extent.fraction(Duration::from_secs(11)), Some(1.0));
        assert_eq!(Extent::Duration(Duration::ZERO).fraction(Duration::ZERO), None);
        assert_eq!(Extent::Unknown.fraction(Duration::ZERO), None);
    }
}
