//! RIFF WAV: audio only.
//!
//! Recorders that write to a pipe or lose power leave a size of 0 or an invalid size in the header. The data then extends to
//! the end of the file.

use std::io::{BufReader, Read, Take};

use super::audio::ClipAudio;
use super::playback::cut_short;
use crate::capture::error::CutCause;
use crate::capture::pcm::{PcmLayout, PcmLayoutError, SampleFormat};
use crate::capture::{AudioBlock, AudioSource, CaptureError};

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xFFFE;

/// Recorders that do not know the size yet write sizes from here on.
const UNKNOWN_SIZE: u32 = 0x7FFF_0000;

/// The longest `fmt ` chunk that is read. The extensible format takes 40 bytes.
const MAX_FORMAT: u32 = 1024;

/// Frames per read.
const READ_FRAMES: usize = 2048;

/// Whether a file that starts with `head` is a RIFF WAV.
pub fn is_wav(head: &[u8]) -> bool {
    head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE")
}

/// Why affectd does not read a WAV file itself.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WavError {
    /// The audio is compressed. ffmpeg may be able to read it.
    #[error("its audio is compressed")]
    Compressed,
    #[error("it has no format chunk before its data")]
    NoFormat,
    #[error("its format chunk is too short")]
    ShortFormat,
    #[error("it has samples of {0} bits")]
    SampleBits(u64),
    #[error("it has {0}")]
    Pcm(#[from] PcmLayoutError),
    #[error("it ends before its first sample")]
    Truncated,
    #[error("it cannot be read: {0}")]
    Io(String),
}

impl From<std::io::Error> for WavError {
    fn from(error: std::io::Error) -> WavError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => WavError::Truncated,
            _ => WavError::Io(error.to_string()),
        }
    }
}

/// The audio of a WAV file.
pub struct Wav<R> {
    name: String,
    pub layout: PcmLayout,
    data: Take<BufReader<R>>,
    /// The header states the size of the data.
    size_is_known: bool,
    audio: ClipAudio,
}

impl<R: Read> Wav<R> {
    /// Reads the header of `input`, up to its first sample.
    pub fn open(name: &str, input: R) -> Result<Wav<R>, WavError> {
        let Header { layout, size, data } = header(BufReader::new(input))?;
        let size = (size != 0 && size < UNKNOWN_SIZE).then_some(u64::from(size));
        Ok(Wav {
            name: name.to_owned(),
            layout,
            data: data.take(size.unwrap_or(u64::MAX)),
            size_is_known: size.is_some(),
            audio: ClipAudio::new(name, layout),
        })
    }

    /// Reads the next samples. At the end of the data, ends the audio.
    fn read(&mut self) {
        let mut bytes = Vec::new();
        let size = READ_FRAMES * self.layout.frame_bytes();
        let result = self.data.by_ref().take(size as u64).read_to_end(&mut bytes);
        let cause = match result {
            Ok(_) if bytes.len() == size => {
                self.audio.push_next(&bytes);
                return;
            }
            Ok(_) if self.size_is_known && self.data.limit() > 0 => Some(CutCause::Truncated),
            Ok(_) => None,
            Err(error) => Some(error.into()),
        };
        self.audio.push_next(&bytes);
        let error = cause.map(|cause| cut_short(&self.name, cause, self.audio.position()));
        self.audio.end(error);
    }
}

/// The header of a WAV file, and its data from the first sample on.
pub struct Header<R> {
    pub layout: PcmLayout,
    size: u32,
    data: R,
}

/// Walks the chunks up to `data`.
pub fn header<R: Read>(mut input: R) -> Result<Header<R>, WavError> {
    let mut layout = Err(WavError::NoFormat);
    let mut riff = [0; 12];
    input.read_exact(&mut riff)?;
    loop {
        let mut chunk = [0; 8];
        input.read_exact(&mut chunk)?;
        let [id @ .., a, b, c, d] = chunk;
        let size = u32::from_le_bytes([a, b, c, d]);
        match &id {
            b"data" => {
                let layout = layout?;
                let data = input;
                return Ok(Header { layout, size, data });
            }
            b"fmt " => {
                let mut format = Vec::new();
                let front = size.min(MAX_FORMAT);
                input.by_ref().take(front.into()).read_to_end(&mut format)?;
                skip(&mut input, size - front)?;
                layout = parse_format(&format);
            }
            _ => skip(&mut input, size)?,
        }
        // Chunks are padded to an even size.
        if size % 2 == 1 {
            input.read_exact(&mut [0])?;
        }
    }
}

fn skip(input: &mut impl Read, bytes: u32) -> std::io::Result<()> {
    std::io::copy(&mut input.by_ref().take(bytes.into()), &mut std::io::sink()).map(drop)
}

fn parse_format(format: &[u8]) -> Result<PcmLayout, WavError> {
    let half = |at: usize| format.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let (Some(mut tag), Some(channels), Some(low), Some(high), Some(block), Some(bits)) =
        (half(0), half(2), half(4), half(6), half(12), half(14))
    else {
        return Err(WavError::ShortFormat);
    };
    if tag == EXTENSIBLE {
        tag = half(24).unwrap_or(0);
    }
    // The container decides, not the number of valid bits: a 20-bit sample, for example, fills the upper part of three bytes.
    // Some programs write a container of 0 bytes.
    let container = block
        .checked_div(channels)
        .filter(|bytes| *bytes > 0)
        .map_or(bits, |bytes| bytes.saturating_mul(8))
        .into();
    let format = match tag {
        PCM => SampleFormat::integer(container),
        FLOAT => SampleFormat::float(container),
        _ => return Err(WavError::Compressed),
    };
    let rate_hz = f64::from(u32::from(high) << 16 | u32::from(low));
    let format = format.ok_or(WavError::SampleBits(container))?;
    Ok(PcmLayout::new(format, channels.into(), rate_hz)?)
}

impl<R: Read + Send> AudioSource for Wav<R> {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        while self.audio.needs_input() {
            self.read();
        }
        self.audio.next_block()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(tag: u16, channels: u16, rate_hz: u32, block: u16, bits: u16) -> Vec<u8> {
        let mut bytes = [tag, channels].map(u16::to_le_bytes).concat();
        bytes.extend(rate_hz.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend([block, bits].map(u16::to_le_bytes).concat());
        bytes
    }

    #[test]
    fn common_formats_are_read() {
        let layout = |bytes: &[u8]| parse_format(bytes).map(|layout| layout.to_string());
        assert_eq!(
            layout(&format(PCM, 2, 44_100, 4, 16)),
            Ok("PCM 44100 Hz 2 channels".into())
        );
        assert_eq!(
            layout(&format(FLOAT, 1, 8_000, 4, 32)),
            Ok("PCM 8000 Hz 1 channel".into())
        );
        assert!(layout(&format(PCM, 8, 192_000, 24, 20)).is_ok());
        let mut extensible = format(EXTENSIBLE, 6, 48_000, 18, 24);
        extensible.extend([22, 0, 24, 0, 0x3F, 0, 0, 0, 1, 0]);
        assert!(layout(&extensible).is_ok());
        assert!(layout(&format(PCM, 1, 16_000, 0, 16)).is_ok());
        assert_eq!(layout(&format(6, 1, 8_000, 1, 8)), Err(WavError::Compressed));
    }

    #[test]
    fn invalid_formats_are_rejected_with_the_reason() {
        let error = |bytes: &[u8]| parse_format(bytes).unwrap_err();
        assert_eq!(error(&format(PCM, 1, 0, 2, 16)), PcmLayoutError::SampleRate(0.0).into());
        assert_eq!(
            error(&format(PCM, 0, 16_000, 2, 16)),
            PcmLayoutError::Channels(0).into()
        );
        assert_eq!(error(&format(PCM, 1, 16_000, 7, 56)), WavError::SampleBits(56));
        assert_eq!(error(&[1, 0]), WavError::ShortFormat);
    }
}
