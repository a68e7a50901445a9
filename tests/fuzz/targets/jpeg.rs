//! Our use of the JPEG decoder: an image or a short error, whatever the decoder does.

use affectd::capture::FramePayload;

/// 8K UHD.
const MAX_PIXELS: u64 = 7680 * 4320;

pub fn check(data: &[u8]) {
    let decode = || FramePayload::Jpeg(data.to_vec()).into_luma();
    match decode() {
        Ok(luma) => {
            let pixels = u64::from(luma.width()) * u64::from(luma.height());
            assert_eq!(luma.as_slice().len() as u64, pixels);
            assert!((1..=MAX_PIXELS).contains(&pixels), "{luma:?}");
            assert!(
                decode().as_ref() == Ok(&luma),
                "the same image decodes to something else"
            );
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(char::is_control) && text.len() < 300, "{text:?}");
        }
    }
}
