//! Input in pieces, as files, pipes and ports deliver it.

use std::io::{self, Read};

/// Cuts `data` at places that depend on `data` alone, so that a failure can be repeated.
pub fn chunks(data: &[u8]) -> Vec<&[u8]> {
    let (mut pieces, mut rest) = (Vec::new(), data);
    let mut lengths = Lengths::of(data);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(lengths.next().min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// A reader that delivers `data` in such pieces.
pub struct Trickle<'a> {
    rest: &'a [u8],
    lengths: Lengths,
}

impl Trickle<'_> {
    pub fn new(data: &[u8]) -> Trickle<'_> {
        Trickle {
            rest: data,
            lengths: Lengths::of(data),
        }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.lengths.next().min(self.rest.len()).min(buffer.len());
        let (now, after) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = after;
        Ok(length)
    }
}

/// Mostly short lengths, none of them 0.
struct Lengths(u64);

impl Lengths {
    fn of(data: &[u8]) -> Lengths {
        let mix = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        Lengths(data.iter().fold(0xCBF2_9CE4_8422_2325, mix) | 1)
    }

    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = if self.0 & 0xF00 == 0 { 300 } else { 8 };
        1 + usize::try_from((self.0 >> 32) % limit).expect("below the limit")
    }
}
