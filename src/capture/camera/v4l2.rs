//! What we need of the kernel's V4L2 interface, as safe calls on a [`Node`].
//!
//! Written out here, from linux/videodev2.h, since the v4l crate brings bindgen, and with it libclang and twenty crates,
//! to every build; and since its stream queues a buffer twice after a timeout and panics on most errors of a camera that is
//! being let go of. Where a layout depends on the size of a pointer, so do the types below.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

/// Four letters that name a pixel format.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0).trim_end())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc({self})")
    }
}

/// What a node says it is.
#[derive(Debug, Clone)]
pub struct Identity {
    pub driver: String,
    pub card: String,
    pub captures: bool,
    pub captures_planes: bool,
    pub outputs: bool,
}

/// Sizes a pixel format comes in: one, or a range in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub width: Range,
    pub height: Range,
}

/// From `min` to `max` in steps of `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub min: u32,
    pub max: u32,
    pub step: u32,
}

/// The picture format in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Format {
    pub fourcc: FourCc,
    pub width: u32,
    pub height: u32,
    /// Bytes from one row to the next; 0 where the driver leaves it open.
    pub stride: u32,
}

/// An open video node.
#[derive(Debug)]
pub struct Node(OwnedFd);

impl Node {
    /// Opens `path` for calls that do not wait.
    pub fn open(path: &Path) -> io::Result<Node> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a terminated string that outlives the call.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened above and belongs to nobody else.
        Ok(Node(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn identity(&self) -> io::Result<Identity> {
        let mut raw = Capability::default();
        self.call(QUERYCAP, &mut raw)?;
        // Of a device with several nodes, `capabilities` tells of all and `device_caps` of this one.
        let own = if raw.capabilities & CAP_DEVICE_CAPS != 0 {
            raw.device_caps
        } else {
            raw.capabilities
        };
        let has = |flags| own & flags == flags;
        Ok(Identity {
            driver: text(&raw.driver),
            card: text(&raw.card),
            captures: has(CAP_VIDEO_CAPTURE | CAP_STREAMING),
            captures_planes: has(CAP_VIDEO_CAPTURE_MPLANE),
            outputs: has(CAP_VIDEO_OUTPUT),
        })
    }

    /// The pixel formats it captures.
    pub fn formats(&self) -> Vec<FourCc> {
        let format = |index| {
            let mut raw = FormatDescription {
                index,
                kind: CAPTURE,
                ..FormatDescription::default()
            };
            self.call(ENUM_FMT, &mut raw)
                .ok()
                .map(|()| FourCc(raw.pixel_format.to_le_bytes()))
        };
        listed(format)
    }

    /// The sizes a format comes in; empty where the driver does not say.
    pub fn sizes(&self, fourcc: FourCc) -> Vec<Sizes> {
        let size = |index| {
            let mut raw = FrameSize {
                index,
                pixel_format: u32::from_le_bytes(fourcc.0),
                ..FrameSize::default()
            };
            self.call(ENUM_FRAMESIZES, &mut raw).ok()?;
            let range = |min, max, step| Range { min, max, step };
            let [a, b, c, d, e, f] = raw.size;
            Some(match raw.kind {
                DISCRETE => Sizes {
                    width: range(a, a, 1),
                    height: range(b, b, 1),
                },
                _ => Sizes {
                    width: range(a, b, c),
                    height: range(d, e, f),
                },
            })
        };
        listed(size)
    }

    /// The highest rate at a size, in pictures a second; `None` where the driver does not say.
    pub fn fastest(&self, fourcc: FourCc, width: u32, height: u32) -> Option<f64> {
        let rate = |index| {
            let mut raw = FrameInterval {
                index,
                pixel_format: u32::from_le_bytes(fourcc.0),
                width,
                height,
                ..FrameInterval::default()
            };
            self.call(ENUM_FRAMEINTERVALS, &mut raw).ok()?;
            // The one interval there is, or the shortest of a range.
            let [numerator, denominator, ..] = raw.interval;
            Some(rate_of(numerator, denominator))
        };
        listed(rate).into_iter().flatten().max_by(f64::total_cmp)
    }

    /// Asks for a format and gives what the driver made of it.
    pub fn set_format(&self, fourcc: FourCc, width: u32, height: u32) -> io::Result<Format> {
        let mut raw = FormatRequest {
            kind: CAPTURE,
            ..FormatRequest::default()
        };
        raw.pixels = Pixels {
            width,
            height,
            pixel_format: u32::from_le_bytes(fourcc.0),
            ..Pixels::default()
        };
        self.call(S_FMT, &mut raw)?;
        Ok(Format {
            fourcc: FourCc(raw.pixels.pixel_format.to_le_bytes()),
            width: raw.pixels.width,
            height: raw.pixels.height,
            stride: raw.pixels.bytes_per_line,
        })
    }

    /// Asks for a rate and gives the one in force, where the driver says.
    pub fn set_rate(&self, rate_hz: f32) -> Option<f64> {
        let mut raw = StreamParameters {
            kind: CAPTURE,
            ..StreamParameters::default()
        };
        raw.time_per_frame = [1000, (rate_hz * 1000.0) as u32];
        // Not every driver lets itself be told a rate; what it does then is taken as it comes.
        if self.call(S_PARM, &mut raw).is_err() {
            self.call(G_PARM, &mut raw).ok()?;
        }
        rate_of(raw.time_per_frame[0], raw.time_per_frame[1])
    }

    /// Asks for `count` buffers, 0 to give them back, and returns how many there are.
    pub fn request_buffers(&self, count: u32) -> io::Result<u32> {
        let mut raw = BufferRequest {
            count,
            kind: CAPTURE,
            memory: MMAP,
            ..BufferRequest::default()
        };
        self.call(REQBUFS, &mut raw)?;
        Ok(raw.count)
    }

    /// Maps buffer `index` into memory.
    pub fn map(&self, index: u32) -> io::Result<Mapping> {
        let mut buffer = Buffer::of(index);
        self.call(QUERYBUF, &mut buffer)?;
        Mapping::new(&self.0, buffer.length as usize, buffer.offset())
    }

    /// Hands buffer `index` to the driver to fill.
    pub fn queue(&self, index: u32) -> io::Result<()> {
        self.call(QBUF, &mut Buffer::of(index))
    }

    /// Takes the oldest filled buffer; an error of kind `WouldBlock` if there is none.
    pub fn dequeue(&self) -> io::Result<Buffer> {
        let mut buffer = Buffer::of(0);
        self.call(DQBUF, &mut buffer)?;
        Ok(buffer)
    }

    pub fn start(&self) -> io::Result<()> {
        self.call(STREAMON, &mut { CAPTURE })
    }

    pub fn stop(&self) -> io::Result<()> {
        self.call(STREAMOFF, &mut { CAPTURE })
    }

    /// Waits until a buffer is filled or something is wrong; false after `timeout_ms` with neither.
    pub fn wait(&self, timeout_ms: i32) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, live and exclusively borrowed, and the length says one.
        match unsafe { libc::poll(&mut poll, 1, timeout_ms) } {
            0 => Ok(false),
            1.. => Ok(true),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// An ioctl, asked again if a signal came between.
    fn call<T>(&self, request: Request<T>, argument: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: `Request<T>` pairs a request with the struct the kernel reads and writes for it, which is
            // exclusively borrowed here.
            if unsafe { libc::ioctl(self.0.as_raw_fd(), request.number, ptr::from_mut(argument)) } >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// A buffer of the driver's in our memory.
#[derive(Debug)]
pub struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, length: usize, offset: u32) -> io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            let offset = libc::off_t::from(offset);
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start, length })
    }

    /// The content, of a buffer that is not queued: the driver writes to the others.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable for `length` bytes until drop. A driver that wrote to a buffer it has handed over would
        // give us a torn picture, whose bytes are still bytes.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the very mapping that `new` made, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

/// An interval as a rate; `None` for the zeroes of drivers that do not know.
pub fn rate_of(numerator: u32, denominator: u32) -> Option<f64> {
    (numerator > 0 && denominator > 0).then(|| f64::from(denominator) / f64::from(numerator))
}

/// What `item` gives for 0, 1, 2 … until it has no more. A driver that never says so is stopped.
fn listed<T>(item: impl FnMut(u32) -> Option<T>) -> Vec<T> {
    (0..256).map_while(item).collect()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A request's number, and the struct that goes with it.
struct Request<T> {
    number: libc::Ioctl,
    argument: std::marker::PhantomData<T>,
}

impl<T> Request<T> {
    /// Numbered as _IOC of asm-generic/ioctl.h does: direction (1 write, 2 read), size, 'V' and the request's own number.
    const fn new(direction: u32, number: u32) -> Request<T> {
        let number = direction << 30 | (size_of::<T>() as u32) << 16 | (b'V' as u32) << 8 | number;
        Request {
            number: number as libc::Ioctl,
            argument: std::marker::PhantomData,
        }
    }
}

const WRITE: u32 = 1;
const READ: u32 = 2;
const BOTH: u32 = READ | WRITE;

const QUERYCAP: Request<Capability> = Request::new(READ, 0);
const ENUM_FMT: Request<FormatDescription> = Request::new(BOTH, 2);
const S_FMT: Request<FormatRequest> = Request::new(BOTH, 5);
const REQBUFS: Request<BufferRequest> = Request::new(BOTH, 8);
const QUERYBUF: Request<Buffer> = Request::new(BOTH, 9);
const QBUF: Request<Buffer> = Request::new(BOTH, 15);
const DQBUF: Request<Buffer> = Request::new(BOTH, 17);
const STREAMON: Request<u32> = Request::new(WRITE, 18);
const STREAMOFF: Request<u32> = Request::new(WRITE, 19);
const G_PARM: Request<StreamParameters> = Request::new(BOTH, 21);
const S_PARM: Request<StreamParameters> = Request::new(BOTH, 22);
const ENUM_FRAMESIZES: Request<FrameSize> = Request::new(BOTH, 74);
const ENUM_FRAMEINTERVALS: Request<FrameInterval> = Request::new(BOTH, 75);

const CAP_VIDEO_CAPTURE: u32 = 0x1;
const CAP_VIDEO_OUTPUT: u32 = 0x2;
const CAP_VIDEO_CAPTURE_MPLANE: u32 = 0x1000;
const CAP_STREAMING: u32 = 0x0400_0000;
const CAP_DEVICE_CAPS: u32 = 0x8000_0000;

/// V4L2_BUF_TYPE_VIDEO_CAPTURE, V4L2_MEMORY_MMAP and V4L2_FRMSIZE_TYPE_DISCRETE.
const CAPTURE: u32 = 1;
const MMAP: u32 = 1;
const DISCRETE: u32 = 1;

const FLAG_ERROR: u32 = 0x40;

#[repr(C)]
#[derive(Default)]
struct Capability {
    driver: [u8; 16],
    card: [u8; 32],
    bus: [u8; 32],
    version: u32,
    capabilities: u32,
    device_caps: u32,
    reserved: [u32; 3],
}

#[repr(C)]
#[derive(Default)]
struct FormatDescription {
    index: u32,
    kind: u32,
    flags: u32,
    description: [u8; 32],
    pixel_format: u32,
    mbus_code: u32,
    reserved: [u32; 3],
}

#[repr(C)]
#[derive(Default)]
struct Pixels {
    width: u32,
    height: u32,
    pixel_format: u32,
    field: u32,
    bytes_per_line: u32,
    size: u32,
    colour: [u32; 6],
}

#[repr(C)]
#[derive(Default)]
struct FormatRequest {
    kind: u32,
    /// The kernel's is a union of 200 bytes, aligned for the pointers in its other members.
    pointers: [libc::c_ulong; 0],
    pixels: Pixels,
    others: [[u32; 19]; 2],
}

#[repr(C)]
#[derive(Default)]
struct StreamParameters {
    kind: u32,
    /// The kernel's is a union of 200 bytes without pointers.
    capability: u32,
    mode: u32,
    time_per_frame: [u32; 2],
    others: [[u32; 23]; 2],
}

#[repr(C)]
#[derive(Default)]
struct FrameSize {
    index: u32,
    pixel_format: u32,
    kind: u32,
    /// Width and height; or the least, most and step of each.
    size: [u32; 6],
    reserved: [u32; 2],
}

#[repr(C)]
#[derive(Default)]
struct FrameInterval {
    index: u32,
    pixel_format: u32,
    width: u32,
    height: u32,
    kind: u32,
    /// A fraction; or the least, most and step.
    interval: [u32; 6],
    reserved: [u32; 2],
}

#[repr(C)]
#[derive(Default)]
struct BufferRequest {
    count: u32,
    kind: u32,
    memory: u32,
    capabilities: u32,
    flags: u32,
}

/// A buffer, as the driver tells of it.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct Buffer {
    pub index: u32,
    kind: u32,
    /// Bytes the driver says it wrote.
    pub used: u32,
    flags: u32,
    field: u32,
    seconds: libc::time_t,
    micros: libc::suseconds_t,
    timecode: [u32; 4],
    /// Counts pictures at the driver, those it had no buffer for as well.
    pub sequence: u32,
    memory: u32,
    /// A union; for mapped buffers an offset in its first half.
    place: libc::c_ulong,
    length: u32,
    reserved: u32,
    request: u32,
}

impl Buffer {
    fn of(index: u32) -> Buffer {
        Buffer {
            index,
            kind: CAPTURE,
            memory: MMAP,
            ..Buffer::default()
        }
    }

    /// As a driver would fill it.
    #[cfg(test)]
    pub fn filled(sequence: u32, stamp: Duration) -> Buffer {
        Buffer {
            sequence,
            seconds: stamp.as_secs() as libc::time_t,
            micros: stamp.subsec_micros() as libc::suseconds_t,
            ..Buffer::of(0)
        }
    }

    fn offset(&self) -> u32 {
        let [a, b, c, d, ..] = self.place.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    /// The driver says that the content is damaged.
    pub fn damaged(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    /// When it was captured. On CLOCK_MONOTONIC, but v4l2loopback for one does not say so: whether the time can be of that
    /// clock must be judged by itself.
    pub fn stamp(&self) -> Option<Duration> {
        let seconds = Duration::from_secs(u64::try_from(self.seconds).ok()?);
        let micros = Duration::from_micros(u64::try_from(self.micros).ok()?);
        Some(seconds + micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As a C compiler prints them for linux/videodev2.h of Linux 6.1, on x86-64 and on 64-bit ARM.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn requests_are_those_of_the_kernels_header() {
        assert_eq!(QUERYCAP.number, 0x8068_5600);
        assert_eq!(ENUM_FMT.number, 0xC040_5602);
        assert_eq!(S_FMT.number, 0xC0D0_5605);
        assert_eq!(REQBUFS.number, 0xC014_5608);
        assert_eq!(QUERYBUF.number, 0xC058_5609);
        assert_eq!(QBUF.number, 0xC058_560F);
        assert_eq!(DQBUF.number, 0xC058_5611);
        assert_eq!(STREAMON.number, 0x4004_5612);
        assert_eq!(STREAMOFF.number, 0x4004_5613);
        assert_eq!(G_PARM.number, 0xC0CC_5615);
        assert_eq!(S_PARM.number, 0xC0CC_5616);
        assert_eq!(ENUM_FRAMESIZES.number, 0xC02C_564A);
        assert_eq!(ENUM_FRAMEINTERVALS.number, 0xC034_564B);
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn fields_lie_where_the_kernel_puts_them() {
        assert_eq!(offset_of!(Buffer, seconds), 24);
        assert_eq!(offset_of!(Buffer, sequence), 56);
        assert_eq!(offset_of!(Buffer, memory), 60);
        assert_eq!(offset_of!(Buffer, place), 64);
        assert_eq!(offset_of!(Buffer, length), 72);
        assert_eq!(offset_of!(FormatRequest, pixels), 8);
        assert_eq!(offset_of!(StreamParameters, time_per_frame), 12);
    }

    #[test]
    fn intervals_of_zero_are_no_rate() {
        assert_eq!(rate_of(1, 30), Some(30.0));
        assert_eq!(rate_of(1001, 30_000).map(f64::round), Some(30.0));
        assert_eq!((rate_of(0, 30), rate_of(1, 0)), (None, None));
    }

    #[test]
    fn what_is_no_video_node_says_so() {
        let null = Node::open(Path::new("/dev/null")).unwrap();
        assert_eq!(null.identity().unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
