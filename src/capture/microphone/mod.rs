//! A microphone, through ALSA.
//!
//! Like a camera, a [`Microphone`] is good until its first error, but for overruns: sound lost because nobody took it in
//! time is counted, and the capture started again.

mod clock;
pub mod list;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use alsa::pcm::{Access, Format, Frames, HwParams, PCM, State, Status, TstampType};
use alsa::{Direction, Output, ValueOr};

use super::monotonic::{from_timespec, moment};
use super::pcm::{PcmLayout, SampleFormat};
use super::resample::Resampler;
use super::{AUDIO_RATE_HZ, AudioBlock, AudioSource, CaptureError};
use crate::health::MicrophoneCounters;
use clock::{SampleClock, Steady};

/// A microphone that sends nothing for this long has stalled.
const STALL: Duration = Duration::from_secs(1);
/// Wakeups a second, at most: a period is this fraction of a second.
const WAKEUPS_HZ: u32 = 50;
/// What the card keeps for us while we are held up.
const BUFFER_US: u32 = 400_000;

/// Which microphone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The first that captures.
    Auto,
    /// As ALSA names it: `default`, `hw:CARD=…`, `plughw:…`.
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrophoneSettings {
    pub device: Choice,
}

/// A microphone that captures.
pub struct Microphone {
    name: String,
    pcm: PCM,
    layout: PcmLayout,
    resampler: Resampler,
    clock: SampleClock,
    steady: Steady,
    /// Frames read, and samples they became, since the capture started.
    frames: u64,
    samples: u64,
    /// One period as bytes, and as mono.
    bytes: Vec<u8>,
    mono: Vec<f32>,
    epoch: Instant,
    last: Duration,
    faults: MicrophoneCounters,
    description: String,
}

impl Microphone {
    /// Opens the microphone and starts it; times count from `epoch`. [`CaptureError::Unusable`] only where the named
    /// device is there and never will be a microphone.
    pub fn open(
        settings: &MicrophoneSettings,
        epoch: Instant,
        faults: &MicrophoneCounters,
    ) -> Result<Microphone, CaptureError> {
        match &settings.device {
            Choice::Name(name) => Microphone::open_name(name, epoch, faults),
            Choice::Auto => {
                let mut why = None;
                for device in list::card_devices().iter().filter(|device| device.captures) {
                    match Microphone::open_name(&device.pcm_name(), epoch, faults) {
                        Ok(microphone) => return Ok(microphone),
                        Err(error) => why = why.or(Some(error)),
                    }
                }
                Err(why.unwrap_or_else(|| CaptureError::Lost("no microphone: none is connected".into())))
            }
        }
    }

    fn open_name(name: &str, epoch: Instant, faults: &MicrophoneCounters) -> Result<Microphone, CaptureError> {
        let errors = quiet();
        if let Some(error) = playback_only(name, &list::card_devices()) {
            return Err(error);
        }
        let pcm = PCM::new(name, Direction::Capture, true).map_err(|e| {
            let said = errors
                .as_ref()
                .map(|output| output.borrow().to_string())
                .unwrap_or_default();
            // It says the same of a name it knows that leads to a card which is not there.
            if said.contains("Unknown PCM") && !said.contains("cannot find card") {
                unusable(name, "ALSA knows no such device")
            } else {
                explain(name, "be opened", &e)
            }
        })?;
        let layout = configure(&pcm).map_err(|e| explain(name, "be set up", &e))?;
        pcm.start().map_err(|e| explain(name, "be started", &e))?;
        let period = layout.rate_hz().div_ceil(WAKEUPS_HZ) as usize;
        Ok(Microphone {
            name: name.to_owned(),
            description: format!("{name}, {layout}"),
            bytes: vec![0; period * layout.frame_bytes()],
            mono: Vec::with_capacity(period),
            resampler: Resampler::new(layout.rate_hz()),
            clock: SampleClock::new(layout.rate_hz()),
            steady: Steady::default(),
            frames: 0,
            samples: 0,
            pcm,
            layout,
            epoch,
            last: Duration::ZERO,
            faults: faults.clone(),
        })
    }

    /// One line that says what was got: `hw:CARD=Device,DEV=0, PCM 48000 Hz 1 channel`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Waits for a period and reads it into `mono`; false if the capture had to be started again instead.
    fn read(&mut self) -> Result<bool, CaptureError> {
        let ready = match self.pcm.wait(Some(STALL.as_millis() as u32)) {
            Ok(ready) => ready,
            Err(error) => return self.recover(&error).map(|()| false),
        };
        if !ready {
            return Err(CaptureError::Stalled(format!(
                "{}: sent no sound for {} s",
                self.name,
                STALL.as_secs()
            )));
        }
        let status = self
            .pcm
            .status()
            .map_err(|e| explain(&self.name, "be asked for its state", &e))?;
        if status.get_state() == State::Disconnected {
            return Err(CaptureError::Lost(format!("{}: not connected", self.name)));
        }
        if let Some(at) = self.captured(&status) {
            self.clock.observe(self.frames, at);
        }
        let read = self.pcm.io_bytes().readi(&mut self.bytes);
        match read {
            Ok(frames) => {
                self.frames += frames as u64;
                let bytes = &self.bytes[..frames * self.layout.frame_bytes()];
                self.mono.clear();
                self.layout.append_mono(bytes, &mut self.mono);
                Ok(true)
            }
            Err(error) if error.errno() == libc::EAGAIN => Ok(false),
            Err(error) => self.recover(&error).map(|()| false),
        }
    }

    /// When the next frame to be read was captured. The card says how many frames lie between it and the newest, and
    /// when it looked; plugins that do not say when have looked just now.
    fn captured(&self, status: &Status) -> Option<Duration> {
        let looked = moment(from_timespec(status.get_htstamp())).unwrap_or_else(Instant::now);
        let waiting = u64::try_from(status.get_delay()).ok()?;
        let waiting = Duration::from_secs_f64(waiting as f64 / f64::from(self.layout.rate_hz()));
        Some(looked.checked_sub(waiting)?.saturating_duration_since(self.epoch))
    }

    /// Starts the capture again after an overrun or a suspend. Other errors are passed on.
    fn recover(&mut self, error: &alsa::Error) -> Result<(), CaptureError> {
        if !matches!(error.errno(), libc::EPIPE | libc::ESTRPIPE) {
            return Err(explain(&self.name, "be read", error));
        }
        self.faults.xruns.fetch_add(1, Ordering::Relaxed);
        // Capture does not start by itself after it was prepared, as playback does.
        self.pcm
            .prepare()
            .and_then(|()| self.pcm.start())
            .map_err(|e| explain(&self.name, "be started again", &e))?;
        self.resampler = Resampler::new(self.layout.rate_hz());
        self.clock = SampleClock::new(self.layout.rate_hz());
        (self.frames, self.samples) = (0, 0);
        Ok(())
    }
}

impl AudioSource for Microphone {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        loop {
            if !self.read()? {
                continue;
            }
            let mut samples = Vec::with_capacity(self.mono.len());
            self.resampler.push(&self.mono, &mut samples);
            if samples.is_empty() {
                continue;
            }
            let first = self.samples * u64::from(self.layout.rate_hz()) / u64::from(AUDIO_RATE_HZ);
            self.samples += samples.len() as u64;
            let Some(at) = self.clock.at(first) else {
                continue;
            };
            let at = self.steady.keep(at, &mut samples, AUDIO_RATE_HZ).max(self.last);
            self.last = at;
            let length = Duration::from_secs_f64(samples.len() as f64 / f64::from(AUDIO_RATE_HZ));
            return Ok(Some(AudioBlock {
                at,
                captured: self.epoch + at + length,
                samples,
            }));
        }
    }
}

/// Sets the card to the cheapest layout it has: 16 kHz if it does that itself, else 48 kHz or what is nearest; few
/// channels; 16 bits if they are to be had.
fn configure(pcm: &PCM) -> alsa::Result<PcmLayout> {
    let hw = HwParams::any(pcm)?;
    // We resample better than ALSA's plug does, and cheaper.
    hw.set_rate_resample(false)?;
    hw.set_access(Access::RWInterleaved)?;
    let formats = [
        (Format::S16LE, SampleFormat::S16),
        (Format::S32LE, SampleFormat::S32),
        (Format::FloatLE, SampleFormat::F32),
        (Format::S243LE, SampleFormat::S24),
    ];
    let found = formats.into_iter().find(|(format, _)| hw.test_format(*format).is_ok());
    let Some((format, sample)) = found else {
        return Err(alsa::Error::unsupported(
            "of S16, S32, F32 and S24_3LE none is to be had,",
        ));
    };
    hw.set_format(format)?;
    let rates = [AUDIO_RATE_HZ, 48_000];
    match rates.into_iter().find(|rate| hw.test_rate(*rate).is_ok()) {
        Some(rate) => hw.set_rate(rate, ValueOr::Nearest)?,
        None => {
            hw.set_rate_near(48_000, ValueOr::Nearest)?;
        }
    }
    hw.set_channels_near(1)?;
    let period = hw.set_period_time_near(1_000_000 / WAKEUPS_HZ, ValueOr::Nearest)?;
    hw.set_buffer_time_near(BUFFER_US.max(2 * period), ValueOr::Nearest)?;
    pcm.hw_params(&hw)?;
    let rate = hw.get_rate()?;
    let layout = PcmLayout::new(sample, hw.get_channels()?.into(), rate.into());
    let layout = layout.map_err(|_| alsa::Error::unsupported("its layout"))?;

    let sw = pcm.sw_params_current()?;
    let size = hw.get_buffer_size()?;
    let wake = (rate.div_ceil(WAKEUPS_HZ) as Frames).min(size / 2);
    sw.set_avail_min(wake)?;
    sw.set_tstamp_mode(true)?;
    // Plugins may not know it; their stamps are checked for being of this clock anyway.
    let _ = sw.set_tstamp_type(TstampType::Monotonic);
    pcm.sw_params(&sw)?;
    Ok(layout)
}

/// The error of naming a sound card that plays only.
fn playback_only(name: &str, devices: &[list::CardDevice]) -> Option<CaptureError> {
    let (kind, place) = name.split_once(':')?;
    if !matches!(kind, "hw" | "plughw") {
        return None;
    }
    let mut parts = place.split(',');
    let card = parts.next()?.trim_start_matches("CARD=");
    let device = parts.next().map(|part| part.trim_start_matches("DEV="));
    let mut same = devices.iter().filter(|d| {
        (d.id == card || d.card.to_string() == card) && device.is_none_or(|device| d.device.to_string() == device)
    });
    let first = same.next()?;
    let captures = first.captures || same.any(|d| d.captures);
    (!captures).then(|| unusable(name, "this sound card only plays"))
}

fn unusable(name: &str, reason: &str) -> CaptureError {
    CaptureError::Unusable(format!(
        "{name}: {reason}: `affectd devices` lists the microphones there are"
    ))
}

/// Keeps what alsa-lib says on this thread from standard error, as long as the value lives.
fn quiet() -> Option<Rc<RefCell<Output>>> {
    Output::local_error_handler().ok()
}

/// What an error of ALSA's means to somebody who wants sound.
fn explain(name: &str, doing: &str, error: &alsa::Error) -> CaptureError {
    let reason = match error.errno() {
        // To find a card by its name alsa-lib asks every card, and one that it may not ask is none.
        libc::ENOENT | libc::ENODEV | libc::ENXIO if !may_ask_cards() => FORBIDDEN.into(),
        libc::ENOENT | libc::ENODEV | libc::ENXIO => "not connected".into(),
        libc::EBUSY | libc::EAGAIN => "in use by another program: end it (`fuser -v /dev/snd/*` names it)".into(),
        libc::EACCES | libc::EPERM => FORBIDDEN.into(),
        _ => format!("cannot {doing} ({error})"),
    };
    CaptureError::Lost(format!("{name}: {reason}"))
}

const FORBIDDEN: &str = "permission denied: let the user that runs affectd use microphones (usermod -aG audio)";

/// Whether the cards that are there, if any, tell us what they are.
fn may_ask_cards() -> bool {
    let nodes = fs::read_dir("/dev/snd").into_iter().flatten().flatten();
    nodes
        .filter(|node| node.file_name().to_string_lossy().starts_with("controlC"))
        .all(|node| !matches!(File::open(node.path()), Err(e) if e.kind() == ErrorKind::PermissionDenied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_only_plays_is_no_microphone_whatever_it_is_called() {
        let device = |card, id: &str, captures| list::CardDevice {
            card,
            id: id.into(),
            device: 0,
            captures,
            name: "some card".into(),
        };
        let devices = [device(0, "Headphones", false), device(1, "Device", true)];
        let refused = |name| playback_only(name, &devices).is_some();
        assert!(refused("hw:CARD=Headphones,DEV=0") && refused("plughw:0") && refused("hw:0,0"));
        assert!(!refused("hw:CARD=Device") && !refused("plughw:1,0"));
        assert!(!refused("hw:CARD=Absent") && !refused("hw:1,7") && !refused("default"));
    }
}
