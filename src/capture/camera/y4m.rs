//! YUV4MPEG2: uncompressed video with a header of text, as `ffmpeg -f yuv4mpegpipe` writes it.
//!
//! A header line `YUV4MPEG2 W640 H480 F30:1 C420jpeg`, then for each frame a line `FRAME` and the planes, luma first.

use std::io::{self, BufRead, Read};

use crate::capture::Luma;

pub const MAGIC: &[u8] = b"YUV4MPEG2";

/// Longer headers are not from a video program.
const MAX_LINE: u64 = 1024;
/// The largest width and height.
const MAX_SIDE: u32 = 8192;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub width: u32,
    pub height: u32,
    chroma: Chroma,
}

/// How much chroma follows the luma of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chroma {
    None,
    /// Half the width, half the height.
    Quarter,
    /// A quarter of the width.
    QuarterWidth,
    /// Half the width.
    Half,
    Full,
    /// Full, and a plane of transparency.
    FullWithAlpha,
}

/// Why a stream is rejected.
#[derive(Debug, thiserror::Error)]
pub enum Y4mError {
    #[error("writes an invalid YUV4MPEG header ({0})")]
    Header(String),
    // GStreamer's y4menc pads rows to a multiple of 8 bytes, which the format does not allow.
    #[error(
        "writes YUV4MPEG whose frames do not begin with FRAME, as GStreamer does if the width is not a multiple of 8"
    )]
    Frame,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Header {
    pub fn read(input: &mut impl BufRead) -> Result<Header, Y4mError> {
        let line = line(input)?;
        let invalid = |why: &str| Y4mError::Header(format!("{why} in {line:?}"));
        let (mut width, mut height, mut chroma) = (None, None, Chroma::Quarter);
        for field in line.split_ascii_whitespace().skip(1) {
            let (key, value) = field.split_at_checked(1).ok_or_else(|| invalid("an invalid field"))?;
            match key {
                "W" => width = value.parse().ok(),
                "H" => height = value.parse().ok(),
                "C" => chroma = Chroma::named(value).ok_or_else(|| invalid("an unknown or deep colour space"))?,
                _ => {}
            }
        }
        let side = |side: Option<u32>| side.filter(|side| (1..=MAX_SIDE).contains(side));
        match (side(width), side(height)) {
            (Some(width), Some(height)) => Ok(Header { width, height, chroma }),
            _ => Err(invalid("no valid size")),
        }
    }

    /// Reads the next frame.
    pub fn frame(&self, input: &mut impl BufRead) -> Result<Luma, Y4mError> {
        match line(input) {
            Ok(line) if line.starts_with("FRAME") => {}
            Err(Y4mError::Io(error)) => return Err(error.into()),
            Ok(_) | Err(_) => return Err(Y4mError::Frame),
        }
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        let mut luma = Vec::new();
        input.take(width * height).read_to_end(&mut luma)?;
        let luma = Luma::new(self.width, self.height, luma);
        let luma = luma.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        let chroma = match self.chroma {
            Chroma::None => 0,
            Chroma::Quarter => 2 * half_width * half_height,
            Chroma::QuarterWidth => 2 * width.div_ceil(4) * height,
            Chroma::Half => 2 * half_width * height,
            Chroma::Full => 2 * width * height,
            Chroma::FullWithAlpha => 3 * width * height,
        };
        let skipped = io::copy(&mut input.take(chroma), &mut io::sink())?;
        if skipped < chroma {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(luma)
    }
}

/// A line, without its end.
fn line(input: &mut impl BufRead) -> Result<String, Y4mError> {
    let mut line = Vec::new();
    input.take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(String::from_utf8_lossy(&line).into_owned()),
        Some(_) if line.len() as u64 + 1 >= MAX_LINE => Err(Y4mError::Header("a line without end".into())),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

impl Chroma {
    /// `None` for more than 8 bits a sample.
    fn named(name: &str) -> Option<Chroma> {
        match name {
            "mono" => Some(Chroma::None),
            "420" | "420jpeg" | "420paldv" | "420mpeg2" => Some(Chroma::Quarter),
            "411" => Some(Chroma::QuarterWidth),
            "422" => Some(Chroma::Half),
            "444" => Some(Chroma::Full),
            "444alpha" => Some(Chroma::FullWithAlpha),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(stream: &[u8]) -> Result<Vec<Vec<u8>>, Y4mError> {
        let mut input = stream;
        let header = Header::read(&mut input)?;
        let mut frames = Vec::new();
        while !input.is_empty() {
            frames.push(header.frame(&mut input)?.as_slice().to_vec());
        }
        Ok(frames)
    }

    #[test]
    fn the_luma_of_every_chroma_format_is_read() {
        for (chroma, bytes) in [
            (" Cmono", 0),
            ("", 4),
            (" C420mpeg2", 4),
            (" C411", 2),
            (" C422", 4),
            (" C444", 6),
            (" C444alpha", 9),
        ] {
            let frame = [b"FRAME I1\n123".as_slice(), &vec![b'c'; bytes]].concat();
            let stream = [
                format!("YUV4MPEG2 W3 H1 F30:1 Ip{chroma} Xno\n").as_bytes(),
                &frame,
                &frame,
            ]
            .concat();
            assert_eq!(frames(&stream).unwrap(), [b"123", b"123"], "{chroma}");
        }
    }

    #[test]
    fn invalid_headers_are_named() {
        for (header, why) in [
            ("YUV4MPEG2 W0 H1\n", "no valid size"),
            ("YUV4MPEG2 W9 H99999\n", "no valid size"),
            ("YUV4MPEG2 W9 H9 C420p10\n", "an unknown or deep colour space"),
        ] {
            let error = frames(header.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(matches!(
            frames(b"YUV4MPEG2 W1 H1 Cmono\nFRAMX\n1"),
            Err(Y4mError::Frame)
        ));
        let padded = [
            b"YUV4MPEG2 W3 H1 Cmono\nFRAME\n123\0\0\0\0\0FRAME\n".as_slice(),
            &[0; 2000],
        ]
        .concat();
        assert!(matches!(frames(&padded), Err(Y4mError::Frame)));
        let endless = [b"YUV4MPEG2 W3 H1 Cmono\nFRAME\n123".as_slice(), &[0; 2000]].concat();
        assert!(matches!(frames(&endless), Err(Y4mError::Frame)));
        assert!(matches!(frames(&[b'Y'; 5000]), Err(Y4mError::Header(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_end_or_fail(stream in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = frames(&stream);
            let _ = frames(&[b"YUV4MPEG2 W2 H2\nFRAME\n", stream.as_slice()].concat());
        }
    }
}
