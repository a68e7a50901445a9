//! Converts a camera's buffer to a frame payload. A buffer may differ from what the driver reports.

use super::negotiate::Encoding;
use crate::capture::{FramePayload, Luma};

/// How an image is stored in a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub encoding: Encoding,
    pub width: u32,
    pub height: u32,
    /// Bytes from one row to the next; 0 if the driver does not report it.
    pub stride: u32,
}

/// The content of a buffer.
#[derive(Debug)]
pub struct ReadImage {
    /// `None` if nothing in the buffer is usable.
    pub payload: Option<FramePayload>,
    /// The buffer did not match its description by the driver.
    pub malformed: bool,
}

impl ReadImage {
    const UNUSABLE: ReadImage = ReadImage {
        payload: None,
        malformed: true,
    };
}

impl Layout {
    /// Reads the `bytes` that the driver reports as filled, in a buffer of `capacity` bytes.
    pub fn read(&self, bytes: &[u8], capacity: usize) -> ReadImage {
        match self.encoding {
            Encoding::Mjpeg => jpeg(bytes, capacity),
            Encoding::Grey | Encoding::LumaFirst => self.luma(bytes, 0, 1),
            Encoding::LumaInEvenBytes => self.luma(bytes, 0, 2),
            Encoding::LumaInOddBytes => self.luma(bytes, 1, 2),
        }
    }

    /// Extracts every `step`th byte of every row, from byte `first` on.
    fn luma(&self, bytes: &[u8], first: usize, step: usize) -> ReadImage {
        let (width, height) = (self.width as usize, self.height as usize);
        let stride = (self.stride as usize).max(width * step);
        // The last row may end where its pixels do.
        if bytes.len() < stride * height.saturating_sub(1) + width * step {
            return ReadImage::UNUSABLE;
        }
        let mut data = Vec::with_capacity(width * height);
        for row in bytes.chunks(stride).take(height) {
            match step {
                1 => data.extend_from_slice(&row[..width]),
                _ => data.extend(row[..width * step].chunks_exact(step).map(|pixel| pixel[first])),
            }
        }
        let payload = Luma::new(self.width, self.height, data).map(FramePayload::Luma);
        ReadImage {
            malformed: payload.is_none(),
            payload,
        }
    }
}

/// Some drivers report that a JPEG fills its whole buffer. The image then ends at its last end marker.
fn jpeg(bytes: &[u8], capacity: usize) -> ReadImage {
    if !bytes.starts_with(&[0xFF, 0xD8]) {
        return ReadImage::UNUSABLE;
    }
    let full = bytes.len() == capacity;
    let end = match full {
        true => bytes
            .windows(2)
            .rposition(|pair| pair == [0xFF, 0xD9])
            .map_or(bytes.len(), |at| at + 2),
        false => bytes.len(),
    };
    ReadImage {
        payload: Some(FramePayload::Jpeg(bytes[..end].to_vec())),
        malformed: full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(encoding: Encoding, stride: u32) -> Layout {
        Layout {
            encoding,
            width: 2,
            height: 2,
            stride,
        }
    }

    fn luma(read: ReadImage) -> Vec<u8> {
        assert!(!read.malformed);
        match read.payload {
            Some(FramePayload::Luma(luma)) => luma.as_slice().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn luma_is_extracted_from_every_raw_encoding() {
        let grey = layout(Encoding::Grey, 2).read(&[1, 2, 3, 4], 4);
        assert_eq!(luma(grey), [1, 2, 3, 4]);
        let nv12 = layout(Encoding::LumaFirst, 2).read(&[1, 2, 3, 4, 128, 128], 6);
        assert_eq!(luma(nv12), [1, 2, 3, 4]);
        let yuyv = layout(Encoding::LumaInEvenBytes, 4).read(&[1, 128, 2, 128, 3, 128, 4, 128], 8);
        assert_eq!(luma(yuyv), [1, 2, 3, 4]);
        let uyvy = layout(Encoding::LumaInOddBytes, 4).read(&[128, 1, 128, 2, 128, 3, 128, 4], 8);
        assert_eq!(luma(uyvy), [1, 2, 3, 4]);
    }

    #[test]
    fn padded_rows_and_unreported_strides_are_read() {
        let padded = layout(Encoding::Grey, 4).read(&[1, 2, 0, 0, 3, 4], 8);
        assert_eq!(luma(padded), [1, 2, 3, 4]);
        let unreported = layout(Encoding::LumaInEvenBytes, 0).read(&[1, 128, 2, 128, 3, 128, 4, 128], 8);
        assert_eq!(luma(unreported), [1, 2, 3, 4]);
    }

    #[test]
    fn a_short_buffer_is_malformed_and_yields_no_frame() {
        for encoding in [
            Encoding::Grey,
            Encoding::LumaFirst,
            Encoding::LumaInEvenBytes,
            Encoding::LumaInOddBytes,
        ] {
            let read = layout(encoding, 0).read(&[1, 2, 3], 8);
            assert!(read.malformed && read.payload.is_none());
        }
        let read = layout(Encoding::Mjpeg, 0).read(&[], 8);
        assert!(read.malformed && read.payload.is_none());
    }

    #[test]
    fn a_jpeg_reported_to_fill_its_buffer_is_cut_at_its_end_marker() {
        let filled = [0xFF, 0xD8, 7, 0xFF, 0xD9, 0, 0, 0];
        let read = layout(Encoding::Mjpeg, 0).read(&filled, 8);
        assert!(read.malformed);
        assert!(matches!(read.payload, Some(FramePayload::Jpeg(bytes)) if bytes == filled[..5]));
        let read = layout(Encoding::Mjpeg, 0).read(&filled[..5], 8);
        assert!(!read.malformed);
        assert!(matches!(read.payload, Some(FramePayload::Jpeg(bytes)) if bytes == filled[..5]));
    }
}
