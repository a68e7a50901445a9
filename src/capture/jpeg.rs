//! JPEG images, decoded to luma only.
//!
//! No model uses colour, so chroma is parsed but never transformed. That saves most of the cost of decoding a camera's
//! JPEG frame.

use std::borrow::Cow;

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::luma::Luma;

/// Images with more pixels than 8K UHD are rejected: no camera sends them, but damaged headers claim them.
const MAX_PIXELS: usize = 7680 * 4320;

/// Why an image could not be decoded. Cameras send such images now and then: skip them and count them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The decoder's message, in one line.
    #[error("undecodable image: {0}")]
    Invalid(String),
    #[error("undecodable image: its header states no size")]
    NoSize,
    #[error("undecodable image: {width}×{height} is larger than 7680×4320")]
    TooLarge { width: usize, height: usize },
    #[error("undecodable image: only {present} of {rows} rows are present: {reason}")]
    Truncated { present: u32, rows: u32, reason: String },
}

/// Decodes a JPEG image to luma. Fails if more than a quarter of the rows is missing.
pub fn decode(bytes: &[u8]) -> Result<Luma, DecodeError> {
    let alone = luma_scan(bytes);
    let bytes = alone.as_deref().unwrap_or(bytes);
    // zune-jpeg panics on some damaged images.
    crate::caught_panic::catch(|| decode_whole(&with_huffman_tables(bytes)))
        .unwrap_or_else(|panic| Err(DecodeError::Invalid(one_line(&panic))))
}

fn decode_whole(bytes: &[u8]) -> Result<Luma, DecodeError> {
    let (luma, missing) = decode_rows(bytes, Strictness::Lenient)?;
    // The lenient decoder silently fills missing rows with 128. A flat grey image looks the same, so decode it again
    // strictly before rejecting it.
    if missing * 4 > luma.height()
        && let Err(error) = decode_rows(bytes, Strictness::Strict)
    {
        return Err(DecodeError::Truncated {
            present: luma.height() - missing,
            rows: luma.height(),
            reason: match error {
                DecodeError::Invalid(reason) => reason,
                other => other.to_string(),
            },
        });
    }
    Ok(luma)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    Lenient,
    Strict,
}

/// Returns the image and how many of its last rows are entirely 128.
fn decode_rows(bytes: &[u8], strictness: Strictness) -> Result<(Luma, u32), DecodeError> {
    let colours = if luma_only_fails(bytes) {
        ColorSpace::YCbCr
    } else {
        ColorSpace::Luma
    };
    let options = DecoderOptions::default()
        .set_strict_mode(strictness == Strictness::Strict)
        .set_max_width(u16::MAX.into())
        .set_max_height(u16::MAX.into())
        .jpeg_set_out_colorspace(colours);
    let invalid = |err: DecodeErrors| DecodeError::Invalid(one_line(&format!("{err:?}")));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(invalid)?;
    let (width, height) = decoder.dimensions().ok_or(DecodeError::NoSize)?;
    if width * height > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height });
    }
    let planes = colours.num_components();
    let mut data = vec![128; width * height * planes];
    decoder.decode_into(&mut data).map_err(invalid)?;
    if planes > 1 {
        data = data.into_iter().step_by(planes).collect();
    }
    let grey = |row: &&[u8]| row.iter().all(|&pixel| pixel == 128);
    let grey_rows = data.chunks_exact(width.max(1)).rev().take_while(grey);
    let missing = u32::try_from(grey_rows.count()).unwrap_or(u32::MAX);
    let side = |pixels: usize| u32::try_from(pixels).ok();
    let luma = side(width).zip(side(height)).and_then(|(w, h)| Luma::new(w, h, data));
    Ok((luma.ok_or(DecodeError::NoSize)?, missing))
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .trim_matches('"')
        .to_owned()
}

/// The segments up to the first scan: marker, content and offset. The last one is the scan's own header. Ends early where
/// the bytes are invalid.
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

/// Whether zune-jpeg 0.5.15 decodes luma wrongly if asked for luma only. It does for progressive images whose chroma is
/// halved vertically but not horizontally. No camera sends these; clips may hold them.
fn luma_only_fails(jpeg: &[u8]) -> bool {
    segments(jpeg).any(|(marker, content, _)| marker == SOF_PROGRESSIVE && content.get(7) == Some(&0x12))
}

/// The luma of a sequential image whose colours are in separate scans, as an image of its own. zune-jpeg 0.5.15 decodes such images
/// wrongly or panics. `None` for all other images, and if luma is not alone in the first scan.
fn luma_scan(jpeg: &[u8]) -> Option<Vec<u8>> {
    let (mut luma, mut frame) = (None, None);
    for (marker, content, start) in segments(jpeg) {
        match (marker, content) {
            (
                SOF_BASELINE | SOF_EXTENDED,
                &[
                    precision,
                    rows_high,
                    rows,
                    columns_high,
                    columns,
                    count,
                    id,
                    _,
                    table,
                    ..,
                ],
            ) if count > 1 => {
                luma = Some(id);
                frame = Some((
                    start,
                    content.len(),
                    [precision, rows_high, rows, columns_high, columns, 1, id, 0x11, table],
                ));
            }
            (SOS, &[1, id, ..]) if luma == Some(id) => {
                let (frame_start, frame_length, header) = frame?;
                let scan = start + 4 + content.len();
                let end = scan + entropy_coded_length(&jpeg[scan..]);
                let mut alone = jpeg[..frame_start + 2].to_vec();
                alone.extend_from_slice(&[0, 2 + 9]);
                alone.extend_from_slice(&header);
                alone.extend_from_slice(&jpeg[frame_start + 4 + frame_length..end]);
                alone.extend_from_slice(&[0xFF, EOI]);
                return Some(alone);
            }
            _ => {}
        }
    }
    None
}

/// The length of the entropy-coded data. Any marker except a restart marker ends it.
fn entropy_coded_length(data: &[u8]) -> usize {
    let ends = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0x00 | RST_0..=RST_7 | 0xFF);
    data.windows(2).position(ends).unwrap_or(data.len())
}

/// Many cameras omit the Huffman tables and imply the standard ones. Inserts those before the scan if the image has
/// none.
fn with_huffman_tables(jpeg: &[u8]) -> Cow<'_, [u8]> {
    let decisive = segments(jpeg).find(|(marker, ..)| matches!(*marker, DHT | SOS));
    let Some((SOS, _, scan)) = decisive else {
        return jpeg.into();
    };
    let tables: usize = STANDARD_TABLES.iter().map(|table| table.len() + 4).sum();
    let mut whole = Vec::with_capacity(jpeg.len() + tables);
    whole.extend_from_slice(&jpeg[..scan]);
    for table in STANDARD_TABLES {
        let length = u16::try_from(table.len() + 2).expect("a table has at most 179 bytes");
        whole.extend_from_slice(&[0xFF, DHT]);
        whole.extend_from_slice(&length.to_be_bytes());
        whole.extend_from_slice(table);
    }
    whole.extend_from_slice(&jpeg[scan..]);
    whole.into()
}

const SOF_BASELINE: u8 = 0xC0;
const SOF_EXTENDED: u8 = 0xC1;
const SOF_PROGRESSIVE: u8 = 0xC2;
const RST_0: u8 = 0xD0;
const RST_7: u8 = 0xD7;
const EOI: u8 = 0xD9;
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

    fn slope(x: u32, y: u32) -> u8 {
        (x * 3 + y * 2 + 20) as u8
    }

    /// The largest difference between `luma` and `pixel`.
    fn largest_difference(luma: &Luma, pixel: impl Fn(u32, u32) -> u8) -> u8 {
        let rows = (0..luma.height()).flat_map(|y| luma.row(y).iter().zip(0..).map(move |(p, x)| (*p, x, y)));
        rows.map(|(p, x, y)| p.abs_diff(pixel(x, y))).max().unwrap()
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
                    let worst = largest_difference(&luma, |x, y| slope(x % 48, y % 48));
                    assert!(
                        worst <= 6,
                        "{sampling:?} {width}×{height} {progressive}: off by {worst}"
                    );
                }
            }
        }
    }

    #[test]
    fn colours_are_weighted_as_in_the_jpeg_standard() {
        let jpeg = colour_jpeg(16, 16, SamplingFactor::F_2_2, false, |_, _| [255, 0, 0]);
        assert!(largest_difference(&decode(&jpeg).unwrap(), |_, _| 76) <= 2);
    }

    /// Removes the Huffman tables, as most webcams do.
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
    fn images_without_huffman_tables_decode_with_the_standard_tables() {
        let jpeg = colour_jpeg(64, 48, SamplingFactor::F_2_1, false, |x, y| [slope(x, y), 90, 120]);
        let bare = without_tables(&jpeg);
        assert!(bare.len() + 400 < jpeg.len());
        assert_eq!(decode(&bare).unwrap(), decode(&jpeg).unwrap());
    }

    #[test]
    fn an_image_cut_near_its_end_decodes_and_one_cut_early_fails() {
        let jpeg = grey_jpeg(160, 120, |x, y| ((x * 7) ^ (y * 13)) as u8);
        let at = |share: f64| decode(&jpeg[..(jpeg.len() as f64 * share) as usize]);
        assert_eq!(at(0.95).unwrap().height(), 120);
        let error = at(0.5).unwrap_err();
        assert!(
            matches!(
                error,
                DecodeError::Truncated {
                    present: 30..90,
                    rows: 120,
                    ..
                }
            ),
            "{error}"
        );
        assert!(at(0.02).is_err());
    }

    #[test]
    fn a_flat_grey_image_decodes() {
        assert!(largest_difference(&decode(&grey_jpeg(64, 64, |_, _| 128)).unwrap(), |_, _| 128) == 0);
    }

    #[test]
    fn images_beyond_8k_are_rejected_before_allocation() {
        let mut jpeg = grey_jpeg(16, 16, |_, _| 9);
        let sof = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
        jpeg[sof + 5..sof + 9].copy_from_slice(&[0x1E, 0x01, 0x10, 0xE0]);
        let error = decode(&jpeg).unwrap_err();
        insta::assert_snapshot!(error, @"undecodable image: 4320×7681 is larger than 7680×4320");
    }

    #[test]
    fn an_8k_image_decodes() {
        let jpeg = grey_jpeg(7680, 4320, |x, _| (x / 32) as u8);
        assert_eq!(decode(&jpeg).unwrap().as_slice().len(), MAX_PIXELS);
    }

    #[test]
    fn errors_are_one_short_line() {
        for bytes in [&b""[..], b"\xFF\xD8", b"GIF89a", b"\xFF\xD8\xFF\xD9"] {
            let err = decode(bytes).unwrap_err().to_string();
            assert!(!err.contains('\n') && err.len() < 200, "{err}");
        }
    }

    #[test]
    fn images_with_colours_in_separate_scans_decode_to_their_luma() {
        // jpeg-encoder uses separate scans with optimized tables.
        for sampling in [
            SamplingFactor::F_1_1,
            SamplingFactor::F_1_2,
            SamplingFactor::F_2_2,
            SamplingFactor::R_4_4_0,
        ] {
            let mut jpeg = Vec::new();
            let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
            encoder.set_sampling_factor(sampling);
            encoder.set_optimized_huffman_tables(true);
            let pixels: Vec<u8> = (0..37 * 21).flat_map(|i| [slope(i % 37, i / 37), 200, 10]).collect();
            encoder.encode(&pixels, 37, 21, jpeg_encoder::ColorType::Ycbcr).unwrap();
            assert!(luma_scan(&jpeg).is_some(), "{sampling:?}");
            let worst = largest_difference(&decode(&jpeg).unwrap(), slope);
            assert!(worst <= 6, "{sampling:?}: off by {worst}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn damaged_images_do_not_panic(
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
