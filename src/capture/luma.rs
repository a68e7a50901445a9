//! Luma pictures, and JPEG pictures decoded to luma alone.
//!
//! No model here looks at colour, so chroma is parsed past and never transformed: that is most of the cost of a JPEG
//! picture from a camera.

use std::borrow::Cow;

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Picture;

/// Pictures of more pixels than 8K UHD are refused: no camera sends them, a damaged header does.
const MOST_PIXELS: usize = 7680 * 4320;

/// A grey picture: one byte a pixel, 0 black to 255 white, row-major and tightly packed.
#[derive(Clone, PartialEq, Eq)]
pub struct Luma {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl Luma {
    /// `None` unless `data` holds exactly `width` × `height` bytes and at least one.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Option<Luma> {
        let pixels = u64::from(width) * u64::from(height);
        (pixels > 0 && data.len() as u64 == pixels).then_some(Luma { width, height, data })
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// All pixels, `width` × `height` of them.
    pub fn as_slice(&self) -> &[u8] {
        &self.data
    }

    /// Row `y`, counted from the top. Panics if `y` is not below [`Luma::height`].
    pub fn row(&self, y: u32) -> &[u8] {
        let width = self.width as usize;
        &self.data[y as usize * width..][..width]
    }
}

impl std::fmt::Debug for Luma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Luma({}×{})", self.width, self.height)
    }
}

/// Why a picture could not be decoded. Cameras send such pictures now and then: skip it, count it, go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broken picture: {0}")]
pub struct BrokenPicture(String);

impl Picture {
    /// Decodes to luma. A truncated JPEG counts as whole if at least three quarters of its rows are there; the missing
    /// rows are mid-grey.
    pub fn into_luma(self) -> Result<Luma, BrokenPicture> {
        match self {
            Picture::Luma(luma) => Ok(luma),
            Picture::Jpeg(bytes) => decode_jpeg(&bytes),
        }
    }
}

fn decode_jpeg(bytes: &[u8]) -> Result<Luma, BrokenPicture> {
    let bytes = with_huffman_tables(bytes);
    let (luma, missing) = decode(&bytes, false)?;
    // The decoder fills what it could not decode with 128 and keeps quiet. A flat grey picture looks the same, so ask
    // it again, strictly this time, before calling the picture broken.
    if missing * 4 > luma.height
        && let Err(BrokenPicture(reason)) = decode(&bytes, true)
    {
        let there = luma.height - missing;
        return Err(BrokenPicture(format!(
            "only {there} of {} rows are there: {reason}",
            luma.height
        )));
    }
    Ok(luma)
}

/// The picture and how many of its last rows are all 128.
fn decode(bytes: &[u8], strict: bool) -> Result<(Luma, u32), BrokenPicture> {
    let colours = if luma_alone_fails(bytes) {
        ColorSpace::YCbCr
    } else {
        ColorSpace::Luma
    };
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(u16::MAX.into())
        .set_max_height(u16::MAX.into())
        .jpeg_set_out_colorspace(colours);
    let broken = |err: DecodeErrors| BrokenPicture(one_line(&format!("{err:?}")));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder
        .dimensions()
        .ok_or_else(|| BrokenPicture("it does not say how large it is".into()))?;
    if width * height > MOST_PIXELS {
        return Err(BrokenPicture(format!("{width}×{height} is larger than 7680×4320")));
    }
    let planes = colours.num_components();
    let mut data = vec![128; width * height * planes];
    decoder.decode_into(&mut data).map_err(broken)?;
    if planes > 1 {
        data = data.into_iter().step_by(planes).collect();
    }
    let grey = |row: &&[u8]| row.iter().all(|&pixel| pixel == 128);
    let missing = data.chunks_exact(width.max(1)).rev().take_while(grey).count();
    let luma = Luma::new(width as u32, height as u32, data)
        .ok_or_else(|| BrokenPicture(format!("it is {width}×{height} pixels large")))?;
    Ok((luma, missing as u32))
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .trim_matches('"')
        .to_owned()
}

/// The segments in front of the first scan: marker, content and where the segment starts. Ends with the scan's own, or
/// where the header makes no sense.
fn segments(jpeg: &[u8]) -> impl Iterator<Item = (u8, &[u8], usize)> {
    let mut at = Some(2);
    std::iter::from_fn(move || {
        let mut start = at?;
        while jpeg.get(start..start + 2) == Some(&[0xFF, 0xFF]) {
            start += 1;
        }
        let &[0xFF, marker, high, low] = jpeg.get(start..start + 4)? else {
            return None;
        };
        let end = start + 2 + usize::from(u16::from_be_bytes([high, low]));
        at = (marker != SOS).then_some(end);
        Some((marker, jpeg.get(start + 4..end)?, start))
    })
}

/// zune-jpeg 0.5.15 gets luma wrong if it is asked for nothing else of a progressive picture whose chroma is halved
/// vertically only. No camera sends these; clips may hold them.
fn luma_alone_fails(jpeg: &[u8]) -> bool {
    segments(jpeg).any(|(marker, content, _)| marker == SOF_PROGRESSIVE && content.get(7) == Some(&0x12))
}

/// Many cameras leave the Huffman tables out of every picture and mean the standard ones. Puts those in front of the
/// scan if no table comes before it.
fn with_huffman_tables(jpeg: &[u8]) -> Cow<'_, [u8]> {
    let decisive = segments(jpeg).find(|(marker, ..)| matches!(*marker, DHT | SOS));
    let Some((SOS, _, scan)) = decisive else {
        return jpeg.into();
    };
    let tables: usize = STANDARD_TABLES.iter().map(|table| table.len() + 4).sum();
    let mut whole = Vec::with_capacity(jpeg.len() + tables);
    whole.extend_from_slice(&jpeg[..scan]);
    for table in STANDARD_TABLES {
        whole.extend_from_slice(&[0xFF, DHT]);
        whole.extend_from_slice(&(table.len() as u16 + 2).to_be_bytes());
        whole.extend_from_slice(table);
    }
    whole.extend_from_slice(&jpeg[scan..]);
    whole.into()
}

const SOF_PROGRESSIVE: u8 = 0xC2;
const DHT: u8 = 0xC4;
const SOS: u8 = 0xDA;

/// ITU-T T.81 tables K.3 to K.6, each as the payload of a DHT segment: class and id, 16 counts, the values.
const STANDARD_TABLES: [&[u8]; 4] = [&DC_LUMA, &DC_CHROMA, &AC_LUMA, &AC_CHROMA];

#[rustfmt::skip]
const DC_LUMA: [u8; 29] = [
    0x00,
    0x00, 0x01, 0x05, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B,
];

#[rustfmt::skip]
const DC_CHROMA: [u8; 29] = [
    0x01,
    0x00, 0x03, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B,
];

#[rustfmt::skip]
const AC_LUMA: [u8; 179] = [
    0x10,
    0x00, 0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03, 0x05, 0x05, 0x04, 0x04, 0x00, 0x00, 0x01, 0x7D,
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2A, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7,
    0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4, 0xC5,
    0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
    0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
    0xF9, 0xFA,
];

#[rustfmt::skip]
const AC_CHROMA: [u8; 179] = [
    0x11,
    0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07, 0x05, 0x04, 0x04, 0x00, 0x01, 0x02, 0x77,
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0,
    0x15, 0x62, 0x72, 0xD1, 0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26,
    0x27, 0x28, 0x29, 0x2A, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5,
    0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
    0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
    0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
    0xF9, 0xFA,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::support::jpeg::{colour_jpeg, grey_jpeg};
    use jpeg_encoder::SamplingFactor;
    use proptest::prelude::*;

    fn decode(jpeg: &[u8]) -> Result<Luma, BrokenPicture> {
        Picture::Jpeg(jpeg.to_vec()).into_luma()
    }

    fn slope(x: u32, y: u32) -> u8 {
        (x * 3 + y * 2 + 20) as u8
    }

    /// The largest difference to `pixel` anywhere.
    fn off(luma: &Luma, pixel: impl Fn(u32, u32) -> u8) -> u8 {
        let rows = (0..luma.height()).flat_map(|y| luma.row(y).iter().zip(0..).map(move |(p, x)| (*p, x, y)));
        rows.map(|(p, x, y)| p.abs_diff(pixel(x, y))).max().unwrap()
    }

    #[test]
    fn a_luma_picture_is_exactly_as_large_as_it_says() {
        assert!(Luma::new(2, 2, vec![0; 3]).is_none());
        assert!(Luma::new(0, 0, vec![]).is_none());
        let luma = Luma::new(2, 3, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(luma.row(1), [3, 4]);
    }

    #[test]
    fn every_subsampling_size_and_scan_order_decodes_to_the_same_luma() {
        use SamplingFactor::*;
        for sampling in [F_1_1, F_2_1, F_1_2, F_2_2, F_4_1] {
            for (width, height) in [(48, 32), (37, 21), (8, 9), (1, 1)] {
                for progressive in [false, true] {
                    let jpeg = colour_jpeg(width, height, sampling, progressive, |x, y| [slope(x % 48, y % 48); 3]);
                    let luma = decode(&jpeg).unwrap();
                    assert_eq!((luma.width(), luma.height()), (width.into(), height.into()));
                    let worst = off(&luma, |x, y| slope(x % 48, y % 48));
                    assert!(
                        worst <= 6,
                        "{sampling:?} {width}×{height} {progressive}: off by {worst}"
                    );
                }
            }
        }
    }

    #[test]
    fn colour_is_weighed_as_jpeg_does() {
        let jpeg = colour_jpeg(16, 16, SamplingFactor::F_2_2, false, |_, _| [255, 0, 0]);
        assert!(off(&decode(&jpeg).unwrap(), |_, _| 76) <= 2);
    }

    /// Takes the Huffman tables out, as most webcams do.
    fn without_tables(jpeg: &[u8]) -> Vec<u8> {
        let (mut out, mut at) = (jpeg[..2].to_vec(), 2);
        while jpeg[at + 1] != SOS {
            let size = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
            if jpeg[at + 1] != DHT {
                out.extend_from_slice(&jpeg[at..at + size]);
            }
            at += size;
        }
        out.extend_from_slice(&jpeg[at..]);
        out
    }

    #[test]
    fn webcam_pictures_without_huffman_tables_decode_with_the_standard_ones() {
        let jpeg = colour_jpeg(64, 48, SamplingFactor::F_2_1, false, |x, y| [slope(x, y), 90, 120]);
        let bare = without_tables(&jpeg);
        assert!(bare.len() + 400 < jpeg.len());
        assert_eq!(decode(&bare).unwrap(), decode(&jpeg).unwrap());
    }

    #[test]
    fn a_picture_cut_near_its_end_is_used_and_one_cut_early_is_broken() {
        let jpeg = grey_jpeg(160, 120, |x, y| ((x * 7) ^ (y * 13)) as u8);
        let at = |share: f64| decode(&jpeg[..(jpeg.len() as f64 * share) as usize]);
        assert_eq!(at(0.95).unwrap().height(), 120);
        let err = at(0.5).unwrap_err().to_string();
        assert!(
            err.starts_with("broken picture: only ") && err.contains(" of 120 rows are there"),
            "{err}"
        );
        assert!(at(0.02).is_err());
    }

    #[test]
    fn a_flat_grey_picture_is_not_taken_for_a_broken_one() {
        assert!(off(&decode(&grey_jpeg(64, 64, |_, _| 128)).unwrap(), |_, _| 128) == 0);
    }

    #[test]
    fn pictures_beyond_8k_are_refused_before_memory_is_taken() {
        let mut jpeg = grey_jpeg(16, 16, |_, _| 9);
        let sof = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
        jpeg[sof + 5..sof + 9].copy_from_slice(&[0x1E, 0x01, 0x10, 0xE0]);
        let err = decode(&jpeg).unwrap_err().to_string();
        assert_eq!(err, "broken picture: 4320×7681 is larger than 7680×4320");
    }

    #[test]
    fn an_8k_picture_decodes() {
        let jpeg = grey_jpeg(7680, 4320, |x, _| (x / 32) as u8);
        assert_eq!(decode(&jpeg).unwrap().as_slice().len(), MOST_PIXELS);
    }

    #[test]
    fn what_is_no_jpeg_says_so_in_one_line() {
        for bytes in [&b""[..], b"\xFF\xD8", b"GIF89a", b"\xFF\xD8\xFF\xD9"] {
            let err = decode(bytes).unwrap_err().to_string();
            assert!(!err.contains('\n') && err.len() < 200, "{err}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn no_bytes_panic(
            progressive: bool,
            edits in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..12),
            keep in any::<prop::sample::Index>(),
        ) {
            let mut jpeg = colour_jpeg(40, 24, SamplingFactor::F_2_2, progressive, |x, y| [slope(x, y), y as u8, x as u8]);
            for (index, byte) in edits {
                let at = index.index(jpeg.len());
                jpeg[at] = byte;
            }
            jpeg.truncate(keep.index(jpeg.len()) + 1);
            let _ = decode(&jpeg);
        }
    }
}
