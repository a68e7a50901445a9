//! JPEG images for tests.
#![allow(dead_code, reason = "each test uses a part")]

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// A grey image as a baseline JPEG with one component.
pub fn grey_jpeg(width: u16, height: u16, pixel: impl Fn(u32, u32) -> u8) -> Vec<u8> {
    let (w, h) = (u32::from(width), u32::from(height));
    let pixels: Vec<u8> = (0..w * h).map(|i| pixel(i % w, i / w)).collect();
    let mut jpeg = Vec::new();
    let encoder = Encoder::new(&mut jpeg, 90);
    encoder
        .encode(&pixels, width, height, ColorType::Luma)
        .expect("the image has pixels");
    jpeg
}

/// A colour image as cameras send it. `pixel` returns red, green and blue.
pub fn colour_jpeg(
    width: u16,
    height: u16,
    sampling: SamplingFactor,
    progressive: bool,
    pixel: impl Fn(u32, u32) -> [u8; 3],
) -> Vec<u8> {
    let (w, h) = (u32::from(width), u32::from(height));
    let pixels: Vec<u8> = (0..w * h).flat_map(|i| pixel(i % w, i / w)).collect();
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, 90);
    encoder.set_sampling_factor(sampling);
    encoder.set_progressive(progressive);
    encoder
        .encode(&pixels, width, height, ColorType::Rgb)
        .expect("the image has pixels");
    jpeg
}
