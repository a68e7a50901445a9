//! Grey images.

/// A grey image: one byte per pixel, 0 black to 255 white, row-major, without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Luma {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl Luma {
    /// `None` unless `data` holds exactly `width` × `height` bytes, and at least one.
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

    /// All `width` × `height` pixels.
    pub fn as_slice(&self) -> &[u8] {
        &self.data
    }

    /// The rows of a range. Rows beyond the last are left out.
    pub fn rows(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &[u8]> {
        let rows = self.data.chunks_exact(self.width as usize);
        rows.skip(range.start).take(range.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_luma_image_has_exactly_its_declared_size() {
        assert!(Luma::new(2, 2, vec![0; 3]).is_none());
        assert!(Luma::new(0, 0, vec![]).is_none());
        let luma = Luma::new(2, 3, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(luma.row(1), [3, 4]);
    }
}
