//! RIFF WAV: sound only.
//!
//! Recorders that write to a pipe or lose power leave sizes of 0 or nonsense in the header. The data then goes on to the
//! end of the file.

use std::fs::File;
use std::io::{BufReader, Read, Take};
use std::time::Duration;

use super::ebml::EbmlError;
use super::playback::cut_short;
use super::sound::Sound;
use crate::capture::pcm::{PcmLayout, SampleFormat};
use crate::capture::{AudioBlock, AudioSource, CaptureError};

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xFFFE;

/// Sizes from here on are what recorders put when they do not know yet.
const UNKNOWN_SIZE: u32 = 0x7FFF_0000;

/// Whether a file that starts with `head` is a RIFF WAV.
pub fn is_wav(head: &[u8]) -> bool {
    head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE")
}

/// What the header of a WAV file led to.
pub enum Opened {
    Wav(Box<Wav>),
    /// Compressed sound.
    Foreign,
    /// A header that makes no sense, and why.
    Absurd(String),
}

/// The sound of a WAV file.
pub struct Wav {
    name: String,
    pub layout: PcmLayout,
    data: Take<BufReader<File>>,
    /// Bytes that the header promises and that are not read yet; `None` if it does not say.
    promised: Option<u64>,
    sound: Sound,
    /// Samples read.
    taken: u64,
    /// Set at the end of the data: what is left to say of it.
    end: Option<Option<CaptureError>>,
}

/// Reads the header of `file`, up to its first sample.
pub fn open(name: &str, file: File) -> Opened {
    match header(BufReader::new(file)) {
        Ok((Ok(layout), size, input)) => {
            let promised = (size != 0 && size < UNKNOWN_SIZE).then_some(u64::from(size));
            Opened::Wav(Box::new(Wav {
                name: name.to_owned(),
                layout,
                data: input.take(promised.unwrap_or(u64::MAX)),
                promised,
                sound: Sound::new(layout),
                taken: 0,
                end: None,
            }))
        }
        Ok((Err(None), ..)) => Opened::Foreign,
        Ok((Err(Some(reason)), ..)) => Opened::Absurd(reason),
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => {
            Opened::Absurd("it ends before its first sample".to_owned())
        }
        Err(err) => Opened::Absurd(err.to_string()),
    }
}

type Layout = Result<PcmLayout, Option<String>>;

/// Walks the chunks up to `data`: its layout, its size and the reader placed at its first byte.
fn header(mut input: BufReader<File>) -> std::io::Result<(Layout, u32, BufReader<File>)> {
    let mut layout = Err(Some("it says nothing of its format".to_owned()));
    let mut riff = [0; 12];
    input.read_exact(&mut riff)?;
    loop {
        let mut chunk = [0; 8];
        input.read_exact(&mut chunk)?;
        let [id @ .., a, b, c, d] = chunk;
        let size = u32::from_le_bytes([a, b, c, d]);
        match &id {
            b"data" => return Ok((layout, size, input)),
            b"fmt " => {
                // The extensible format takes 40 bytes; a size far beyond that is damage, not a reason for memory.
                let mut format = Vec::new();
                let front = size.min(1024);
                input.by_ref().take(front.into()).read_to_end(&mut format)?;
                pass_over(&mut input, size - front)?;
                layout = parse_format(&format);
            }
            _ => pass_over(&mut input, size)?,
        }
        if size % 2 == 1 {
            input.read_exact(&mut [0])?;
        }
    }
}

fn pass_over(input: &mut impl Read, bytes: u32) -> std::io::Result<()> {
    std::io::copy(&mut input.by_ref().take(bytes.into()), &mut std::io::sink()).map(drop)
}

fn parse_format(format: &[u8]) -> Layout {
    let half = |at: usize| format.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let (Some(mut tag), Some(channels), Some(low), Some(high), Some(block), Some(bits)) =
        (half(0), half(2), half(4), half(6), half(12), half(14))
    else {
        return Err(Some("its format is cut off".to_owned()));
    };
    if tag == EXTENSIBLE {
        tag = half(24).unwrap_or(0);
    }
    // Samples of 20 bits, say, fill the upper part of three bytes: the container counts, not the precision.
    let container = block
        .checked_div(channels)
        .map_or(bits, |bytes| bytes.saturating_mul(8))
        .into();
    let format = match tag {
        PCM => SampleFormat::integer(container),
        FLOAT => SampleFormat::float(container),
        _ => return Err(None),
    };
    let rate_hz = f64::from(u32::from(high) << 16 | u32::from(low));
    let format = format.ok_or_else(|| Some(format!("it has samples of {container} bits")))?;
    PcmLayout::new(format, channels.into(), rate_hz).map_err(|reason| Some(format!("it has {reason}")))
}

impl AudioSource for Wav {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        loop {
            if let Some(chunk) = self.sound.pop() {
                return Ok(Some(chunk));
            }
            if let Some(error) = &mut self.end {
                return error.take().map_or(Ok(None), Err);
            }
            let mut block = Vec::new();
            let size = 2048 * self.layout.frame_bytes() as u64;
            let trouble = match self.data.by_ref().take(size).read_to_end(&mut block) {
                Ok(_) if block.len() as u64 == size => None,
                Ok(_) if self.promised.is_some() && self.data.limit() > 0 => Some(Some(EbmlError::CutOff)),
                Ok(_) => Some(None),
                Err(err) => Some(Some(EbmlError::Io(err))),
            };
            self.sound.push_on(&block);
            self.taken += (block.len() / self.layout.frame_bytes()) as u64;
            if let Some(trouble) = trouble {
                self.sound.flush();
                let at = Duration::from_secs_f64(self.taken as f64 / f64::from(self.layout.rate_hz()));
                self.end = Some(trouble.map(|trouble| cut_short(&self.name, &trouble, at)));
            }
        }
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
    fn every_usual_format_is_known() {
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
        assert_eq!(layout(&format(6, 1, 8_000, 1, 8)), Err(None));
    }

    #[test]
    fn absurd_formats_say_what_is_absurd() {
        let reason = |bytes: &[u8]| parse_format(bytes).unwrap_err().unwrap();
        assert_eq!(
            reason(&format(PCM, 1, 0, 2, 16)),
            "it has a sample rate of 0 Hz, not 8000 to 192000"
        );
        assert_eq!(
            reason(&format(PCM, 0, 16_000, 2, 16)),
            "it has 0 channels of sound, not 1 to 64"
        );
        assert_eq!(reason(&format(PCM, 1, 16_000, 7, 56)), "it has samples of 56 bits");
        assert_eq!(reason(&[1, 0]), "its format is cut off");
    }
}
