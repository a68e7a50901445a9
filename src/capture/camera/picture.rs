//! From a camera's buffer to a picture, as far as the buffer can be believed.

use super::negotiate::Encoding;
use crate::capture::Picture;
use crate::capture::luma::Luma;

/// How a picture lies in a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub encoding: Encoding,
    pub width: u32,
    pub height: u32,
    /// Bytes from one row to the next; 0 where the driver leaves it open.
    pub stride: u32,
}

/// A buffer read.
#[derive(Debug)]
pub struct Read {
    /// `None` if nothing in it can be used.
    pub picture: Option<Picture>,
    /// The buffer was not what the driver said.
    pub lied: bool,
}

impl Layout {
    /// Reads the `bytes` that the driver says it filled, of `capacity` there are.
    pub fn read(&self, bytes: &[u8], capacity: usize) -> Read {
        match self.encoding {
            Encoding::Mjpeg => jpeg(bytes, capacity),
            Encoding::Grey | Encoding::Nv12 => self.luma(bytes, 1),
            Encoding::Yuyv => self.luma(bytes, 2),
        }
    }

    /// Luma at every `step`th byte of every row.
    fn luma(&self, bytes: &[u8], step: usize) -> Read {
        let (width, height) = (self.width as usize, self.height as usize);
        let stride = (self.stride as usize).max(width * step);
        // The last row may end where its pixels do.
        if bytes.len() < stride * height.saturating_sub(1) + width * step {
            return Read {
                picture: None,
                lied: true,
            };
        }
        let mut data = Vec::with_capacity(width * height);
        for row in bytes.chunks(stride).take(height) {
            match step {
                1 => data.extend_from_slice(&row[..width]),
                _ => data.extend(row[..width * step].chunks_exact(step).map(|pixel| pixel[0])),
            }
        }
        let picture = Luma::new(self.width, self.height, data).map(Picture::Luma);
        Read {
            lied: picture.is_none(),
            picture,
        }
    }
}

/// Some drivers say that a JPEG fills its whole buffer. It ends with its end marker, then.
fn jpeg(bytes: &[u8], capacity: usize) -> Read {
    if !bytes.starts_with(&[0xFF, 0xD8]) {
        return Read {
            picture: None,
            lied: true,
        };
    }
    let full = bytes.len() == capacity;
    let end = match full {
        true => bytes
            .windows(2)
            .rposition(|pair| pair == [0xFF, 0xD9])
            .map_or(bytes.len(), |at| at + 2),
        false => bytes.len(),
    };
    Read {
        picture: Some(Picture::Jpeg(bytes[..end].to_vec())),
        lied: full,
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

    fn luma(read: Read) -> Vec<u8> {
        assert!(!read.lied);
        match read.picture {
            Some(Picture::Luma(luma)) => luma.as_slice().to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn luma_is_taken_out_of_every_raw_encoding() {
        let grey = layout(Encoding::Grey, 2).read(&[1, 2, 3, 4], 4);
        assert_eq!(luma(grey), [1, 2, 3, 4]);
        let nv12 = layout(Encoding::Nv12, 2).read(&[1, 2, 3, 4, 128, 128], 6);
        assert_eq!(luma(nv12), [1, 2, 3, 4]);
        let yuyv = layout(Encoding::Yuyv, 4).read(&[1, 128, 2, 128, 3, 128, 4, 128], 8);
        assert_eq!(luma(yuyv), [1, 2, 3, 4]);
    }

    #[test]
    fn rows_may_be_padded_and_the_driver_may_not_say() {
        let padded = layout(Encoding::Grey, 4).read(&[1, 2, 0, 0, 3, 4], 8);
        assert_eq!(luma(padded), [1, 2, 3, 4]);
        let unsaid = layout(Encoding::Yuyv, 0).read(&[1, 128, 2, 128, 3, 128, 4, 128], 8);
        assert_eq!(luma(unsaid), [1, 2, 3, 4]);
    }

    #[test]
    fn a_short_buffer_is_a_lie_and_no_picture() {
        for encoding in [Encoding::Grey, Encoding::Nv12, Encoding::Yuyv] {
            let read = layout(encoding, 0).read(&[1, 2, 3], 8);
            assert!(read.lied && read.picture.is_none());
        }
        let read = layout(Encoding::Mjpeg, 0).read(&[], 8);
        assert!(read.lied && read.picture.is_none());
    }

    #[test]
    fn a_jpeg_said_to_fill_its_buffer_is_cut_at_its_end() {
        let filled = [0xFF, 0xD8, 7, 0xFF, 0xD9, 0, 0, 0];
        let read = layout(Encoding::Mjpeg, 0).read(&filled, 8);
        assert!(read.lied);
        assert!(matches!(read.picture, Some(Picture::Jpeg(bytes)) if bytes == filled[..5]));
        let read = layout(Encoding::Mjpeg, 0).read(&filled[..5], 8);
        assert!(!read.lied);
        assert!(matches!(read.picture, Some(Picture::Jpeg(bytes)) if bytes == filled[..5]));
    }
}
