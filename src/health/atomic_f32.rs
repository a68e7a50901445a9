//! A number that threads share.

use std::sync::atomic::{AtomicU32, Ordering};

/// An `f32` that one thread writes and others read.
#[derive(Debug, Default)]
pub struct AtomicF32(AtomicU32);

impl AtomicF32 {
    pub fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub fn set(&self, value: f32) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_written() {
        let number = AtomicF32::default();
        assert_eq!(number.get(), 0.0);
        number.set(7.5);
        assert_eq!(number.get(), 7.5);
    }
}
