//! An open video node: its identity, its formats, and setting its format.

use std::io;
use std::path::Path;

use v4l::capability::Flags;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::v4l_sys::v4l2_capability;
use v4l::v4l2::{ioctl, vidioc::VIDIOC_QUERYCAP};
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, FourCC, Fraction};

use super::format::Format;
use super::planes;

/// What a node reports about itself.
#[derive(Debug, Clone)]
pub struct Identity {
    pub driver: String,
    pub card: String,
    /// `None` if it cannot capture.
    pub captures: Option<Planes>,
    pub outputs: bool,
}

/// Sizes of a pixel format: one size, or a range.
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

/// Which of V4L2's two interfaces for buffers a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planes {
    /// An image is in one buffer.
    Single,
    /// An image is in several buffers, one for each plane.
    Multiple,
}

/// An open video node.
pub struct Node {
    device: Device,
    planes: Planes,
}

impl Node {
    /// Opens a node. It counts as single-planar until [`Node::with_planes`] says otherwise.
    pub fn open(path: &Path) -> io::Result<Node> {
        let device = Device::with_path(path)?;
        Ok(Node {
            device,
            planes: Planes::Single,
        })
    }

    pub fn with_planes(self, planes: Planes) -> Node {
        Node { planes, ..self }
    }

    pub fn planes(&self) -> Planes {
        self.planes
    }

    /// The device, for streaming.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Queries the node. The `v4l` crate does this as well, but panics on a name that is not UTF-8, such as one truncated
    /// within a character.
    pub fn identity(&self) -> io::Result<Identity> {
        // SAFETY: v4l2_capability consists of integers, for which all-zero bytes are valid.
        let mut raw: v4l2_capability = unsafe { std::mem::zeroed() };
        // SAFETY: VIDIOC_QUERYCAP writes one v4l2_capability. `raw` is one and is exclusively borrowed; the descriptor is open.
        unsafe { ioctl(self.device.handle().fd(), VIDIOC_QUERYCAP, (&raw mut raw).cast())? };
        // If a device has several nodes, `capabilities` covers all of them and `device_caps` only this one.
        let all = Flags::from(raw.capabilities);
        let own = match all.contains(Flags::DEVICE_CAPS) {
            true => Flags::from(raw.device_caps),
            false => all,
        };
        Ok(Identity {
            driver: text(&raw.driver),
            card: text(&raw.card),
            captures: match own {
                _ if !own.contains(Flags::STREAMING) => None,
                _ if own.contains(Flags::VIDEO_CAPTURE) => Some(Planes::Single),
                // Old drivers of codecs, which convert images of a program, have both flags.
                _ if own.contains(Flags::VIDEO_OUTPUT_MPLANE) => None,
                _ if own.contains(Flags::VIDEO_CAPTURE_MPLANE) => Some(Planes::Multiple),
                _ => None,
            },
            outputs: own.contains(Flags::VIDEO_OUTPUT),
        })
    }

    /// The pixel formats that the node can capture.
    pub fn formats(&self) -> Vec<FourCC> {
        match self.planes {
            Planes::Single => {
                let formats = self.device.enum_formats().unwrap_or_default();
                formats.into_iter().map(|format| format.fourcc).collect()
            }
            Planes::Multiple => planes::formats(&self.device.handle()),
        }
    }

    /// The sizes of a format. Empty if the driver does not report them.
    pub fn sizes(&self, fourcc: FourCC) -> Vec<Sizes> {
        let range = |min, max, step| Range { min, max, step };
        let sizes = self.device.enum_framesizes(fourcc).unwrap_or_default();
        sizes
            .into_iter()
            .map(|size| match size.size {
                FrameSizeEnum::Discrete(one) => Sizes {
                    width: range(one.width, one.width, 1),
                    height: range(one.height, one.height, 1),
                },
                FrameSizeEnum::Stepwise(many) => Sizes {
                    width: range(many.min_width, many.max_width, many.step_width),
                    height: range(many.min_height, many.max_height, many.step_height),
                },
            })
            .collect()
    }

    /// The highest frame rate at a size. `None` if the driver does not report it.
    pub fn fastest(&self, fourcc: FourCC, width: u32, height: u32) -> Option<f64> {
        let intervals = self.device.enum_frameintervals(fourcc, width, height).ok()?;
        let shortest = |interval| match interval {
            FrameIntervalEnum::Discrete(one) => one,
            FrameIntervalEnum::Stepwise(range) => range.min,
        };
        intervals
            .into_iter()
            .filter_map(|interval| rate_of(shortest(interval.interval)))
            .max_by(f64::total_cmp)
    }

    /// Requests a format and returns the format that the driver chose.
    pub fn set_format(&self, fourcc: FourCC, width: u32, height: u32) -> io::Result<Format> {
        if self.planes == Planes::Multiple {
            return planes::set_format(&self.device.handle(), fourcc, width, height);
        }
        let actual = self.device.set_format(&v4l::Format::new(width, height, fourcc))?;
        Ok(Format {
            fourcc: actual.fourcc,
            width: actual.width,
            height: actual.height,
            stride: actual.stride,
        })
    }

    /// Requests a frame rate and returns the actual one, if the driver reports it.
    pub fn set_rate(&self, rate_hz: f32) -> Option<f64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "float casts saturate, and rates are validated as 1 to 120 Hz"
        )]
        let millihertz = (rate_hz * 1000.0) as u32;
        let requested = Fraction::new(1000, millihertz);
        let actual = match self.planes {
            Planes::Single => {
                let device = &self.device;
                // Some drivers have a fixed rate and reject the request.
                let actual = device
                    .set_params(&Parameters::new(requested))
                    .or_else(|_| device.params());
                actual.map(|actual| actual.interval)
            }
            Planes::Multiple => planes::set_interval(&self.device.handle(), requested),
        };
        rate_of(actual.ok()?)
    }
}

/// Converts an interval to a rate. `None` for the zeroes that drivers use for "unknown".
fn rate_of(interval: Fraction) -> Option<f64> {
    let Fraction { numerator, denominator } = interval;
    (numerator > 0 && denominator > 0).then(|| f64::from(denominator) / f64::from(numerator))
}

/// The four-character code of a pixel format as text. Big-endian formats have the highest bit of the last character set, for
/// which the kernel's documentation writes `-BE`.
pub fn format_name(fourcc: FourCC) -> String {
    let [a, b, c, d] = fourcc.repr;
    let letters = String::from_utf8_lossy(&[a, b, c, d & 0x7F]).trim_end().to_owned();
    match d & 0x80 {
        0 => letters,
        _ => letters + "-BE",
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_intervals_have_no_rate() {
        let rate = |numerator, denominator| rate_of(Fraction::new(numerator, denominator));
        assert_eq!(rate(1, 30), Some(30.0));
        assert_eq!(rate(1001, 30_000).map(f64::round), Some(30.0));
        assert_eq!((rate(0, 30), rate(1, 0)), (None, None));
    }

    #[test]
    fn format_names_are_printable() {
        assert_eq!(format_name(FourCC::new(b"YUYV")), "YUYV");
        assert_eq!(format_name(FourCC::new(b"Y16 ")), "Y16");
        assert_eq!(format_name(FourCC::new(b"Y16\xA0")), "Y16-BE");
    }

    #[test]
    fn a_name_truncated_within_a_character_is_readable() {
        assert_eq!(text(b"Kamera\0\0"), "Kamera");
        assert_eq!(text("Caméra".as_bytes().split_at(4).0), "Cam\u{FFFD}");
    }

    #[test]
    fn a_node_that_is_not_a_video_node_fails_with_enotty() {
        let null = Node::open(Path::new("/dev/null")).unwrap();
        assert_eq!(null.identity().unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
