//! The devices of the sound cards, as the kernel lists them.

use std::fs;

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

/// All devices of all cards, in the kernel's order.
pub fn card_devices() -> Vec<CardDevice> {
    let table = fs::read_to_string("/proc/asound/pcm").unwrap_or_default();
    let id = |card: u32| fs::read_to_string(format!("/proc/asound/card{card}/id")).ok();
    parse(&table, id)
}

/// Parses lines such as `01-00: USB Audio : USB Audio : playback 1 : capture 1`.
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

/// Whether `name` is an ALSA hardware device that `devices` lists with playback only.
pub fn is_playback_only(name: &str, devices: &[CardDevice]) -> bool {
    let Some((plugin, address)) = name.split_once(':') else {
        return false;
    };
    if !matches!(plugin, "hw" | "plughw") {
        return false;
    }
    let mut parts = address.split(',');
    let card = parts.next().unwrap_or_default().trim_start_matches("CARD=");
    let device = parts.next().map(|part| part.trim_start_matches("DEV="));
    let mut named = devices
        .iter()
        .filter(|d| d.id == card || d.card.to_string() == card)
        .filter(|d| device.is_none_or(|device| d.device.to_string() == device))
        .peekable();
    named.peek().is_some() && !named.any(|d| d.captures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_tells_which_devices_capture() {
        let table = "00-00: bcm2835 Headphones : bcm2835 Headphones : playback 8\n\
                     01-00: USB Audio : USB Audio : playback 1 : capture 1\nnonsense\n";
        let devices = parse(table, |card| (card == 1).then(|| "Device\n".into()));
        assert_eq!(devices.len(), 2);
        assert!(!devices[0].captures && devices[1].captures);
        assert_eq!(devices[0].pcm_name(), "hw:CARD=0,DEV=0");
        assert_eq!(devices[1].pcm_name(), "hw:CARD=Device,DEV=0");
    }

    #[test]
    fn a_playback_only_card_is_recognized_under_all_its_names() {
        let device = |card, id: &str, captures| CardDevice {
            card,
            id: id.into(),
            device: 0,
            captures,
            name: "some card".into(),
        };
        let devices = [device(0, "Headphones", false), device(1, "Device", true)];
        for name in ["hw:CARD=Headphones,DEV=0", "plughw:0", "hw:0,0"] {
            assert!(is_playback_only(name, &devices), "{name}");
        }
        for name in ["hw:CARD=Device", "plughw:1,0", "hw:CARD=Absent", "hw:1,7", "default"] {
            assert!(!is_playback_only(name, &devices), "{name}");
        }
    }
}
