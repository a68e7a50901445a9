//! Grey images as BMP files, which every browser shows and which need no encoder.

use crate::capture::Luma;

/// Both headers, and a palette of 256 greys.
const PIXELS_AT: u32 = 14 + 40 + 256 * 4;

pub fn bitmap(image: &Luma) -> Vec<u8> {
    let (width, height) = (image.width(), image.height());
    let padding = width.next_multiple_of(4) - width;
    let size = PIXELS_AT + (width + padding) * height;
    let mut file = Vec::with_capacity(size as usize);
    file.extend(b"BM");
    for value in [size, 0, PIXELS_AT, 40, width, height] {
        file.extend(value.to_le_bytes());
    }
    // One plane of 8 bits, not compressed; the size of the pixels and the resolution may be zero; 256 colours.
    for value in [1u16, 8] {
        file.extend(value.to_le_bytes());
    }
    for value in [0u32, 0, 0, 0, 256, 0] {
        file.extend(value.to_le_bytes());
    }
    for grey in 0..=255 {
        file.extend([grey, grey, grey, 0]);
    }
    // The last row comes first, and each row is a multiple of four bytes.
    for y in (0..height).rev() {
        file.extend_from_slice(image.row(y));
        file.extend(std::iter::repeat_n(0, padding as usize));
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_has_its_rows_from_below_and_padded() {
        let file = bitmap(&Luma::new(3, 2, vec![1, 2, 3, 4, 5, 6]).unwrap());
        assert_eq!(file.len(), PIXELS_AT as usize + 8);
        assert_eq!(&file[..6], [b'B', b'M', 0x3E, 4, 0, 0]);
        assert_eq!(&file[PIXELS_AT as usize..], [4, 5, 6, 0, 1, 2, 3, 0]);
    }
}
