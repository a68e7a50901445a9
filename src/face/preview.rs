//! A small grey copy of the newest frame, made only while somebody asks for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::capture::Luma;

/// A copy has at most this width and height.
const MAX_SIDE: u32 = 320;
/// Frames are copied for this long after a question, and a copy is shown for this long.
const MAX_AGE: Duration = Duration::from_secs(3);

/// The newest frame, for those who may see it.
#[derive(Debug)]
pub struct FramePreview {
    started: Instant,
    /// Frames are copied until then, in milliseconds since the start. Zero if nobody has asked.
    wanted_until_ms: AtomicU64,
    newest: Mutex<Option<(Instant, Arc<Luma>)>>,
}

impl Default for FramePreview {
    fn default() -> FramePreview {
        FramePreview {
            started: Instant::now(),
            wanted_until_ms: AtomicU64::new(0),
            newest: Mutex::default(),
        }
    }
}

impl FramePreview {
    /// The newest copy, upright and at most 320 pixels wide and high. `None` at the first question, after which copies are made, and if
    /// no frame comes.
    pub fn ask(&self) -> Option<Arc<Luma>> {
        self.ask_at(Instant::now())
    }

    fn ask_at(&self, now: Instant) -> Option<Arc<Luma>> {
        let until = millis(now + MAX_AGE - self.started);
        self.wanted_until_ms.store(until, Ordering::Relaxed);
        let newest = self.newest();
        let (at, image) = newest.as_ref()?;
        (now.saturating_duration_since(*at) <= MAX_AGE).then(|| Arc::clone(image))
    }

    /// Copies the frame if somebody has asked.
    pub fn offer(&self, image: &Luma) {
        self.offer_at(image, Instant::now());
    }

    fn offer_at(&self, image: &Luma, now: Instant) {
        if millis(now.saturating_duration_since(self.started)) < self.wanted_until_ms.load(Ordering::Relaxed) {
            *self.newest() = Some((now, Arc::new(reduced(image))));
        } else if self.newest().is_some() {
            self.forget();
        }
    }

    /// Forgets the copy, for example because the camera is closed.
    pub fn forget(&self) {
        *self.newest() = None;
    }

    fn newest(&self) -> MutexGuard<'_, Option<(Instant, Arc<Luma>)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The image, made smaller by a whole number: each pixel is the mean of a square.
fn reduced(image: &Luma) -> Luma {
    let factor = image.width().max(image.height()).div_ceil(MAX_SIDE);
    // An image narrower than a square keeps a column or a row.
    let (across, down) = (factor.min(image.width()), factor.min(image.height()));
    let (width, height) = (image.width() / across, image.height() / down);
    let mut data = Vec::with_capacity(width as usize * height as usize);
    for y in 0..height {
        for x in 0..width {
            let from = (x * across) as usize;
            let rows = (y * down..(y + 1) * down).map(|y| &image.row(y)[from..from + across as usize]);
            let sum: u32 = rows.flatten().map(|pixel| u32::from(*pixel)).sum();
            // The mean of bytes is a byte.
            data.push(u8::try_from(sum / (across * down)).unwrap_or(u8::MAX));
        }
    }
    Luma::new(width, height, data).expect("one byte for each pixel, and at least one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_copied_only_after_a_question_and_are_forgotten_afterwards() {
        let preview = FramePreview::default();
        let image = Luma::new(2, 1, vec![1, 2]).unwrap();
        let start = preview.started;
        let at = |seconds| start + Duration::from_secs(seconds);
        preview.offer_at(&image, at(1));
        assert_eq!(preview.ask_at(at(1)), None);
        preview.offer_at(&image, at(2));
        assert_eq!(preview.ask_at(at(3)).as_deref(), Some(&image));
        // No frame has come for a while.
        assert_eq!(preview.ask_at(at(6)), None);
        preview.offer_at(&image, at(7));
        preview.offer_at(&image, at(20));
        assert!(preview.newest().is_none());
    }

    #[test]
    fn pixels_are_means_of_squares() {
        let row = |value: u8| [vec![value; 320], vec![value + 10; 320]].concat();
        let image = Luma::new(640, 2, [row(0), row(2)].concat()).unwrap();
        let small = reduced(&image);
        assert_eq!((small.width(), small.height()), (320, 1));
        assert_eq!((small.as_slice()[0], small.as_slice()[319]), (1, 11));
    }

    proptest! {
        #[test]
        fn a_copy_of_any_image_is_small_and_not_empty(width in 1u32..1500, height in 1u32..1500) {
            let pixels = width as usize * height as usize;
            let small = reduced(&Luma::new(width, height, vec![7; pixels]).unwrap());
            prop_assert!((1..=MAX_SIDE).contains(&small.width()) && (1..=MAX_SIDE).contains(&small.height()));
            prop_assert!(small.as_slice().iter().all(|pixel| *pixel == 7));
        }
    }
}
