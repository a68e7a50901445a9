//! Interleaved PCM bytes, as containers and sound cards hand them over, mixed down to mono.

/// How one sample is stored. All are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleFormat {
    /// Unsigned 8 bit, 128 being silence.
    U8,
    S16,
    /// Signed 24 bit in three bytes.
    S24,
    S32,
    F32,
    F64,
}

impl SampleFormat {
    pub fn bytes(self) -> usize {
        match self {
            SampleFormat::U8 => 1,
            SampleFormat::S16 => 2,
            SampleFormat::S24 => 3,
            SampleFormat::S32 | SampleFormat::F32 => 4,
            SampleFormat::F64 => 8,
        }
    }

    /// Integers of `bits` bits, unsigned if there are eight of them, as WAV and Matroska have it.
    pub fn integer(bits: u64) -> Option<SampleFormat> {
        match bits {
            8 => Some(SampleFormat::U8),
            16 => Some(SampleFormat::S16),
            24 => Some(SampleFormat::S24),
            32 => Some(SampleFormat::S32),
            _ => None,
        }
    }

    pub fn float(bits: u64) -> Option<SampleFormat> {
        match bits {
            32 => Some(SampleFormat::F32),
            64 => Some(SampleFormat::F64),
            _ => None,
        }
    }

    /// `sample` must hold [`SampleFormat::bytes`] bytes.
    fn decode(self, sample: &[u8]) -> f32 {
        let value = match (self, sample) {
            (SampleFormat::U8, &[a]) => (f32::from(a) - 128.0) / 128.0,
            (SampleFormat::S16, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32768.0,
            (SampleFormat::S24, &[a, b, c]) => (i32::from_le_bytes([0, a, b, c]) >> 8) as f32 / 8_388_608.0,
            (SampleFormat::S32, &[a, b, c, d]) => {
                (f64::from(i32::from_le_bytes([a, b, c, d])) / 2_147_483_648.0) as f32
            }
            (SampleFormat::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (SampleFormat::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => 0.0,
        };
        // Float files may hold anything; one NaN would poison every estimate after it.
        if value.is_nan() { 0.0 } else { value.clamp(-1.0, 1.0) }
    }
}

/// The layout of a PCM stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcmLayout {
    format: SampleFormat,
    channels: u16,
    rate_hz: u32,
}

impl PcmLayout {
    /// Fails, saying why, on layouts that no microphone or file has for good reason.
    pub fn new(format: SampleFormat, channels: u64, rate_hz: f64) -> Result<PcmLayout, String> {
        if !(1..=64).contains(&channels) {
            return Err(format!("{channels} channels of sound, not 1 to 64"));
        }
        if !(8000.0..=192_000.0).contains(&rate_hz) {
            return Err(format!("a sample rate of {rate_hz} Hz, not 8000 to 192000"));
        }
        Ok(PcmLayout {
            format,
            channels: channels as u16,
            rate_hz: rate_hz.round() as u32,
        })
    }

    pub fn channels(&self) -> u16 {
        self.channels
    }

    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Bytes of one sample of every channel.
    pub fn frame_bytes(&self) -> usize {
        self.format.bytes() * usize::from(self.channels)
    }

    /// Appends the mean of all channels, each sample in −1..1. Bytes after the last whole frame are ignored.
    pub fn append_mono(&self, bytes: &[u8], mono: &mut Vec<f32>) {
        let scale = 1.0 / f32::from(self.channels);
        mono.extend(bytes.chunks_exact(self.frame_bytes()).map(|frame| {
            let sum: f32 = frame
                .chunks_exact(self.format.bytes())
                .map(|sample| self.format.decode(sample))
                .sum();
            sum * scale
        }));
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

    fn mono(format: SampleFormat, channels: u64, bytes: &[u8]) -> Vec<f32> {
        let mut out = Vec::new();
        PcmLayout::new(format, channels, 16_000.0)
            .unwrap()
            .append_mono(bytes, &mut out);
        out
    }

    #[test]
    fn every_format_reaches_full_scale_and_silence() {
        assert_eq!(mono(SampleFormat::U8, 1, &[0, 128, 192]), [-1.0, 0.0, 0.5]);
        assert_eq!(mono(SampleFormat::S16, 1, &[0, 0x80, 0, 0, 0, 0x40]), [-1.0, 0.0, 0.5]);
        assert_eq!(
            mono(SampleFormat::S24, 1, &[0, 0, 0x80, 0, 0, 0, 0, 0, 0x40]),
            [-1.0, 0.0, 0.5]
        );
        assert_eq!(mono(SampleFormat::S32, 1, &[0, 0, 0, 0x80, 0, 0, 0, 0x40]), [-1.0, 0.5]);
        assert_eq!(mono(SampleFormat::F32, 1, &0.25f32.to_le_bytes()), [0.25]);
        assert_eq!(mono(SampleFormat::F64, 1, &(-0.25f64).to_le_bytes()), [-0.25]);
    }

    #[test]
    fn channels_are_averaged() {
        let left_only: Vec<u8> = [16384i16, 0, -16384, 0].iter().flat_map(|s| s.to_le_bytes()).collect();
        assert_eq!(mono(SampleFormat::S16, 2, &left_only), [0.25, -0.25]);
        assert_eq!(mono(SampleFormat::U8, 8, &[255; 8]), [127.0 / 128.0]);
    }

    #[test]
    fn wild_floats_are_tamed_and_torn_frames_left_out() {
        let bytes: Vec<u8> = [f32::NAN, f32::INFINITY, -7.0]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        assert_eq!(mono(SampleFormat::F32, 1, &bytes), [0.0, 1.0, -1.0]);
        assert_eq!(mono(SampleFormat::S16, 2, &[0, 0, 0, 0, 1]), [0.0]);
    }

    #[test]
    fn absurd_layouts_are_refused_with_the_reason() {
        let layout = |channels, rate| PcmLayout::new(SampleFormat::S16, channels, rate);
        assert_eq!(layout(1, 0.0).unwrap_err(), "a sample rate of 0 Hz, not 8000 to 192000");
        assert_eq!(layout(0, 16_000.0).unwrap_err(), "0 channels of sound, not 1 to 64");
        assert!(layout(1, f64::NAN).is_err());
        assert_eq!(layout(2, 44_100.0).unwrap().to_string(), "PCM 44100 Hz 2 channels");
    }
}
