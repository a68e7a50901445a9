//! A camera's buffers, passed round between the driver and us.

use std::io;
use std::time::{Duration, Instant};

use super::v4l2::{Buffer, Mapping, Node};

/// One being filled, one filled, one being read, and one spare for when we are late.
const BUFFERS: u32 = 4;

/// A running capture. Dropping it stops the camera and gives the memory back, whatever state the device is in.
pub struct Stream {
    node: Node,
    buffers: Vec<Mapping>,
}

/// A buffer as the driver filled it.
pub struct Filled<'a> {
    /// As many bytes as the driver says it wrote.
    pub bytes: &'a [u8],
    /// How many fit.
    pub capacity: usize,
    pub buffer: Buffer,
    /// Buffers that were ready before this one, and were given back unread.
    pub passed_over: u32,
}

impl Stream {
    /// Starts capturing in the format that `node` is set to.
    pub fn start(node: Node) -> io::Result<Stream> {
        let count = node.request_buffers(BUFFERS)?;
        let mut stream = Stream {
            node,
            buffers: Vec::new(),
        };
        for index in 0..count {
            stream.buffers.push(stream.node.map(index)?);
            stream.node.queue(index)?;
        }
        if stream.buffers.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        stream.node.start()?;
        Ok(stream)
    }

    /// Waits for a picture and gives `read` the newest there is; `None` if none came in `patience`.
    pub fn newest<T>(&mut self, patience: Duration, read: impl FnOnce(Filled) -> T) -> io::Result<Option<T>> {
        let Some(mut newest) = self.wait(patience)? else {
            return Ok(None);
        };
        let mut passed_over = 0;
        while let Some(newer) = self.ready()? {
            self.node.queue(newest.index)?;
            newest = newer;
            passed_over += 1;
        }
        let mapping = self
            .buffers
            .get(newest.index as usize)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
        let bytes = mapping.bytes();
        let answer = read(Filled {
            bytes: &bytes[..bytes.len().min(newest.used as usize)],
            capacity: bytes.len(),
            buffer: newest,
            passed_over,
        });
        self.node.queue(newest.index)?;
        Ok(Some(answer))
    }

    fn wait(&self, patience: Duration) -> io::Result<Option<Buffer>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.node.wait(left.as_millis() as i32) {
                Ok(false) => return Ok(None),
                // What is wrong counts as ready, too: taking a buffer then tells.
                Ok(true) => {
                    if let Some(buffer) = self.ready()? {
                        return Ok(Some(buffer));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// A filled buffer, if there is one.
    fn ready(&self) -> io::Result<Option<Buffer>> {
        match self.node.dequeue() {
            Ok(buffer) => Ok(Some(buffer)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A camera that was pulled out answers ENODEV, others fail with less reason. The file is closed next in any case,
        // and then the kernel lets go of everything.
        let _ = self.node.stop();
        self.buffers.clear();
        let _ = self.node.request_buffers(0);
    }
}
