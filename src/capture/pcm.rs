//! Interleaved PCM bytes from containers and sound cards.

/// How one sample is stored. All formats are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleFormat {
    /// Unsigned 8 bit; 128 is silence.
    U8,
    S16,
    /// Signed 24 bit in three bytes.
    S24,
    /// Signed 24 bit in the lower three of four bytes.
    S24In32,
    S32,
    F32,
    F64,
}

impl SampleFormat {
    /// Bytes per sample.
    pub fn bytes(self) -> usize {
        match self {
            SampleFormat::U8 => 1,
            SampleFormat::S16 => 2,
            SampleFormat::S24 => 3,
            SampleFormat::S24In32 | SampleFormat::S32 | SampleFormat::F32 => 4,
            SampleFormat::F64 => 8,
        }
    }

    /// The integer format with this many bits. As in WAV and Matroska, 8-bit samples are unsigned.
    pub fn integer(bits: u64) -> Option<SampleFormat> {
        match bits {
            8 => Some(SampleFormat::U8),
            16 => Some(SampleFormat::S16),
            24 => Some(SampleFormat::S24),
            32 => Some(SampleFormat::S32),
            _ => None,
        }
    }

    /// The float format with this many bits.
    pub fn float(bits: u64) -> Option<SampleFormat> {
        match bits {
            32 => Some(SampleFormat::F32),
            64 => Some(SampleFormat::F64),
            _ => None,
        }
    }

    /// Appends the samples of `bytes`, each in −1..1. An incomplete sample at the end is ignored.
    #[expect(clippy::cast_possible_truncation, reason = "f32 has enough precision for a sample")]
    fn decode(self, bytes: &[u8], samples: &mut Vec<f32>) {
        let signed_24 = |low, middle, high| (i32::from_le_bytes([0, low, middle, high]) >> 8) as f32 / 8_388_608.0;
        match self {
            SampleFormat::U8 => append(bytes, samples, |[a]| (f32::from(a) - 128.0) / 128.0),
            SampleFormat::S16 => append(bytes, samples, |ab| f32::from(i16::from_le_bytes(ab)) / 32768.0),
            SampleFormat::S24 => append(bytes, samples, |[a, b, c]| signed_24(a, b, c)),
            SampleFormat::S24In32 => append(bytes, samples, |[a, b, c, _]| signed_24(a, b, c)),
            SampleFormat::S32 => append(bytes, samples, |abcd| {
                (f64::from(i32::from_le_bytes(abcd)) / 2_147_483_648.0) as f32
            }),
            // Float files may contain anything. A single NaN would make every later estimate NaN.
            SampleFormat::F32 => append(bytes, samples, |abcd| within_full_scale(f32::from_le_bytes(abcd))),
            SampleFormat::F64 => append(bytes, samples, |all| within_full_scale(f64::from_le_bytes(all) as f32)),
        }
    }
}

fn append<const BYTES: usize>(bytes: &[u8], samples: &mut Vec<f32>, decode: impl Fn([u8; BYTES]) -> f32) {
    samples.extend(bytes.as_chunks().0.iter().map(|sample| decode(*sample)));
}

fn within_full_scale(sample: f32) -> f32 {
    if sample.is_nan() { 0.0 } else { sample.clamp(-1.0, 1.0) }
}

/// Why a PCM layout is rejected.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PcmLayoutError {
    #[error("{0} audio channels, not 1 to 64")]
    Channels(u64),
    #[error("a sample rate of {0} Hz, not 8000 to 192000")]
    SampleRate(f64),
}

/// The layout of a PCM stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcmLayout {
    format: SampleFormat,
    channels: u16,
    rate_hz: u32,
}

impl PcmLayout {
    /// Rejects layouts outside 1 to 64 channels and 8 to 192 kHz, which only damaged headers declare.
    pub fn new(format: SampleFormat, channels: u64, rate_hz: f64) -> Result<PcmLayout, PcmLayoutError> {
        let valid_channels = u16::try_from(channels).ok().filter(|n| (1..=64).contains(n));
        let channels = valid_channels.ok_or(PcmLayoutError::Channels(channels))?;
        if !(8000.0..=192_000.0).contains(&rate_hz) {
            return Err(PcmLayoutError::SampleRate(rate_hz));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked just above"
        )]
        let rate_hz = rate_hz.round() as u32;
        Ok(PcmLayout {
            format,
            channels,
            rate_hz,
        })
    }

    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    pub fn channels(&self) -> u16 {
        self.channels
    }

    /// Bytes per frame: one sample of each channel.
    pub fn frame_bytes(&self) -> usize {
        self.format.bytes() * usize::from(self.channels)
    }

    /// Appends the samples of all whole frames, each in −1..1, frame by frame.
    pub fn decode(&self, frames: &[u8], samples: &mut Vec<f32>) {
        let whole = frames.len() / self.frame_bytes() * self.frame_bytes();
        self.format.decode(&frames[..whole], samples);
    }
}

impl std::fmt::Display for PcmLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.channels == 1 { "" } else { "s" };
        write!(f, "PCM {} Hz {} channel{plural}", self.rate_hz, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(format: SampleFormat, bytes: &[u8]) -> Vec<f32> {
        let mut samples = Vec::new();
        let channels = bytes.len() / format.bytes();
        PcmLayout::new(format, channels as u64, 16_000.0)
            .unwrap()
            .decode(bytes, &mut samples);
        samples
    }

    #[test]
    fn every_format_decodes_full_scale_and_silence() {
        assert_eq!(samples(SampleFormat::U8, &[0, 128, 192]), [-1.0, 0.0, 0.5]);
        assert_eq!(samples(SampleFormat::S16, &[0, 0x80, 0, 0, 0, 0x40]), [-1.0, 0.0, 0.5]);
        assert_eq!(
            samples(SampleFormat::S24, &[0, 0, 0x80, 0, 0, 0, 0, 0, 0x40]),
            [-1.0, 0.0, 0.5]
        );
        assert_eq!(
            samples(SampleFormat::S24In32, &[0, 0, 0x80, 0xff, 0, 0, 0x40, 7]),
            [-1.0, 0.5]
        );
        assert_eq!(samples(SampleFormat::S32, &[0, 0, 0, 0x80, 0, 0, 0, 0x40]), [-1.0, 0.5]);
        assert_eq!(samples(SampleFormat::F32, &0.25f32.to_le_bytes()), [0.25]);
        assert_eq!(samples(SampleFormat::F64, &(-0.25f64).to_le_bytes()), [-0.25]);
    }

    #[test]
    fn floats_are_clamped() {
        let bytes: Vec<u8> = [f32::NAN, f32::INFINITY, -7.0]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        assert_eq!(samples(SampleFormat::F32, &bytes), [0.0, 1.0, -1.0]);
    }

    #[test]
    fn invalid_layouts_are_rejected_with_the_reason() {
        let layout = |channels, rate| PcmLayout::new(SampleFormat::S16, channels, rate);
        assert_eq!(layout(1, 0.0), Err(PcmLayoutError::SampleRate(0.0)));
        assert_eq!(layout(0, 16_000.0), Err(PcmLayoutError::Channels(0)));
        assert_eq!(layout(1 << 16, 16_000.0), Err(PcmLayoutError::Channels(1 << 16)));
        assert!(layout(1, f64::NAN).is_err());
        assert_eq!(layout(2, 44_100.0).unwrap().to_string(), "PCM 44100 Hz 2 channels");
    }
}
