//! A bare stream of JPEG pictures, one after another: video only, and without a clock.
//!
//! What network cameras and `v4l2-ctl --stream-to` write. Pictures are told apart by walking their segments, since the
//! bytes that end a picture also occur in the thumbnails and comments inside one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use super::ebml::EbmlError;
use super::playback::cut_short;
use crate::capture::{CaptureError, Picture, VideoFrame, VideoSource};

/// The stream holds no times: pictures are taken to come 25 times a second.
const FRAME: Duration = Duration::from_millis(40);

/// Well beyond any camera's 8K picture. What is longer is no picture but a stream that lost its ends.
const LARGEST_PICTURE: usize = 64 << 20;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// Whether a file that starts with `head` is such a stream, or a single picture.
pub fn is_mjpeg(head: &[u8]) -> bool {
    head.starts_with(&[0xFF, SOI, 0xFF])
}

/// The pictures of the stream.
pub struct Mjpeg {
    name: String,
    pictures: Pictures<File>,
    count: u32,
    ended: bool,
}

impl Mjpeg {
    pub fn new(name: &str, file: File) -> Mjpeg {
        Mjpeg {
            name: name.to_owned(),
            pictures: Pictures::new(file),
            count: 0,
            ended: false,
        }
    }
}

impl VideoSource for Mjpeg {
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        if self.ended {
            return Ok(None);
        }
        let at = FRAME * self.count;
        match self.pictures.next() {
            Ok(Some(bytes)) => {
                self.count += 1;
                Ok(Some(VideoFrame {
                    at,
                    captured: Instant::now(),
                    picture: Picture::Jpeg(bytes),
                }))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(trouble) => {
                self.ended = true;
                Err(cut_short(&self.name, &trouble, at))
            }
        }
    }
}

/// Splits a stream into pictures.
struct Pictures<R> {
    input: BufReader<R>,
    /// The start of the next picture was found where the end of the last was due.
    started: bool,
}

impl<R: Read> Pictures<R> {
    fn new(input: R) -> Pictures<R> {
        Pictures {
            input: BufReader::with_capacity(64 * 1024, input),
            started: false,
        }
    }

    /// The next picture, or `None` at the end. One that makes no sense comes as far as it does.
    fn next(&mut self) -> Result<Option<Vec<u8>>, EbmlError> {
        if !std::mem::take(&mut self.started) && !self.find_start()? {
            return Ok(None);
        }
        let mut picture = vec![0xFF, SOI];
        loop {
            if self.byte()? != 0xFF {
                return Ok(Some(picture));
            }
            let mut marker = self.byte()?;
            while marker == 0xFF {
                marker = self.byte()?;
            }
            while let SOS | 0x02..=0xCF | 0xDB..=0xFE = marker {
                picture.extend_from_slice(&[0xFF, marker]);
                self.segment(&mut picture)?;
                if marker != SOS {
                    break;
                }
                marker = self.entropy(&mut picture)?;
            }
            match marker {
                SOI => {
                    self.started = true;
                    return Ok(Some(picture));
                }
                EOI => {
                    picture.extend_from_slice(&[0xFF, EOI]);
                    return Ok(Some(picture));
                }
                0x00 => return Ok(Some(picture)),
                _ if picture.len() > LARGEST_PICTURE => return Ok(Some(picture)),
                _ => {}
            }
        }
    }

    /// Passes over everything up to and including the next SOI.
    fn find_start(&mut self) -> Result<bool, EbmlError> {
        let mut last = 0;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let found = buffer
                .iter()
                .position(|&byte| std::mem::replace(&mut last, byte) == 0xFF && byte == SOI);
            let passed = found.map_or(buffer.len(), |at| at + 1);
            self.input.consume(passed);
            if found.is_some() {
                return Ok(true);
            }
        }
    }

    /// Copies a segment's length and content.
    fn segment(&mut self, picture: &mut Vec<u8>) -> Result<(), EbmlError> {
        let length = [self.byte()?, self.byte()?];
        picture.extend_from_slice(&length);
        let content = u64::from(u16::from_be_bytes(length)).saturating_sub(2);
        let copied = self.input.by_ref().take(content).read_to_end(picture)?;
        if (copied as u64) < content {
            Err(EbmlError::CutOff)
        } else {
            Ok(())
        }
    }

    /// Copies entropy-coded data and returns the marker that ends it.
    fn entropy(&mut self, picture: &mut Vec<u8>) -> Result<u8, EbmlError> {
        loop {
            let before = picture.len();
            self.input
                .by_ref()
                .take(LARGEST_PICTURE as u64)
                .read_until(0xFF, picture)?;
            if picture.last() != Some(&0xFF) || picture.len() == before {
                // A picture that never ends is cut where it is absurd, and the search for a start goes on from there.
                return if picture.len() > LARGEST_PICTURE {
                    Ok(0)
                } else {
                    Err(EbmlError::CutOff)
                };
            }
            match self.byte()? {
                byte @ (0x00 | 0xD0..=0xD7) if picture.len() <= LARGEST_PICTURE => picture.push(byte),
                // Fill before a marker: look at the last 0xFF of the run only.
                0xFF => {
                    let mut marker = self.byte()?;
                    while marker == 0xFF {
                        marker = self.byte()?;
                    }
                    if let 0x00 | 0xD0..=0xD7 = marker {
                        picture.push(marker);
                    } else {
                        picture.pop();
                        return Ok(marker);
                    }
                }
                marker => {
                    picture.pop();
                    return Ok(marker);
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, EbmlError> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::support::jpeg::{colour_jpeg, grey_jpeg};
    use jpeg_encoder::SamplingFactor;

    fn split(stream: &[u8]) -> Vec<Vec<u8>> {
        let mut pictures = Pictures::new(stream);
        std::iter::from_fn(|| pictures.next().unwrap()).collect()
    }

    /// With a comment that holds a whole small picture, as thumbnails do.
    fn with_thumbnail(jpeg: &[u8]) -> Vec<u8> {
        let thumbnail = grey_jpeg(8, 8, |x, y| (x * y) as u8);
        let size = (thumbnail.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xFF, 0xE1], &size, &thumbnail, &jpeg[2..]].concat()
    }

    #[test]
    fn pictures_come_out_as_they_went_in() {
        let grey = grey_jpeg(64, 48, |x, y| ((x * 5) ^ (y * 3)) as u8);
        let progressive = colour_jpeg(32, 32, SamplingFactor::F_2_2, true, |x, y| [x as u8, y as u8, 200]);
        let thumbnailed = with_thumbnail(&grey);
        let stream = [&grey[..], &progressive, &[0; 13], &thumbnailed, &grey].concat();
        assert_eq!(split(&stream), [grey.clone(), progressive, thumbnailed, grey]);
    }

    #[test]
    fn a_picture_without_end_costs_none_of_its_neighbours() {
        let whole = grey_jpeg(64, 48, |x, y| (x ^ y) as u8);
        let torn = &whole[..whole.len() - 40];
        let stream = [&whole[..], torn, &whole].concat();
        assert_eq!(split(&stream), [&whole[..], torn, &whole]);
    }

    #[test]
    fn a_stream_cut_off_says_so() {
        let whole = grey_jpeg(64, 48, |x, y| (x ^ y) as u8);
        let stream = [&whole[..], &whole[..200]].concat();
        let mut pictures = Pictures::new(&stream[..]);
        assert_eq!(pictures.next().unwrap(), Some(whole));
        assert!(matches!(pictures.next(), Err(EbmlError::CutOff)));
    }
}
