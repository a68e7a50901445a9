//! Chooses the cheapest mode of a camera that satisfies the request.

use std::fmt;

use v4l::FourCC;

use super::node::{Node, Range, format_name};

/// How a camera encodes its frames, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// Luma only.
    Grey,
    /// All luma, then chroma.
    LumaFirst,
    /// Luma in every second byte, from the first on.
    LumaInEvenBytes,
    /// Luma in every second byte, from the second on.
    LumaInOddBytes,
    /// One JPEG per frame.
    Mjpeg,
}

/// The pixel formats that affectd reads, by their four-character codes.
const PIXEL_FORMATS: [(&[u8; 4], Encoding); 23] = [
    (b"GREY", Encoding::Grey),
    (b"NV12", Encoding::LumaFirst),
    (b"NV21", Encoding::LumaFirst),
    (b"NV16", Encoding::LumaFirst),
    (b"NV61", Encoding::LumaFirst),
    (b"NV24", Encoding::LumaFirst),
    (b"YU12", Encoding::LumaFirst),
    (b"YV12", Encoding::LumaFirst),
    (b"422P", Encoding::LumaFirst),
    // The same with each plane in a buffer of its own.
    (b"NM12", Encoding::LumaFirst),
    (b"NM21", Encoding::LumaFirst),
    (b"NM16", Encoding::LumaFirst),
    (b"NM61", Encoding::LumaFirst),
    (b"YM12", Encoding::LumaFirst),
    (b"YM21", Encoding::LumaFirst),
    (b"YM16", Encoding::LumaFirst),
    (b"YM24", Encoding::LumaFirst),
    (b"YUYV", Encoding::LumaInEvenBytes),
    (b"YVYU", Encoding::LumaInEvenBytes),
    (b"UYVY", Encoding::LumaInOddBytes),
    (b"VYUY", Encoding::LumaInOddBytes),
    (b"MJPG", Encoding::Mjpeg),
    (b"JPEG", Encoding::Mjpeg),
];

/// The names of the pixel formats that affectd reads, separated by commas.
pub fn pixel_format_names() -> String {
    let names = PIXEL_FORMATS.map(|(name, _)| String::from_utf8_lossy(name));
    names.join(", ")
}

/// The pixel format with this name, if affectd reads it.
pub fn pixel_format(name: &str) -> Option<FourCC> {
    let (name, _) = PIXEL_FORMATS.iter().find(|(known, _)| name.as_bytes() == *known)?;
    Some(FourCC::new(name))
}

impl Encoding {
    pub fn of(fourcc: FourCC) -> Option<Encoding> {
        let known = PIXEL_FORMATS.iter().find(|(name, _)| fourcc.repr == **name);
        known.map(|(_, encoding)| *encoding)
    }

    /// The cost on the scale of [`Mode::penalty`]. Raw encodings differ only in the bytes to copy; a JPEG must be decoded.
    fn cost(self) -> f64 {
        match self {
            Encoding::Grey => 0.0,
            Encoding::LumaFirst => 0.01,
            Encoding::LumaInEvenBytes | Encoding::LumaInOddBytes => 0.02,
            Encoding::Mjpeg => 0.3,
        }
    }

    /// About how many bytes a pixel takes on the bus.
    fn bytes_per_pixel(self) -> f64 {
        match self {
            Encoding::Grey => 1.0,
            Encoding::LumaFirst => 1.5,
            Encoding::LumaInEvenBytes | Encoding::LumaInOddBytes => 2.0,
            Encoding::Mjpeg => 0.25,
        }
    }
}

/// The mode that the configuration requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestedMode {
    pub width: u32,
    pub height: u32,
    pub rate_hz: f32,
    /// `None` for the cheapest.
    pub format: Option<FourCC>,
}

impl Default for RequestedMode {
    /// A mode that every camera supports, and enough for a face at two metres.
    fn default() -> RequestedMode {
        RequestedMode {
            width: 640,
            height: 480,
            rate_hz: 30.0,
            format: None,
        }
    }
}

/// A mode that a camera offers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    pub fourcc: FourCC,
    pub encoding: Encoding,
    pub width: u32,
    pub height: u32,
    /// The highest frame rate at this size. `None` if the driver does not report it.
    pub rate_hz: Option<f64>,
}

impl Mode {
    /// The distance to the requested mode: 1 for half or twice the pixels or for half the frame rate, plus the cost of the
    /// encoding. A higher rate costs nothing, because the camera can be set to a lower one.
    fn penalty(&self, requested: &RequestedMode) -> f64 {
        let pixels = |width: u32, height: u32| f64::from(width) * f64::from(height);
        let size = (pixels(self.width, self.height) / pixels(requested.width, requested.height))
            .log2()
            .abs();
        let rate = self
            .rate_hz
            .map_or(0.0, |rate| (f64::from(requested.rate_hz) / rate).log2().max(0.0));
        size + rate + self.encoding.cost()
    }

    /// About how much of the bus this mode takes at the requested rate.
    pub fn bytes_per_second(&self, requested: &RequestedMode) -> f64 {
        let rate = self.rate_hz.unwrap_or(f64::MAX).min(requested.rate_hz.into());
        f64::from(self.width) * f64::from(self.height) * self.encoding.bytes_per_pixel() * rate
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}×{}", format_name(self.fourcc), self.width, self.height)?;
        match self.rate_hz {
            Some(rate) => write!(f, " at {} Hz", (rate * 10.0).round() / 10.0),
            None => Ok(()),
        }
    }
}

/// Sorts modes, the best first.
pub fn ranked(mut modes: Vec<Mode>, requested: &RequestedMode) -> Vec<Mode> {
    modes.sort_by(|a, b| a.penalty(requested).total_cmp(&b.penalty(requested)));
    modes
}

/// All modes of a camera in an encoding that affectd reads, and in the requested format if one is requested. If the camera supports a range of sizes, only the size nearest to
/// the requested one is listed.
pub fn modes(node: &Node, requested: &RequestedMode) -> Vec<Mode> {
    let mut modes = Vec::new();
    for fourcc in node.formats() {
        let Some(encoding) = Encoding::of(fourcc) else {
            continue;
        };
        if requested.format.is_some_and(|format| format != fourcc) {
            continue;
        }
        let sizes = node.sizes(fourcc);
        let mut sizes: Vec<(u32, u32)> = sizes
            .iter()
            .map(|size| {
                (
                    nearest(requested.width, size.width),
                    nearest(requested.height, size.height),
                )
            })
            .collect();
        if sizes.is_empty() {
            // Drivers that list no sizes accept a request and adjust it.
            sizes.push((requested.width, requested.height));
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

fn nearest(requested: u32, range: Range) -> u32 {
    let within = requested.clamp(range.min, range.max.max(range.min));
    let step = range.step.max(1);
    range.min + (within - range.min) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    const VGA: RequestedMode = RequestedMode {
        width: 640,
        height: 480,
        rate_hz: 30.0,
        format: None,
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

    fn chosen(modes: &[Mode], requested: &RequestedMode) -> String {
        ranked(modes.to_vec(), requested)[0].to_string()
    }

    #[test]
    fn the_cheapest_encoding_wins_at_equal_size_and_rate() {
        let all = [b"MJPG", b"YUYV", b"NV12", b"GREY"].map(|fourcc| mode(fourcc, 640, 480, 30.0));
        assert_eq!(chosen(&all, &VGA), "GREY 640×480 at 30 Hz");
        assert_eq!(chosen(&all[..3], &VGA), "NV12 640×480 at 30 Hz");
        assert_eq!(chosen(&all[..2], &VGA), "YUYV 640×480 at 30 Hz");
        assert_eq!(chosen(&all[..1], &VGA), "MJPG 640×480 at 30 Hz");
    }

    #[test]
    fn formats_have_names() {
        assert!(pixel_format_names().starts_with("GREY, NV12, "));
        assert_eq!(pixel_format("UYVY").map(|fourcc| fourcc.repr), Some(*b"UYVY"));
        assert_eq!(pixel_format("H264"), None);
    }

    #[test]
    fn jpeg_is_chosen_where_raw_frames_would_be_too_slow() {
        let hd = RequestedMode {
            width: 1280,
            height: 720,
            rate_hz: 30.0,
            format: None,
        };
        let webcam = [
            mode(b"YUYV", 640, 480, 30.0),
            mode(b"YUYV", 1280, 720, 10.0),
            mode(b"MJPG", 1280, 720, 30.0),
        ];
        assert_eq!(chosen(&webcam, &hd), "MJPG 1280×720 at 30 Hz");
        assert_eq!(chosen(&webcam, &VGA), "YUYV 640×480 at 30 Hz");
    }

    #[test]
    fn a_rate_above_the_request_costs_nothing() {
        let fast = [mode(b"YUYV", 640, 480, 120.0), mode(b"MJPG", 640, 480, 30.0)];
        assert_eq!(chosen(&fast, &VGA), "YUYV 640×480 at 120 Hz");
    }

    #[test]
    fn a_stepped_size_is_rounded_down_within_its_range() {
        let range = |min, max, step| Range { min, max, step };
        assert_eq!(nearest(640, range(48, 1920, 2)), 640);
        assert_eq!(nearest(641, range(48, 1920, 16)), 640);
        assert_eq!(nearest(640, range(1280, 1920, 2)), 1280);
        assert_eq!(nearest(640, range(2, 320, 0)), 320);
    }
}
