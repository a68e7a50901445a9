//! Multi-planar nodes, which the `v4l` crate does not read: the image processors of many boards have such nodes. An image lies in
//! one or more planes, each in a buffer of its own. affectd needs the luma, which is always in the first plane.
//!
//! The ioctls are those of the kernel's "Multi-planar API" (Documentation/userspace-api/media/v4l/planar-apis.rst).

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use v4l::buffer::{Metadata, Type};
use v4l::device::Handle;
use v4l::v4l_sys::{
    VIDEO_MAX_PLANES, v4l2_buffer, v4l2_fmtdesc, v4l2_format, v4l2_plane, v4l2_requestbuffers, v4l2_streamparm,
};
use v4l::v4l2::{self, vidioc};
use v4l::{FourCC, Fraction};

use super::format::Format;

const CAPTURE: u32 = Type::VideoCaptureMplane as u32;
const MMAP: u32 = v4l::v4l_sys::v4l2_memory_V4L2_MEMORY_MMAP;
/// A driver that lists more formats than this is broken.
const MAX_FORMATS: u32 = 256;

/// A structure of the V4L2 interface that an ioctl reads and writes.
trait Argument {
    /// The ioctl. Its number encodes the size of `Self`.
    const REQUEST: vidioc::_IOC_TYPE;
}

impl Argument for v4l2_fmtdesc {
    const REQUEST: vidioc::_IOC_TYPE = vidioc::VIDIOC_ENUM_FMT;
}

impl Argument for v4l2_format {
    const REQUEST: vidioc::_IOC_TYPE = vidioc::VIDIOC_S_FMT;
}

impl Argument for v4l2_requestbuffers {
    const REQUEST: vidioc::_IOC_TYPE = vidioc::VIDIOC_REQBUFS;
}

/// Fills `argument` in, or changes it, by its ioctl.
fn ask<A: Argument>(handle: &Handle, argument: &mut A) -> io::Result<()> {
    // SAFETY: the ioctl reads and writes one `A`, which holds no pointers for a multi-planar node. `argument` is one and is exclusively
    // borrowed; the descriptor is open.
    unsafe { v4l2::ioctl(handle.fd(), A::REQUEST, ptr::from_mut(argument).cast()) }
}

/// The pixel formats that the node can capture.
pub fn formats(handle: &Handle) -> Vec<FourCC> {
    let format = |index| {
        // SAFETY: v4l2_fmtdesc consists of integers, for which all-zero bytes are valid.
        let mut description: v4l2_fmtdesc = unsafe { std::mem::zeroed() };
        (description.index, description.type_) = (index, CAPTURE);
        ask(handle, &mut description).ok()?;
        Some(FourCC::from(description.pixelformat))
    };
    (0..MAX_FORMATS).map_while(format).collect()
}

/// Requests a format and returns the format that the driver chose.
pub fn set_format(handle: &Handle, fourcc: FourCC, width: u32, height: u32) -> io::Result<Format> {
    // SAFETY: v4l2_format consists of integers and of null pointers, for which all-zero bytes are valid.
    let mut format: v4l2_format = unsafe { std::mem::zeroed() };
    format.type_ = CAPTURE;
    // SAFETY: all-zero bytes are valid for every member of the union.
    let requested = unsafe { &mut format.fmt.pix_mp };
    (requested.pixelformat, requested.width, requested.height) = (fourcc.into(), width, height);
    ask(handle, &mut format)?;
    // SAFETY: the driver fills this member for this type of node. It consists of integers.
    let actual = unsafe { format.fmt.pix_mp };
    let [luma, ..] = actual.plane_fmt;
    Ok(Format {
        fourcc: FourCC::from(actual.pixelformat),
        width: actual.width,
        height: actual.height,
        stride: luma.bytesperline,
    })
}

/// Requests a frame interval and returns the actual one.
pub fn set_interval(handle: &Handle, interval: Fraction) -> io::Result<Fraction> {
    let exchange = |request, interval: Fraction| {
        // SAFETY: v4l2_streamparm consists of integers, for which all-zero bytes are valid.
        let mut parameters: v4l2_streamparm = unsafe { std::mem::zeroed() };
        parameters.type_ = CAPTURE;
        // SAFETY: all-zero bytes are valid for every member of the union.
        let capture = unsafe { &mut parameters.parm.capture };
        (capture.timeperframe.numerator, capture.timeperframe.denominator) = (interval.numerator, interval.denominator);
        // SAFETY: both ioctls read and write one v4l2_streamparm without pointers. `parameters` is one and is exclusively borrowed; the
        // descriptor is open.
        unsafe { v4l2::ioctl(handle.fd(), request, (&raw mut parameters).cast())? };
        // SAFETY: the driver fills this member for a capture node. It consists of integers.
        let actual = unsafe { parameters.parm.capture.timeperframe };
        Ok(Fraction::new(actual.numerator, actual.denominator))
    };
    // Some drivers have a fixed rate and reject the request.
    exchange(vidioc::VIDIOC_S_PARM, interval)
        .or_else(|_: io::Error| exchange(vidioc::VIDIOC_G_PARM, Fraction::new(0, 0)))
}

/// The first planes of a node's buffers, exchanged with the driver.
pub struct PlanarBuffers {
    handle: Arc<Handle>,
    planes: Vec<FirstPlane>,
    running: bool,
    /// The buffer that is being read.
    current: Option<u32>,
}

/// The memory of a buffer's first plane, mapped for reading.
struct FirstPlane {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `FirstPlane` is the only owner.
unsafe impl Send for FirstPlane {}

impl Drop for FirstPlane {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are those of a mapping that only `self` knows. A failure leaves memory mapped and harms nothing.
        let _ = unsafe { v4l2::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl PlanarBuffers {
    /// Allocates and maps buffers for the current format.
    pub fn new(handle: Arc<Handle>, count: u32) -> io::Result<PlanarBuffers> {
        let mut buffers = PlanarBuffers {
            planes: Vec::new(),
            running: false,
            current: None,
            handle,
        };
        let count = buffers.request(count)?;
        for index in 0..count {
            let (_, [first, ..]) = buffers.exchange(vidioc::VIDIOC_QUERYBUF, index)?;
            let length = first.length as usize;
            // SAFETY: the driver filled this member for a buffer that is mapped.
            let offset = libc::off_t::from(unsafe { first.m.mem_offset });
            let fd = buffers.handle.fd();
            // SAFETY: a new mapping at an address of the kernel's choice changes no other memory.
            let start = unsafe { v4l2::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, fd, offset)? };
            let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            buffers.planes.push(FirstPlane { start, length });
        }
        Ok(buffers)
    }

    pub fn handle(&self) -> Arc<Handle> {
        self.handle.clone()
    }

    /// Returns the previous buffer to the driver and waits for a filled one: its first plane, how many bytes of it lie before the
    /// image, and the metadata, whose size counts these bytes as well. The first call starts the camera.
    pub fn next(&mut self, timeout: Duration) -> io::Result<(&[u8], usize, Metadata)> {
        if let Some(index) = self.current.take() {
            self.exchange(vidioc::VIDIOC_QBUF, index)?;
        }
        if !self.running {
            for index in (0..).take(self.planes.len()) {
                self.exchange(vidioc::VIDIOC_QBUF, index)?;
            }
            self.switch(vidioc::VIDIOC_STREAMON)?;
            self.running = true;
        }
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        if self.handle.poll(libc::POLLIN, timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (buffer, [first, ..]) = self.exchange(vidioc::VIDIOC_DQBUF, 0)?;
        let plane = self.planes.get(buffer.index as usize);
        let plane = plane.ok_or_else(|| io::Error::other("the driver returned a buffer that does not exist"))?;
        self.current = Some(buffer.index);
        let metadata = Metadata {
            bytesused: first.bytesused,
            flags: buffer.flags.into(),
            field: buffer.field,
            timestamp: buffer.timestamp.into(),
            sequence: buffer.sequence,
        };
        // SAFETY: the mapping has `length` bytes and lives as long as `self`. The driver writes to it only while the buffer is queued, which
        // it is again only after the next call, when this borrow has ended.
        let bytes = unsafe { slice::from_raw_parts(plane.start.as_ptr(), plane.length) };
        Ok((bytes, first.data_offset as usize, metadata))
    }

    /// Requests `count` buffers and returns how many there are.
    fn request(&self, count: u32) -> io::Result<u32> {
        // SAFETY: v4l2_requestbuffers consists of integers, for which all-zero bytes are valid.
        let mut request: v4l2_requestbuffers = unsafe { std::mem::zeroed() };
        (request.count, request.type_, request.memory) = (count, CAPTURE, MMAP);
        ask(&self.handle, &mut request)?;
        Ok(request.count)
    }

    /// Queries, queues or dequeues a buffer. Returns the buffer and its planes as the driver filled them in.
    fn exchange(
        &self,
        request: vidioc::_IOC_TYPE,
        index: u32,
    ) -> io::Result<(v4l2_buffer, [v4l2_plane; VIDEO_MAX_PLANES as usize])> {
        // SAFETY: v4l2_plane and v4l2_buffer consist of integers and of null pointers, for which all-zero bytes are valid.
        let (mut planes, mut buffer): ([v4l2_plane; VIDEO_MAX_PLANES as usize], v4l2_buffer) =
            unsafe { std::mem::zeroed() };
        (buffer.index, buffer.type_, buffer.memory) = (index, CAPTURE, MMAP);
        (buffer.m.planes, buffer.length) = (planes.as_mut_ptr(), VIDEO_MAX_PLANES);
        // SAFETY: the ioctls read and write one v4l2_buffer and at most `length` planes at `m.planes`. Both are as large and outlive the
        // call; the descriptor is open.
        unsafe { v4l2::ioctl(self.handle.fd(), request, (&raw mut buffer).cast())? };
        buffer.m.planes = ptr::null_mut();
        Ok((buffer, planes))
    }

    /// Starts or stops the camera.
    fn switch(&self, request: vidioc::_IOC_TYPE) -> io::Result<()> {
        let mut kind = CAPTURE;
        // SAFETY: both ioctls read one int. `kind` is as large; the descriptor is open.
        unsafe { v4l2::ioctl(self.handle.fd(), request, (&raw mut kind).cast()) }
    }
}

impl Drop for PlanarBuffers {
    fn drop(&mut self) {
        // An unplugged camera rejects both. The file is closed in any case, and the kernel then releases everything.
        let _ = self.switch(vidioc::VIDIOC_STREAMOFF);
        self.planes.clear();
        let _ = self.request(0);
    }
}
