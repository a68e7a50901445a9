//! Which of a camera's modes costs least and still shows what is wanted.

use std::fmt;

use v4l::FourCC;

use super::node::{Node, Range, name};

/// How a camera hands over a picture, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// Luma alone.
    Grey,
    /// All luma, then chroma.
    Nv12,
    /// Luma in every other byte.
    Yuyv,
    /// A JPEG a picture, to be decoded.
    Mjpeg,
}

impl Encoding {
    pub fn of(fourcc: FourCC) -> Option<Encoding> {
        match &fourcc.repr {
            b"GREY" => Some(Encoding::Grey),
            b"NV12" => Some(Encoding::Nv12),
            b"YUYV" => Some(Encoding::Yuyv),
            b"MJPG" | b"JPEG" => Some(Encoding::Mjpeg),
            _ => None,
        }
    }

    /// On the scale of [`Mode::penalty`]. The raw ones differ by little more than what they copy; a JPEG must be decoded
    /// before anybody can look at it.
    fn cost(self) -> f64 {
        match self {
            Encoding::Grey => 0.0,
            Encoding::Nv12 => 0.01,
            Encoding::Yuyv => 0.02,
            Encoding::Mjpeg => 0.3,
        }
    }
}

/// What the configuration wants of a camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestedMode {
    pub width: u32,
    pub height: u32,
    pub rate_hz: f32,
}

impl Default for RequestedMode {
    /// What every camera does, and enough for a face at two metres.
    fn default() -> RequestedMode {
        RequestedMode {
            width: 640,
            height: 480,
            rate_hz: 30.0,
        }
    }
}

/// One way to run a camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    pub fourcc: FourCC,
    pub encoding: Encoding,
    pub width: u32,
    pub height: u32,
    /// The most it does at this size; `None` where the driver does not say.
    pub rate_hz: Option<f64>,
}

impl Mode {
    /// How far the mode is from the wish: 1 for half or twice the pixels or half the pictures a second, plus what its
    /// encoding costs. More pictures than wished are not held against it, since a camera can be told to take fewer.
    fn penalty(&self, wish: &RequestedMode) -> f64 {
        let pixels = |width: u32, height: u32| f64::from(width) * f64::from(height);
        let size = (pixels(self.width, self.height) / pixels(wish.width, wish.height))
            .log2()
            .abs();
        let rate = self
            .rate_hz
            .map_or(0.0, |rate| (f64::from(wish.rate_hz) / rate).log2().max(0.0));
        size + rate + self.encoding.cost()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}×{}", name(self.fourcc), self.width, self.height)?;
        match self.rate_hz {
            Some(rate) => write!(f, " at {} Hz", (rate * 10.0).round() / 10.0),
            None => Ok(()),
        }
    }
}

/// The mode to try first, second, and so on.
pub fn ranked(mut modes: Vec<Mode>, wish: &RequestedMode) -> Vec<Mode> {
    modes.sort_by(|a, b| a.penalty(wish).total_cmp(&b.penalty(wish)));
    modes
}

/// Every mode of a camera whose encoding we read. Where it does any size within limits, the one nearest to the wish stands
/// for all.
pub fn modes(node: &Node, wish: &RequestedMode) -> Vec<Mode> {
    let mut modes = Vec::new();
    for fourcc in node.formats() {
        let Some(encoding) = Encoding::of(fourcc) else {
            continue;
        };
        let sizes = node.sizes(fourcc);
        let mut sizes: Vec<(u32, u32)> = sizes
            .iter()
            .map(|size| (nearest(wish.width, size.width), nearest(wish.height, size.height)))
            .collect();
        if sizes.is_empty() {
            // Drivers that list no sizes take a request and correct it.
            sizes.push((wish.width, wish.height));
        }
        sizes.dedup();
        for (width, height) in sizes {
            modes.push(Mode {
                fourcc,
                encoding,
                width,
                height,
                rate_hz: node.fastest(fourcc, width, height),
            });
        }
    }
    modes
}

fn nearest(wish: u32, range: Range) -> u32 {
    let within = wish.clamp(range.min, range.max.max(range.min));
    let step = range.step.max(1);
    range.min + (within - range.min) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: RequestedMode = RequestedMode {
        width: 640,
        height: 480,
        rate_hz: 30.0,
    };

    fn mode(fourcc: &[u8; 4], width: u32, height: u32, rate_hz: f64) -> Mode {
        let fourcc = FourCC::new(fourcc);
        Mode {
            fourcc,
            encoding: Encoding::of(fourcc).unwrap(),
            width,
            height,
            rate_hz: Some(rate_hz),
        }
    }

    fn chosen(modes: &[Mode], wish: &RequestedMode) -> String {
        ranked(modes.to_vec(), wish)[0].to_string()
    }

    #[test]
    fn at_the_same_size_and_rate_the_cheapest_encoding_wins() {
        let all = [b"MJPG", b"YUYV", b"NV12", b"GREY"].map(|fourcc| mode(fourcc, 640, 480, 30.0));
        assert_eq!(chosen(&all, &WISH), "GREY 640×480 at 30 Hz");
        assert_eq!(chosen(&all[..3], &WISH), "NV12 640×480 at 30 Hz");
        assert_eq!(chosen(&all[..2], &WISH), "YUYV 640×480 at 30 Hz");
        assert_eq!(chosen(&all[..1], &WISH), "MJPG 640×480 at 30 Hz");
    }

    #[test]
    fn a_usb_camera_sends_jpeg_where_raw_pictures_would_be_too_slow() {
        let wish = RequestedMode {
            width: 1280,
            height: 720,
            rate_hz: 30.0,
        };
        let webcam = [
            mode(b"YUYV", 640, 480, 30.0),
            mode(b"YUYV", 1280, 720, 10.0),
            mode(b"MJPG", 1280, 720, 30.0),
        ];
        assert_eq!(chosen(&webcam, &wish), "MJPG 1280×720 at 30 Hz");
        assert_eq!(chosen(&webcam, &WISH), "YUYV 640×480 at 30 Hz");
    }

    #[test]
    fn a_faster_camera_is_as_good_as_one_that_just_does() {
        let fast = [mode(b"YUYV", 640, 480, 120.0), mode(b"MJPG", 640, 480, 30.0)];
        assert_eq!(chosen(&fast, &WISH), "YUYV 640×480 at 120 Hz");
    }

    #[test]
    fn a_size_in_steps_is_the_one_nearest_below_the_wish() {
        let range = |min, max, step| Range { min, max, step };
        assert_eq!(nearest(640, range(48, 1920, 2)), 640);
        assert_eq!(nearest(641, range(48, 1920, 16)), 640);
        assert_eq!(nearest(640, range(1280, 1920, 2)), 1280);
        assert_eq!(nearest(640, range(2, 320, 0)), 320);
    }
}
