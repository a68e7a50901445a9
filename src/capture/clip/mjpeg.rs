//! A bare stream of JPEG images, one after another: video only.
//!
//! Network cameras and `v4l2-ctl --stream-to` write such streams. A stream that was saved from HTTP has a header before each image,
//! which may have a time stamp (`X-Timestamp`, in seconds). The splitter walks the segments of each image, because the
//! bytes of an end marker also occur in embedded thumbnails and comments.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use super::playback::cut_short;
use crate::capture::{CaptureError, FramePayload, VideoFrame, VideoSource};

/// Without time stamps, a stream is assumed to have 25 frames per second.
const FRAME_INTERVAL: Duration = Duration::from_millis(40);

/// Far above any camera's 8K image. A longer image has lost its end marker.
const MAX_IMAGE: usize = 64 << 20;

/// So much of what is between two images is kept: the header of the next one.
const MAX_HEADER: usize = 1024;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// How a stream of JPEG images is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Only images, or a single one.
    Bare,
    /// A header before each image, as in HTTP.
    Multipart,
}

impl StreamKind {
    /// The kind of a file that starts with `head`. `None` if it is another file.
    pub fn of(head: &[u8]) -> Option<StreamKind> {
        if head.starts_with(&[0xFF, SOI, 0xFF]) {
            return Some(StreamKind::Bare);
        }
        let text = String::from_utf8_lossy(head).to_ascii_lowercase();
        let text = text.trim_start();
        let is_part = text.starts_with("--") && text.contains("\ncontent-type: image/jpeg");
        let is_response = text.starts_with("http/1.") && text.contains("multipart/x-mixed-replace");
        (is_part || is_response).then_some(StreamKind::Multipart)
    }
}

impl fmt::Display for StreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StreamKind::Bare => "MJPEG stream, assumed to have 25 frames per second",
            StreamKind::Multipart => {
                "MJPEG stream of HTTP, assumed to have 25 frames per second where it has no X-Timestamp"
            }
        })
    }
}

/// A clip that is such a stream.
pub struct Mjpeg<R> {
    name: String,
    splitter: JpegSplitter<R>,
    times: FrameTimes,
    ended: bool,
}

impl<R: Read> Mjpeg<R> {
    pub fn new(name: &str, input: R) -> Mjpeg<R> {
        Mjpeg {
            name: name.to_owned(),
            splitter: JpegSplitter::new(input),
            times: FrameTimes::default(),
            ended: false,
        }
    }
}

impl<R: Read + Send> VideoSource for Mjpeg<R> {
    fn next_frame(&mut self) -> Result<Option<VideoFrame>, CaptureError> {
        if self.ended {
            return Ok(None);
        }
        match self.splitter.next() {
            Ok(Some(bytes)) => Ok(Some(VideoFrame {
                at: self.times.of(time_stamp(&self.splitter.header)),
                captured: Instant::now(),
                payload: FramePayload::Jpeg(bytes),
            })),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.ended = true;
                Err(cut_short(&self.name, error, self.times.next))
            }
        }
    }
}

/// Turns time stamps into times on the clip's clock.
#[derive(Debug, Default)]
struct FrameTimes {
    /// The time stamp of the clip's start, once a frame has had one.
    start: Option<Duration>,
    /// The time of the previous frame.
    last: Duration,
    /// The time of the next frame, if it has no time stamp.
    next: Duration,
}

impl FrameTimes {
    /// The time of the next frame, which has this time stamp. Times never decrease.
    fn of(&mut self, stamp: Option<Duration>) -> Duration {
        let at = match stamp {
            Some(stamp) => {
                let start = *self.start.get_or_insert(stamp.saturating_sub(self.next));
                stamp.saturating_sub(start).max(self.last)
            }
            None => self.next,
        };
        self.last = at;
        self.next = at.saturating_add(FRAME_INTERVAL);
        at
    }
}

/// The time stamp in the header of an image.
fn time_stamp(header: &[u8]) -> Option<Duration> {
    let text = String::from_utf8_lossy(header);
    let (_, value) = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .rfind(|(name, _)| name.trim().eq_ignore_ascii_case("x-timestamp"))?;
    Duration::try_from_secs_f64(value.trim().parse().ok()?).ok()
}

/// How many JPEG images are in `bytes`, one after the other.
pub fn count_images(bytes: &[u8]) -> io::Result<usize> {
    let mut splitter = JpegSplitter::new(bytes);
    let mut count = 0;
    while splitter.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Splits a stream into images.
pub struct JpegSplitter<R> {
    input: BufReader<R>,
    /// The start marker of the next image was found in place of the end marker of the previous one.
    started: bool,
    /// The last bytes before the image that was returned last.
    header: Vec<u8>,
}

impl<R: Read> JpegSplitter<R> {
    pub fn new(input: R) -> JpegSplitter<R> {
        JpegSplitter {
            input: BufReader::with_capacity(64 * 1024, input),
            started: false,
            header: Vec::new(),
        }
    }

    /// The next image. `None` at the end. An invalid image is returned up to its first invalid byte.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.header.clear();
        if !std::mem::take(&mut self.started) && !self.find_start()? {
            return Ok(None);
        }
        let mut image = vec![0xFF, SOI];
        loop {
            if self.byte()? != 0xFF {
                return Ok(Some(image));
            }
            let mut marker = self.byte()?;
            while marker == 0xFF {
                marker = self.byte()?;
            }
            while let SOS | 0x02..=0xCF | 0xDB..=0xFE = marker {
                image.extend_from_slice(&[0xFF, marker]);
                self.segment(&mut image)?;
                if marker != SOS {
                    break;
                }
                marker = self.entropy_coded_data(&mut image)?;
            }
            match marker {
                SOI => {
                    self.started = true;
                    return Ok(Some(image));
                }
                EOI => {
                    image.extend_from_slice(&[0xFF, EOI]);
                    return Ok(Some(image));
                }
                0x00 => return Ok(Some(image)),
                _ if image.len() > MAX_IMAGE => return Ok(Some(image)),
                _ => {}
            }
        }
    }

    /// What the splitter reads from. It may have been read further than the last image.
    pub fn input_mut(&mut self) -> &mut R {
        self.input.get_mut()
    }

    /// Skips everything up to and including the next SOI marker. False at the end of the stream.
    fn find_start(&mut self) -> io::Result<bool> {
        let mut last = 0;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let found = buffer
                .iter()
                .position(|&byte| std::mem::replace(&mut last, byte) == 0xFF && byte == SOI);
            let skipped = found.map_or(buffer.len(), |at| at + 1);
            self.header
                .extend_from_slice(&buffer[skipped.saturating_sub(MAX_HEADER)..skipped]);
            let surplus = self.header.len().saturating_sub(MAX_HEADER);
            self.header.drain(..surplus);
            self.input.consume(skipped);
            if found.is_some() {
                return Ok(true);
            }
        }
    }

    /// Copies length and content of a segment.
    fn segment(&mut self, image: &mut Vec<u8>) -> io::Result<()> {
        let length = [self.byte()?, self.byte()?];
        image.extend_from_slice(&length);
        let content = u64::from(u16::from_be_bytes(length)).saturating_sub(2);
        let copied = self.input.by_ref().take(content).read_to_end(image)?;
        if (copied as u64) < content {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }

    /// Copies entropy-coded data. Returns the marker that ends it.
    fn entropy_coded_data(&mut self, image: &mut Vec<u8>) -> io::Result<u8> {
        loop {
            let before = image.len();
            self.input.by_ref().take(MAX_IMAGE as u64).read_until(0xFF, image)?;
            if image.last() != Some(&0xFF) || image.len() == before {
                // An image without end is cut at the maximum size. The search for the next start continues there.
                return if image.len() > MAX_IMAGE {
                    Ok(0)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            match self.byte()? {
                byte @ (0x00 | 0xD0..=0xD7) if image.len() <= MAX_IMAGE => image.push(byte),
                // Fill bytes before a marker.
                0xFF => {
                    let mut marker = self.byte()?;
                    while marker == 0xFF {
                        marker = self.byte()?;
                    }
                    if let 0x00 | 0xD0..=0xD7 = marker {
                        image.push(marker);
                    } else {
                        image.pop();
                        return Ok(marker);
                    }
                }
                marker => {
                    image.pop();
                    return Ok(marker);
                }
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
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
        let mut splitter = JpegSplitter::new(stream);
        std::iter::from_fn(|| splitter.next().unwrap()).collect()
    }

    /// Inserts a segment that contains a complete small image, as cameras do with thumbnails.
    fn with_thumbnail(jpeg: &[u8]) -> Vec<u8> {
        let thumbnail = grey_jpeg(8, 8, |x, y| (x * y) as u8);
        let size = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xFF, 0xE1], &size, &thumbnail, &jpeg[2..]].concat()
    }

    #[test]
    fn a_stream_is_split_into_its_images() {
        let grey = grey_jpeg(64, 48, |x, y| ((x * 5) ^ (y * 3)) as u8);
        let progressive = colour_jpeg(32, 32, SamplingFactor::F_2_2, true, |x, y| [x as u8, y as u8, 200]);
        let thumbnailed = with_thumbnail(&grey);
        let stream = [&grey[..], &progressive, &[0; 13], &thumbnailed, &grey].concat();
        assert_eq!(split(&stream), [grey.clone(), progressive, thumbnailed, grey]);
    }

    #[test]
    fn an_image_without_end_marker_leaves_its_neighbours_intact() {
        let whole = grey_jpeg(64, 48, |x, y| (x ^ y) as u8);
        let cut = &whole[..whole.len() - 40];
        let stream = [&whole[..], cut, &whole].concat();
        assert_eq!(split(&stream), [&whole[..], cut, &whole]);
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let whole = grey_jpeg(64, 48, |x, y| (x ^ y) as u8);
        let stream = [&whole[..], &whole[..200]].concat();
        let mut splitter = JpegSplitter::new(&stream[..]);
        assert_eq!(splitter.next().unwrap(), Some(whole));
        assert_eq!(splitter.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_stream_of_http_has_the_times_of_its_headers() {
        let image = grey_jpeg(16, 16, |x, y| (x ^ y) as u8);
        let part = |stamp: &str| {
            [
                b"\r\n--b\r\nContent-Type: image/jpeg\r\n",
                stamp.as_bytes(),
                b"\r\n\r\n",
                &image,
            ]
            .concat()
        };
        let stream = [
            part("X-Timestamp: 1700000000.500000"),
            part("x-timestamp:1700000000.75"),
            part("X-Timestamp: unknown"),
            part("X-Timestamp: 1700000002.5"),
            // Backwards.
            part("X-Timestamp: 1700000001.0"),
            part(""),
        ]
        .concat();
        assert_eq!(StreamKind::of(&stream[..100]), Some(StreamKind::Multipart));
        let (mut splitter, mut times) = (JpegSplitter::new(&stream[..]), FrameTimes::default());
        let mut found = Vec::new();
        while let Some(bytes) = splitter.next().unwrap() {
            assert_eq!(bytes, image);
            found.push(times.of(time_stamp(&splitter.header)).as_millis());
        }
        assert_eq!(found, [0, 250, 290, 2000, 2000, 2040]);
    }

    #[test]
    fn a_saved_response_is_a_stream_and_other_text_is_not() {
        let response = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=b\r\n\r\n--b\r\n";
        assert_eq!(StreamKind::of(response), Some(StreamKind::Multipart));
        for other in [
            &b"--b\r\nContent-Type: text/html\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\n",
            b"",
            b"--",
        ] {
            assert_eq!(StreamKind::of(other), None);
        }
    }
}
