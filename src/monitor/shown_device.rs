//! Which device is shown if several publish to one broker.

use std::collections::{HashMap, HashSet};

use super::received::Received;

/// The first device that sends an estimate. Of a device that is gone, the broker still has the status and the last health report.
#[derive(Debug, Default)]
pub struct ShownDevice {
    /// Its base topic.
    shown: Option<String>,
    /// The last status and health report of each device, until one is chosen.
    waiting: HashMap<String, Waiting>,
    /// Devices that the user was told of.
    left_out: HashSet<String>,
}

#[derive(Debug, Default)]
struct Waiting {
    status: Option<Received>,
    health: Option<Received>,
}

impl ShownDevice {
    /// More devices than that wait for an estimate only without a status and health report.
    const MAX_WAITING: usize = 1000;
    /// The user is told of so many devices that are left out.
    const MAX_LEFT_OUT: usize = 8;

    /// What to show, now that `received` has come from the device with this base topic.
    pub fn choose(&mut self, base: &str, received: Received) -> Vec<Received> {
        if let Some(shown) = &self.shown {
            if shown == base {
                return vec![received];
            }
            let is_told = !matches!(received, Received::Estimate(_))
                || self.left_out.len() == ShownDevice::MAX_LEFT_OUT
                || !self.left_out.insert(base.to_owned());
            let (shown, device) = (shown.clone(), base.to_owned());
            return if is_told {
                Vec::new()
            } else {
                vec![Received::LeftOut { shown, device }]
            };
        }
        if matches!(received, Received::Estimate(_)) {
            self.shown = Some(base.to_owned());
            let known = std::mem::take(&mut self.waiting).remove(base).unwrap_or_default();
            return known.status.into_iter().chain(known.health).chain([received]).collect();
        }
        if self.waiting.len() < ShownDevice::MAX_WAITING || self.waiting.contains_key(base) {
            let waiting = self.waiting.entry(base.to_owned()).or_default();
            match received {
                Received::Status(_) => waiting.status = Some(received.clone()),
                Received::Health(_) => waiting.health = Some(received.clone()),
                _ => {}
            }
        }
        vec![received]
    }
}

#[cfg(test)]
mod tests {
    use super::super::received::tests::LINE;
    use super::*;
    use crate::health::HealthReport;

    #[test]
    fn the_first_device_with_an_estimate_is_shown_with_what_is_known_of_it() {
        let status = |text: &str| Received::Status(text.into());
        let health = |uptime_s| {
            Received::Health(HealthReport {
                uptime_s,
                ..HealthReport::default()
            })
        };
        let estimate = Received::from_json(LINE.as_bytes()).unwrap();
        let mut device = ShownDevice::default();
        // Retained messages come first, also those of a device that is gone.
        for (base, received) in [
            ("affectd/hall", status("online")),
            ("affectd/hall", health(7)),
            ("affectd/gone", status("offline")),
            ("affectd/gone", health(9)),
        ] {
            assert_eq!(device.choose(base, received.clone()), [received]);
        }
        let shown = [status("online"), health(7), estimate.clone()];
        assert_eq!(device.choose("affectd/hall", estimate.clone()), shown);
        let left_out = Received::LeftOut {
            shown: "affectd/hall".into(),
            device: "affectd/den".into(),
        };
        assert_eq!(device.choose("affectd/den", estimate.clone()), [left_out]);
        assert_eq!(device.choose("affectd/den", estimate.clone()), []);
        assert_eq!(device.choose("affectd/hall", estimate.clone()), [estimate]);
    }
}
