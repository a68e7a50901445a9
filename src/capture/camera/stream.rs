//! A camera's buffers, exchanged with the driver.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use v4l::buffer::{Metadata, Type};
use v4l::device::Handle;
use v4l::io::mmap;
use v4l::io::traits::CaptureStream;

use super::node::{Node, Planes};
use super::planes::PlanarBuffers;

/// One buffer is being filled, one is filled, one is being read, and one is spare for a late reader.
const BUFFERS: u32 = 4;
/// How soon a stop is noticed.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A running capture, valid until its first error. Dropping it stops the camera and frees the buffers, in whatever state the
/// device is.
pub struct Stream {
    /// `None` only during drop.
    buffers: Option<Buffers>,
    /// Whether the driver has the buffers. The `v4l` crate queues them with the first frame.
    running: bool,
}

enum Buffers {
    Single(mmap::Stream<'static>),
    Multiple(PlanarBuffers),
}

impl Buffers {
    fn of(node: &Node) -> io::Result<Buffers> {
        Ok(match node.planes() {
            Planes::Single => Buffers::Single(mmap::Stream::with_buffers(node.device(), Type::VideoCapture, BUFFERS)?),
            Planes::Multiple => Buffers::Multiple(PlanarBuffers::new(node.device().handle(), BUFFERS)?),
        })
    }

    fn handle(&self) -> Arc<Handle> {
        match self {
            Buffers::Single(buffers) => buffers.handle(),
            Buffers::Multiple(buffers) => buffers.handle(),
        }
    }

    /// Returns the previous buffer to the driver and waits for a filled one. Fails with `TimedOut` if there is none within `timeout`.
    fn next(&mut self, timeout: Duration) -> io::Result<FilledBuffer<'_>> {
        let (bytes, begin, metadata) = match self {
            Buffers::Single(buffers) => {
                buffers.set_timeout(timeout);
                let (bytes, metadata) = buffers.next()?;
                (bytes, 0, *metadata)
            }
            Buffers::Multiple(buffers) => buffers.next(timeout)?,
        };
        let end = bytes.len().min(metadata.bytesused as usize);
        Ok(FilledBuffer {
            bytes: bytes.get(begin..end).unwrap_or_default(),
            capacity: bytes.len(),
            metadata,
            skipped: 0,
        })
    }
}

/// A buffer as the driver filled it.
pub struct FilledBuffer<'a> {
    /// The bytes that the driver reports as written.
    pub bytes: &'a [u8],
    /// Size of the buffer, in bytes.
    pub capacity: usize,
    pub metadata: Metadata,
    /// Older buffers that were ready as well and were returned unread.
    pub skipped: u32,
}

impl Stream {
    /// Prepares to capture in the current format of `node`. The camera starts with the first call of [`Stream::newest`].
    pub fn of(node: &Node) -> io::Result<Stream> {
        Ok(Stream {
            buffers: Some(Buffers::of(node)?),
            running: false,
        })
    }

    /// Waits for a frame and passes the newest one to `read`. `None` if none came within `timeout` or before `stop` became true;
    /// the first call does not notice `stop`. After `None` or an error
    /// the stream must be dropped: the `v4l` crate would queue the same buffer twice.
    pub fn newest<T>(
        &mut self,
        timeout: Duration,
        stop: &dyn Fn() -> bool,
        read: impl FnOnce(FilledBuffer) -> T,
    ) -> io::Result<Option<T>> {
        let Some(buffers) = &mut self.buffers else {
            return Ok(None);
        };
        let handle = buffers.handle();
        if self.running && !is_filled(&handle, timeout, stop)? {
            return Ok(None);
        }
        self.running = true;
        let mut skipped = 0;
        loop {
            let filled = match buffers.next(timeout) {
                Ok(filled) => filled,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(e) => return Err(e),
            };
            if is_filled(&handle, Duration::ZERO, stop)? {
                skipped += 1;
                continue;
            }
            return Ok(Some(read(FilledBuffer { skipped, ..filled })));
        }
    }
}

/// Waits until a buffer is filled or the device has an error. Dequeuing a buffer then returns that error. False if neither
/// happened within `timeout` or before `stop` became true.
fn is_filled(handle: &Handle, timeout: Duration, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match handle.poll(libc::POLLIN, milliseconds(left.min(STOP_CHECK_INTERVAL))) {
            Ok(0) if left > STOP_CHECK_INTERVAL && !stop() => {}
            Ok(ready) => return Ok(ready > 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Stopping an unplugged camera fails with ENODEV, and the `v4l` crate panics on such errors. The file is closed in any
        // case, and the kernel then releases everything.
        let buffers = self.buffers.take();
        if panic::catch_unwind(AssertUnwindSafe(|| drop(buffers))).is_err() {
            log::warn!("a camera could not be stopped; it is closed anyway");
        }
    }
}
