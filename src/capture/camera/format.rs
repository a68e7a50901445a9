//! The image format of a node.

use v4l::FourCC;

/// The current image format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Format {
    pub fourcc: FourCC,
    pub width: u32,
    pub height: u32,
    /// Bytes from one row to the next; 0 if the driver does not report it.
    pub stride: u32,
}
