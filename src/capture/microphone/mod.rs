//! A microphone, through ALSA.
//!
//! In: a device name. Out: audio blocks of about 20 ms, resampled to mono at 16 kHz, with times that follow the card's own
//! timestamps.
//!
//! Like a camera, a [`Microphone`] is valid until its first error. An overrun, in which samples are lost because they were not
//! read in time, is not an error: it is counted, and the capture restarts.

mod alsa_error;
mod cards;
mod drift;
pub mod list;
mod pace;
mod sample_clock;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use alsa::pcm::{Access, Format, Frames, HwParams, PCM, State, Status, TstampType};
use alsa::{Direction, ValueOr};

use super::error::{Operation, Reason};
use super::monotonic::{from_timespec, moment};
use super::pcm::{PcmLayout, SampleFormat};
use super::resample::Resampler;
use super::{AUDIO_RATE_HZ, AudioBlock, AudioSource, CaptureError, duration_of};
use crate::health::MicrophoneCounters;
use alsa_error::{alsa_error, capture_messages};
use cards::{card_devices, is_playback_only};
use drift::DriftCompensator;
use pace::SamplePace;
use sample_clock::SampleClock;

/// A microphone that sends nothing for this long has stalled.
const STALL: Duration = Duration::from_secs(1);
/// Wakeups per second, at most. One period is this fraction of a second.
const WAKEUPS_HZ: u32 = 50;
/// The card buffers this much while this process is delayed.
const BUFFER_US: u32 = 400_000;

/// Which microphone to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The first device that can capture.
    Auto,
    /// An ALSA name: `default`, `hw:CARD=…`, `plughw:…`.
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrophoneSettings {
    pub device: Choice,
}

/// A running microphone.
pub struct Microphone {
    name: String,
    pcm: PCM,
    layout: PcmLayout,
    resampler: Resampler,
    clock: SampleClock,
    pace: SamplePace,
    drift: DriftCompensator,
    /// Frames read since the capture started.
    frames: u64,
    /// Samples at [`AUDIO_RATE_HZ`] that these frames became.
    samples: u64,
    bytes: Vec<u8>,
    mono: Vec<f32>,
    epoch: Instant,
    /// Time of the previous block.
    last: Duration,
    counters: MicrophoneCounters,
    description: String,
}

impl Microphone {
    /// Opens and starts the microphone. Block times count from `epoch`. The error is
    /// [`CaptureErrorKind::Unusable`](super::CaptureErrorKind::Unusable) only if the configured device exists and can never
    /// be a microphone.
    pub fn open(
        settings: &MicrophoneSettings,
        epoch: Instant,
        counters: &MicrophoneCounters,
    ) -> Result<Microphone, CaptureError> {
        match &settings.device {
            Choice::Name(name) => Microphone::open_name(name, epoch, counters),
            Choice::Auto => {
                let mut first_error = None;
                for device in card_devices().iter().filter(|device| device.captures) {
                    match Microphone::open_name(&device.pcm_name(), epoch, counters) {
                        Ok(microphone) => return Ok(microphone),
                        Err(error) => first_error = first_error.or(Some(error)),
                    }
                }
                Err(first_error.unwrap_or_else(|| CaptureError::microphone("auto", Reason::NoneConnected)))
            }
        }
    }

    fn open_name(name: &str, epoch: Instant, counters: &MicrophoneCounters) -> Result<Microphone, CaptureError> {
        let messages = capture_messages();
        if is_playback_only(name, &card_devices()) {
            return Err(CaptureError::microphone(name, Reason::PlaybackOnly));
        }
        let pcm = PCM::new(name, Direction::Capture, true).map_err(|e| {
            let printed = messages
                .as_ref()
                .map(|output| output.borrow().to_string())
                .unwrap_or_default();
            // alsa-lib also prints "Unknown PCM" for a valid name whose card is absent.
            if printed.contains("Unknown PCM") && !printed.contains("cannot find card") {
                CaptureError::microphone(name, Reason::UnknownToAlsa)
            } else {
                alsa_error(name, Operation::Open, &e)
            }
        })?;
        let layout = configure(&pcm)
            .map_err(|e| alsa_error(name, Operation::Configure, &e))?
            .map_err(|reason| CaptureError::microphone(name, reason))?;
        pcm.start().map_err(|e| alsa_error(name, Operation::Start, &e))?;
        let period = layout.rate_hz().div_ceil(WAKEUPS_HZ) as usize;
        let mut microphone = Microphone {
            name: name.to_owned(),
            description: format!("{name}, {layout}"),
            pace: SamplePace::new(layout.rate_hz(), Instant::now()),
            bytes: vec![0; period * layout.frame_bytes()],
            mono: Vec::with_capacity(period),
            resampler: Resampler::new(layout.rate_hz()),
            clock: SampleClock::new(layout.rate_hz()),
            drift: DriftCompensator::default(),
            frames: 0,
            samples: 0,
            pcm,
            layout,
            epoch,
            last: Duration::ZERO,
            counters: counters.clone(),
        };
        microphone.discard_waiting_samples()?;
        Ok(microphone)
    }

    /// Reads without waiting until no samples are left. A sound card has none so soon after its start. A plugin without one, such
    /// as ALSA's `null`, always has more, and is refused here, before it counts as a running microphone.
    fn discard_waiting_samples(&mut self) -> Result<(), CaptureError> {
        while self.read_ready()? {}
        self.frames = 0;
        Ok(())
    }

    /// One line with the negotiated layout: `hw:CARD=Device,DEV=0, PCM 48000 Hz 1 channel`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Waits for a period and reads it into `mono`. False if nothing was read, for example because the capture restarted.
    fn read(&mut self) -> Result<bool, CaptureError> {
        let timeout = u32::try_from(STALL.as_millis()).unwrap_or(u32::MAX);
        let ready = match self.pcm.wait(Some(timeout)) {
            Ok(ready) => ready,
            Err(error) => return self.recover(&error).map(|()| false),
        };
        if !ready {
            return Err(CaptureError::microphone(&self.name, Reason::NoSamples(STALL)));
        }
        let status = self
            .pcm
            .status()
            .map_err(|e| alsa_error(&self.name, Operation::QueryState, &e))?;
        if status.get_state() == State::Disconnected {
            return Err(CaptureError::microphone(&self.name, Reason::NotConnected));
        }
        if let Some(at) = self.captured(&status) {
            self.clock.observe(self.frames, at);
        }
        self.read_ready()
    }

    /// Reads at most a period into `mono`, without waiting. False if no samples were ready.
    fn read_ready(&mut self) -> Result<bool, CaptureError> {
        let read = self.pcm.io_bytes().readi(&mut self.bytes);
        match read {
            Ok(0) => Err(CaptureError::microphone(&self.name, Reason::OutOfSamples)),
            Ok(frames) => {
                self.frames += frames as u64;
                if self.pace.add(frames as u64, Instant::now()).is_err() {
                    return Err(CaptureError::microphone(&self.name, Reason::FasterThanSound));
                }
                let bytes = &self.bytes[..frames * self.layout.frame_bytes()];
                self.mono.clear();
                self.layout.append_mono(bytes, &mut self.mono);
                Ok(true)
            }
            Err(error) if error.errno() == libc::EAGAIN => Ok(false),
            Err(error) => self.recover(&error).map(|()| false),
        }
    }

    /// Capture time of the next frame to be read: the time of the status minus the duration of the waiting frames. If a plugin
    /// reports no time, the status was determined just now.
    fn captured(&self, status: &Status) -> Option<Duration> {
        let reported = moment(from_timespec(status.get_htstamp())).unwrap_or_else(Instant::now);
        let waiting = u64::try_from(status.get_delay()).ok()?;
        let waiting = duration_of(waiting, self.layout.rate_hz());
        Some(reported.checked_sub(waiting)?.saturating_duration_since(self.epoch))
    }

    /// Restarts the capture after an overrun or a suspend. Returns all other errors.
    fn recover(&mut self, error: &alsa::Error) -> Result<(), CaptureError> {
        if !matches!(error.errno(), libc::EPIPE | libc::ESTRPIPE) {
            return Err(alsa_error(&self.name, Operation::Read, error));
        }
        self.counters.xruns.fetch_add(1, Ordering::Relaxed);
        // Unlike playback, capture does not start by itself after `prepare`.
        self.pcm
            .prepare()
            .and_then(|()| self.pcm.start())
            .map_err(|e| alsa_error(&self.name, Operation::Restart, &e))?;
        self.resampler = Resampler::new(self.layout.rate_hz());
        self.clock = SampleClock::new(self.layout.rate_hz());
        (self.frames, self.samples) = (0, 0);
        Ok(())
    }
}

impl AudioSource for Microphone {
    fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        let deadline = Instant::now() + 2 * STALL;
        loop {
            // A device that is always ready and has nothing.
            if Instant::now() > deadline {
                return Err(CaptureError::microphone(&self.name, Reason::NoSamples(2 * STALL)));
            }
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
            let at = self.drift.compensate(at, &mut samples, AUDIO_RATE_HZ).max(self.last);
            self.last = at;
            let mut block = AudioBlock {
                at,
                captured: self.epoch,
                samples,
            };
            block.captured += block.end();
            return Ok(Some(block));
        }
    }
}

/// Selects the cheapest layout of the card: 16 kHz if the hardware supports it, else the rate nearest to 48 kHz; the fewest
/// channels; 16 bits if possible.
fn configure(pcm: &PCM) -> alsa::Result<Result<PcmLayout, Reason>> {
    let hw = HwParams::any(pcm)?;
    // Our resampler is better and cheaper than ALSA's.
    hw.set_rate_resample(false)?;
    hw.set_access(Access::RWInterleaved)?;
    let formats = [
        (Format::S16LE, SampleFormat::S16),
        (Format::S32LE, SampleFormat::S32),
        (Format::FloatLE, SampleFormat::F32),
        (Format::S243LE, SampleFormat::S24),
    ];
    let supported = formats.into_iter().find(|(format, _)| hw.test_format(*format).is_ok());
    let Some((format, sample_format)) = supported else {
        return Ok(Err(Reason::NoSupportedSampleFormat));
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
    let layout = PcmLayout::new(sample_format, hw.get_channels()?.into(), rate.into());

    let sw = pcm.sw_params_current()?;
    let size = hw.get_buffer_size()?;
    let wake = Frames::from(rate.div_ceil(WAKEUPS_HZ)).min(size / 2);
    sw.set_avail_min(wake)?;
    sw.set_tstamp_mode(true)?;
    // Some plugins do not support this. An error does not matter, because `moment` rejects timestamps of other clocks.
    let _ = sw.set_tstamp_type(TstampType::Monotonic);
    pcm.sw_params(&sw)?;
    Ok(layout.map_err(|error| Reason::UnsupportedLayout(error.to_string())))
}
