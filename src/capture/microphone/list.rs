//! The microphones of this machine, for `affectd devices`.

use alsa::Direction;
use alsa::pcm::{HwParams, PCM};
use serde::Serialize;

use super::alsa_error::{alsa_error, capture_messages};
use super::cards::{CardDevice, card_devices};
use crate::capture::error::Operation;

/// The sample rates that `affectd devices` tests. A card may support others as well.
const TESTED_RATES_HZ: [u32; 8] = [8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000];

/// One microphone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MicrophoneInfo {
    /// The name to put into the configuration. It contains the card's name, which stays with the card.
    pub device: String,
    pub card: String,
    /// The common sample rates that the card supports.
    pub rates_hz: Vec<u32>,
    pub channels: Option<ChannelRange>,
    /// Why the microphone cannot be used at the moment.
    pub problem: Option<String>,
    /// `device = "auto"` selects this microphone.
    pub auto: bool,
}

/// How many channels a card supports. Serializes as `[min, max]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "[u32; 2]")]
pub struct ChannelRange {
    pub min: u32,
    pub max: u32,
}

impl From<ChannelRange> for [u32; 2] {
    fn from(range: ChannelRange) -> [u32; 2] {
        [range.min, range.max]
    }
}

/// All microphones.
pub fn microphones() -> Vec<MicrophoneInfo> {
    let mut microphones: Vec<MicrophoneInfo> = card_devices()
        .iter()
        .filter(|device| device.captures)
        .map(microphone_info)
        .collect();
    if let Some(first) = microphones.iter_mut().find(|microphone| microphone.problem.is_none()) {
        first.auto = true;
    }
    microphones
}

fn microphone_info(device: &CardDevice) -> MicrophoneInfo {
    let name = device.pcm_name();
    let mut info = MicrophoneInfo {
        device: name.clone(),
        card: device.name.clone(),
        rates_hz: Vec::new(),
        channels: None,
        problem: None,
        auto: false,
    };
    let _messages = capture_messages();
    match PCM::new(&name, Direction::Capture, true) {
        Ok(pcm) => {
            if let Ok(hw) = HwParams::any(&pcm) {
                let supported = |rate: &u32| hw.test_rate(*rate).is_ok();
                info.rates_hz = TESTED_RATES_HZ.into_iter().filter(supported).collect();
                let (min, max) = (hw.get_channels_min().ok(), hw.get_channels_max().ok());
                info.channels = min.zip(max).map(|(min, max)| ChannelRange { min, max });
            }
        }
        Err(error) => info.problem = Some(alsa_error(&name, Operation::Open, &error).to_string()),
    }
    info
}
