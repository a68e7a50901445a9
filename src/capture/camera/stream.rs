//! A camera's buffers, passed round between the driver and us.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use v4l::buffer::{Metadata, Type};
use v4l::device::Handle;
use v4l::io::mmap;
use v4l::io::traits::CaptureStream;

use super::node::Node;

/// One being filled, one filled, one being read, and one spare for when we are late.
const BUFFERS: u32 = 4;

/// A running capture, good until its first error. Dropping it stops the camera and gives the memory back, whatever state
/// the device is in.
pub struct Stream {
    /// `None` only while it is being dropped.
    buffers: Option<mmap::Stream<'static>>,
    /// Whether the driver has been given the buffers: the crate does that with the first picture.
    running: bool,
}

/// A buffer as the driver filled it.
pub struct Filled<'a> {
    /// As many bytes as the driver says it wrote.
    pub bytes: &'a [u8],
    /// How many fit.
    pub capacity: usize,
    pub metadata: Metadata,
    /// Buffers that were ready before this one, and were given back unread.
    pub passed_over: u32,
}

impl Stream {
    /// Gets ready to capture in the format that `node` is set to; the camera starts when the first picture is waited for.
    pub fn of(node: &Node) -> io::Result<Stream> {
        let buffers = mmap::Stream::with_buffers(node.device(), Type::VideoCapture, BUFFERS)?;
        Ok(Stream {
            buffers: Some(buffers),
            running: false,
        })
    }

    /// Waits for a picture and gives `read` the newest there is; `None` if none came in `patience`. After that and after
    /// an error it must be dropped: the crate would hand the driver the same buffer again.
    pub fn newest<T>(&mut self, patience: Duration, read: impl FnOnce(Filled) -> T) -> io::Result<Option<T>> {
        let Some(buffers) = &mut self.buffers else {
            return Ok(None);
        };
        let handle = buffers.handle();
        if self.running && !filled(&handle, patience)? {
            return Ok(None);
        }
        self.running = true;
        buffers.set_timeout(patience);
        let mut passed_over = 0;
        loop {
            // Gives the buffer before back to the driver, too.
            let (bytes, metadata) = match buffers.next() {
                Ok(next) => next,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(e) => return Err(e),
            };
            if filled(&handle, Duration::ZERO)? {
                passed_over += 1;
                continue;
            }
            return Ok(Some(read(Filled {
                bytes: &bytes[..bytes.len().min(metadata.bytesused as usize)],
                capacity: bytes.len(),
                metadata: *metadata,
                passed_over,
            })));
        }
    }
}

/// Waits until a buffer is filled or something is wrong, which taking a buffer then tells; false after `patience` with
/// neither.
fn filled(handle: &Handle, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match handle.poll(libc::POLLIN, left.as_millis() as i32) {
            Ok(ready) => return Ok(ready > 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A camera that was pulled out answers ENODEV, others fail with less reason, at which the crate panics. The file is
        // closed in any case, and then the kernel lets go of everything.
        let buffers = self.buffers.take();
        if panic::catch_unwind(AssertUnwindSafe(|| drop(buffers))).is_err() {
            log::warn!("a camera could not be stopped; it is let go of all the same");
        }
    }
}
