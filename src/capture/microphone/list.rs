//! The microphones there are.

use std::fs;

use alsa::Direction;
use alsa::pcm::{HwParams, PCM};
use serde::Serialize;

use super::{explain, quiet};

/// Rates that `affectd devices` asks for; a card may do others as well.
const RATES: [u32; 8] = [8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000];

/// One microphone, as `affectd devices` tells of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MicrophoneInfo {
    /// What to put into the configuration: by the card's name, which stays with it.
    pub device: String,
    pub card: String,
    /// Common rates the card has.
    pub rates_hz: Vec<u32>,
    /// The fewest and the most channels.
    pub channels: Option<[u32; 2]>,
    /// Why it cannot be used now, if it cannot.
    pub problem: Option<String>,
    /// `device = "auto"` would take this one.
    pub auto: bool,
}

/// A device of a sound card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardDevice {
    pub card: u32,
    /// The card's short name, as in `hw:CARD=…`.
    pub id: String,
    pub device: u32,
    pub captures: bool,
    pub name: String,
}

impl CardDevice {
    pub fn pcm_name(&self) -> String {
        format!("hw:CARD={},DEV={}", self.id, self.device)
    }
}

/// Every device of every card, in the kernel's order.
pub fn card_devices() -> Vec<CardDevice> {
    let table = fs::read_to_string("/proc/asound/pcm").unwrap_or_default();
    let id = |card: u32| fs::read_to_string(format!("/proc/asound/card{card}/id")).ok();
    parse(&table, id)
}

/// Reads lines such as `01-00: USB Audio : USB Audio : playback 1 : capture 1`.
fn parse(table: &str, id: impl Fn(u32) -> Option<String>) -> Vec<CardDevice> {
    let device = |line: &str| {
        let (numbers, rest) = line.split_once(": ")?;
        let (card, device) = numbers.split_once('-')?;
        let card = card.parse().ok()?;
        let mut fields = rest.split(" : ").map(str::trim);
        Some(CardDevice {
            card,
            id: id(card).map_or_else(|| card.to_string(), |id| id.trim().to_owned()),
            device: device.parse().ok()?,
            name: fields.next()?.to_owned(),
            captures: fields.any(|field| field.starts_with("capture ")),
        })
    };
    table.lines().filter_map(device).collect()
}

/// Every microphone.
pub fn microphones() -> Vec<MicrophoneInfo> {
    let mut microphones: Vec<MicrophoneInfo> = card_devices()
        .iter()
        .filter(|device| device.captures)
        .map(look)
        .collect();
    if let Some(first) = microphones.iter_mut().find(|microphone| microphone.problem.is_none()) {
        first.auto = true;
    }
    microphones
}

fn look(device: &CardDevice) -> MicrophoneInfo {
    let name = device.pcm_name();
    let mut info = MicrophoneInfo {
        device: name.clone(),
        card: device.name.clone(),
        rates_hz: Vec::new(),
        channels: None,
        problem: None,
        auto: false,
    };
    let _errors = quiet();
    match PCM::new(&name, Direction::Capture, true) {
        Ok(pcm) => {
            if let Ok(hw) = HwParams::any(&pcm) {
                let has = |rate: &u32| hw.test_rate(*rate).is_ok();
                info.rates_hz = RATES.into_iter().filter(has).collect();
                info.channels = hw
                    .get_channels_min()
                    .ok()
                    .zip(hw.get_channels_max().ok())
                    .map(<[u32; 2]>::from);
            }
        }
        Err(error) => info.problem = Some(explain(&name, "be opened", &error).to_string()),
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_tells_who_captures() {
        let table = "00-00: bcm2835 Headphones : bcm2835 Headphones : playback 8\n\
                     01-00: USB Audio : USB Audio : playback 1 : capture 1\nnonsense\n";
        let devices = parse(table, |card| (card == 1).then(|| "Device\n".into()));
        assert_eq!(devices.len(), 2);
        assert!(!devices[0].captures && devices[1].captures);
        assert_eq!(devices[0].pcm_name(), "hw:CARD=0,DEV=0");
        assert_eq!(devices[1].pcm_name(), "hw:CARD=Device,DEV=0");
    }
}
