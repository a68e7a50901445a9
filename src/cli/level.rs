//! The level of a microphone.

use std::time::Duration;

use serde::Serialize;

use crate::capture::AUDIO_RATE_HZ;

/// A microphone below this level is switched off or covered. Even a quiet room is at −70 dB of full scale or above.
const SILENCE_DB: f64 = -75.0;
/// A sample of this absolute value or more is clipped.
const CLIPPED: f32 = 0.99;
/// A larger share of clipped samples is too much.
const MAX_CLIPPED_SHARE: f64 = 0.001;
/// The level at the left end of a meter. The right end is full scale.
const METER_FROM_DB: f64 = -80.0;
const METER_CELLS: usize = 16;

/// The loudness of some samples.
#[derive(Debug, Default)]
pub struct Level {
    energy: f64,
    peak: f32,
    clipped: u64,
    count: u64,
}

/// The same in the units that people read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Loudness {
    /// dB of full scale, −150 for digital silence.
    pub level_db: f64,
    pub peak_db: f64,
    pub clipping: bool,
}

impl Level {
    pub fn add(&mut self, samples: &[f32]) {
        for sample in samples {
            self.energy += f64::from(sample * sample);
            self.peak = self.peak.max(sample.abs());
            self.clipped += u64::from(sample.abs() >= CLIPPED);
        }
        self.count += samples.len() as u64;
    }

    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.count as f64 / f64::from(AUDIO_RATE_HZ))
    }

    pub fn loudness(&self) -> Loudness {
        let db = |power: f64| (100.0 * power.max(1e-15).log10()).round() / 10.0;
        let count = self.count.max(1) as f64;
        Loudness {
            level_db: db(self.energy / count),
            peak_db: db(f64::from(self.peak * self.peak)),
            clipping: self.clipped as f64 / count > MAX_CLIPPED_SHARE,
        }
    }
}

impl Loudness {
    /// What is wrong, and what to do.
    pub fn advice(&self) -> Option<&'static str> {
        if self.level_db < SILENCE_DB {
            Some("silent: unmute it or turn it up (alsamixer)")
        } else if self.clipping {
            Some("clipping: turn it down (alsamixer)")
        } else {
            None
        }
    }

    /// A bar as long as the level, with a mark at the peak.
    pub fn meter(&self) -> String {
        let cells = |db: f64| {
            let part = ((db - METER_FROM_DB) / -METER_FROM_DB).clamp(0.0, 1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to 0..=METER_CELLS"
            )]
            let cells = (part * METER_CELLS as f64).round() as usize;
            cells
        };
        let (level, peak) = (cells(self.level_db), cells(self.peak_db));
        let cell = |n: usize| match n {
            _ if n < level => '#',
            _ if n + 1 == peak => '|',
            _ => '-',
        };
        (0..METER_CELLS).map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loudness(samples: &[f32]) -> Loudness {
        let mut level = Level::default();
        level.add(samples);
        level.loudness()
    }

    #[test]
    fn the_meter_shows_level_and_peak() {
        insta::assert_snapshot!(loudness(&[0.0; 100]).meter(), @"----------------");
        insta::assert_snapshot!(loudness(&[1.0, -1.0]).meter(), @"################");
        let mut quiet = vec![0.01; 1000];
        quiet[0] = 0.5;
        insta::assert_snapshot!(loudness(&quiet).meter(), @"#########-----|-");
    }

    #[test]
    fn silence_and_clipping_are_named() {
        assert!(loudness(&[0.0; 100]).advice().unwrap().starts_with("silent"));
        assert!(
            loudness(&[1.0, -1.0, 0.5, 0.1])
                .advice()
                .unwrap()
                .starts_with("clipping")
        );
        assert_eq!(loudness(&[0.1, -0.1]).advice(), None);
        assert_eq!(loudness(&[0.1, -0.1]).level_db, -20.0);
    }
}
