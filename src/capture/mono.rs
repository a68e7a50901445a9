//! From the channels of a microphone or a sound track to one.
//!
//! The mean of all channels suits one microphone on several channels, and arrays. Channels of opposite sign, as balanced lines and
//! some cheap adapters deliver, would cancel each other out: [`MonoMixer`] notices it, and goes on with the loudest channel.

use std::num::NonZeroU16;
use std::str::FromStr;

use log::warn;

use super::error::Reason;
use super::pcm::PcmLayout;

/// Quieter channels than this, as a mean square, do not tell whether they cancel: −60 dB.
const MIN_POWER: f64 = 1e-6;
/// The mean of channels that have nothing in common has their mean power, divided by their number. Below this share of that,
/// they cancel each other out.
const MAX_CANCELLED: f64 = 0.1;

/// Which channel is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Channel {
    /// The mean of all.
    #[default]
    Mix,
    /// Only this one. The first is 1.
    Number(NonZeroU16),
}

impl Channel {
    /// How many channels it needs at least.
    pub fn fewest(self) -> u16 {
        match self {
            Channel::Mix => 1,
            Channel::Number(number) => number.get(),
        }
    }
}

/// The text names no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be \"mix\", or the number of a channel from 1 on")]
pub struct ParseChannelError;

impl FromStr for Channel {
    type Err = ParseChannelError;

    fn from_str(text: &str) -> Result<Channel, ParseChannelError> {
        match text {
            "mix" => Ok(Channel::Mix),
            number => number.parse().map(Channel::Number).map_err(|_| ParseChannelError),
        }
    }
}

/// Decodes PCM, and makes one channel of all.
pub struct MonoMixer {
    /// What the log calls the source.
    name: String,
    layout: PcmLayout,
    channel: Channel,
    measured: Measured,
    /// The samples of all channels, frame by frame.
    samples: Vec<f32>,
}

/// The power of the current second.
#[derive(Default)]
struct Measured {
    frames: u32,
    mean: f64,
    /// Of each channel.
    channels: Vec<f64>,
}

impl MonoMixer {
    /// The mean of all channels.
    pub fn new(name: &str, layout: PcmLayout) -> MonoMixer {
        MonoMixer {
            name: name.to_owned(),
            layout,
            channel: Channel::Mix,
            measured: Measured::default(),
            samples: Vec::new(),
        }
    }

    /// Selects a channel. An error if the source has no such channel.
    pub fn with_channel(mut self, channel: Channel) -> Result<MonoMixer, Reason> {
        let channels = self.layout.channels();
        match channel {
            Channel::Number(number) if number.get() > channels => {
                let number = number.get();
                Err(Reason::NoSuchChannel { number, channels })
            }
            _ => {
                self.channel = channel;
                Ok(self)
            }
        }
    }

    pub fn layout(&self) -> &PcmLayout {
        &self.layout
    }

    /// Appends one sample in −1..1 for each frame. An incomplete frame at the end is ignored.
    pub fn push(&mut self, bytes: &[u8], mono: &mut Vec<f32>) {
        if self.layout.channels() == 1 {
            return self.layout.decode(bytes, mono);
        }
        self.samples.clear();
        self.layout.decode(bytes, &mut self.samples);
        for frame in self.samples.chunks_exact(self.layout.channels().into()) {
            mono.push(match self.channel {
                Channel::Number(number) => frame[usize::from(number.get()) - 1],
                Channel::Mix => {
                    let mean = frame.iter().sum::<f32>() / f32::from(self.layout.channels());
                    self.measured.add(mean, frame);
                    mean
                }
            });
            if self.measured.frames >= self.layout.rate_hz()
                && let Some(number) = std::mem::take(&mut self.measured).loudest_if_cancelled()
            {
                let name = &self.name;
                warn!("{name}: the channels cancel each other out; from now on only channel {number} is heard");
                self.channel = Channel::Number(number);
            }
        }
    }
}

impl Measured {
    fn add(&mut self, mean: f32, frame: &[f32]) {
        self.frames += 1;
        self.mean += f64::from(mean * mean);
        self.channels.resize(frame.len(), 0.0);
        for (power, sample) in self.channels.iter_mut().zip(frame) {
            *power += f64::from(sample * sample);
        }
    }

    /// The loudest channel, if the channels cancel each other out.
    fn loudest_if_cancelled(&self) -> Option<NonZeroU16> {
        let count = self.channels.len() as f64;
        let mean_power = self.channels.iter().sum::<f64>() / count / f64::from(self.frames);
        let expected = mean_power / count;
        if mean_power < MIN_POWER || self.mean / f64::from(self.frames) >= MAX_CANCELLED * expected {
            return None;
        }
        // The first one, if several are equal.
        let louder = |a: &(u16, &f64), b: &(u16, &f64)| a.1.total_cmp(b.1).then(b.0.cmp(&a.0));
        let loudest = (1..).zip(&self.channels).max_by(louder)?;
        NonZeroU16::new(loudest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::pcm::SampleFormat;

    const RATE_HZ: usize = 8000;

    fn layout(channels: u64) -> PcmLayout {
        PcmLayout::new(SampleFormat::F32, channels, RATE_HZ as f64).unwrap()
    }

    /// One and a half seconds of a tone, whose amplitude in each channel is given.
    fn tone(amplitudes: &[f32]) -> Vec<u8> {
        let frames = (0..RATE_HZ * 3 / 2).map(|n| (n as f32 * 0.3).sin());
        frames
            .flat_map(|value| amplitudes.iter().flat_map(move |a| (a * value).to_le_bytes()))
            .collect()
    }

    /// The amplitude that is heard at the end, and of which channel.
    fn heard(amplitudes: &[f32], channel: &str) -> (f32, String) {
        let mixer = MonoMixer::new("test", layout(amplitudes.len() as u64));
        let mut mixer = mixer.with_channel(channel.parse().unwrap()).unwrap();
        let mut mono = Vec::new();
        for block in tone(amplitudes).chunks(4096 * amplitudes.len()) {
            mixer.push(block, &mut mono);
        }
        assert_eq!(mono.len(), RATE_HZ * 3 / 2);
        let end = &mono[RATE_HZ * 5 / 4..];
        // The mean of |sin| is 2 / π.
        let level = end.iter().map(|v| v.abs()).sum::<f32>() / end.len() as f32 * std::f32::consts::FRAC_PI_2;
        let level = (level * 100.0).round() / 100.0;
        let channel = match mixer.channel {
            Channel::Mix => "mix".to_owned(),
            Channel::Number(number) => number.to_string(),
        };
        (level, channel)
    }

    #[test]
    fn channels_are_averaged_or_chosen() {
        assert_eq!(heard(&[0.5], "mix"), (0.5, "mix".into()));
        assert_eq!(heard(&[0.5, 0.25, 0.0], "mix"), (0.25, "mix".into()));
        assert_eq!(heard(&[0.5, 0.25, 0.0], "2"), (0.25, "2".into()));
        // One microphone among eight channels, as of an array with unused inputs.
        assert_eq!(
            heard(&[0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "mix"),
            (0.1, "mix".into())
        );
    }

    #[test]
    fn channels_that_cancel_each_other_are_replaced_by_the_loudest() {
        assert_eq!(heard(&[0.5, -0.5], "mix"), (0.5, "1".into()));
        assert_eq!(heard(&[0.4, -0.5], "mix"), (0.5, "2".into()));
        assert_eq!(heard(&[0.25, -0.5, 0.25], "mix"), (0.5, "2".into()));
        // Too quiet to tell.
        assert_eq!(heard(&[0.001, -0.001], "mix"), (0.0, "mix".into()));
        assert_eq!(heard(&[0.5, -0.5], "2"), (0.5, "2".into()));
    }

    #[test]
    fn only_channels_that_exist_can_be_chosen() {
        let mixer = MonoMixer::new("test", layout(2));
        let error = mixer.with_channel("3".parse().unwrap()).err().unwrap();
        assert_eq!(error.to_string(), "has no channel 3, only 2");
        for text in ["0", "-1", "left", "", "1.5", "70000"] {
            assert_eq!(text.parse::<Channel>(), Err(ParseChannelError), "{text}");
        }
    }
}
