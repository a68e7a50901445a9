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
mod live_audio;
mod offset;
mod pace;
pub mod program;
mod sample_clock;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use alsa::pcm::{Access, Format, Frames, HwParams, PCM, State, Status, TstampType};
use alsa::{Direction, ValueOr};
use log::debug;

use super::error::{Operation, Reason};
use super::mono::{Channel, MonoMixer};
use super::monotonic::{from_timespec, moment};
use super::pcm::{PcmLayout, SampleFormat};
use super::{AUDIO_RATE_HZ, AudioBlock, AudioSource, CaptureError, duration_of};
use crate::health::MicrophoneCounters;
use alsa_error::{alsa_error, capture_messages};
use cards::{card_devices, is_playback_only};
use live_audio::LiveAudio;
use pace::SamplePace;
use program::{MicrophoneProgram, ProgramMicrophone};

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
    /// A program that writes the samples.
    Program(MicrophoneProgram),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrophoneSettings {
    pub device: Choice,
    pub channel: Channel,
}

/// A running microphone.
pub struct Microphone {
    name: String,
    pcm: PCM,
    audio: LiveAudio,
    pace: SamplePace,
    bytes: Vec<u8>,
    counters: MicrophoneCounters,
    description: String,
}

/// A running microphone of any kind.
pub enum LiveMicrophone<'a> {
    Alsa(Box<Microphone>),
    Program(Box<ProgramMicrophone<'a>>),
}

impl<'a> LiveMicrophone<'a> {
    /// Opens and starts the configured microphone. Block times count from `epoch`. `stop` ends the wait for a program. The error is
    /// [`CaptureErrorKind::Unusable`](super::CaptureErrorKind::Unusable) only if the configured device exists and can never be a
    /// microphone.
    pub fn open(
        settings: &MicrophoneSettings,
        epoch: Instant,
        counters: &MicrophoneCounters,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<LiveMicrophone<'a>, CaptureError> {
        let alsa = |microphone| LiveMicrophone::Alsa(Box::new(microphone));
        let channel = settings.channel;
        match &settings.device {
            Choice::Program(program) => {
                let microphone = ProgramMicrophone::start(program, channel, epoch, stop)?;
                Ok(LiveMicrophone::Program(Box::new(microphone)))
            }
            Choice::Name(name) => Microphone::open_name(name, channel, epoch, counters).map(alsa),
            Choice::Auto => Microphone::open_any(channel, epoch, counters).map(alsa),
        }
    }

    /// One line for the log.
    pub fn description(&self) -> &str {
        match self {
            LiveMicrophone::Alsa(microphone) => microphone.description(),
            LiveMicrophone::Program(microphone) => microphone.description(),
        }
    }

    /// Waits for the next block. `None` means that the microphone has ended. Times never decrease.
    pub fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        match self {
            LiveMicrophone::Alsa(microphone) => microphone.next_block(),
            LiveMicrophone::Program(microphone) => microphone.next_block(),
        }
    }
}

impl Microphone {
    /// Opens the first device that can capture.
    fn open_any(channel: Channel, epoch: Instant, counters: &MicrophoneCounters) -> Result<Microphone, CaptureError> {
        let mut first_error = None;
        for device in card_devices().iter().filter(|device| device.captures) {
            match Microphone::open_name(&device.pcm_name(), channel, epoch, counters) {
                Ok(microphone) => return Ok(microphone),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| CaptureError::microphone("auto", Reason::NoneConnected)))
    }

    /// Opens an ALSA device. If it has no layout that affectd reads, such as samples that are not interleaved, ALSA converts them.
    fn open_name(
        name: &str,
        channel: Channel,
        epoch: Instant,
        counters: &MicrophoneCounters,
    ) -> Result<Microphone, CaptureError> {
        if is_playback_only(name, &card_devices()) {
            return Err(CaptureError::microphone(name, Reason::PlaybackOnly));
        }
        match Microphone::open_pcm(name, name, channel, epoch, counters) {
            Err(error) if error.reason() == &Reason::NoSupportedSampleFormat && !name.contains('\'') => {
                let converted = format!("plug:'{name}'");
                Microphone::open_pcm(name, &converted, channel, epoch, counters).map_err(|plug_error| {
                    debug!("{name}: ALSA cannot convert its samples: {plug_error}");
                    match plug_error.reason() {
                        Reason::UnknownToAlsa => error,
                        _ => plug_error,
                    }
                })
            }
            opened => opened,
        }
    }

    /// Opens `pcm`, which is `name` or converts its samples.
    fn open_pcm(
        name: &str,
        pcm: &str,
        channel: Channel,
        epoch: Instant,
        counters: &MicrophoneCounters,
    ) -> Result<Microphone, CaptureError> {
        let messages = capture_messages();
        let converted = if pcm == name { "" } else { ", converted by ALSA" };
        let pcm = PCM::new(pcm, Direction::Capture, true).map_err(|e| {
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
        let layout = configure(&pcm, channel)
            .map_err(|e| alsa_error(name, Operation::Configure, &e))?
            .map_err(|reason| CaptureError::microphone(name, reason))?;
        let mixer = MonoMixer::new(name, layout).with_channel(channel);
        let mixer = mixer.map_err(|reason| CaptureError::microphone(name, reason))?;
        pcm.start().map_err(|e| alsa_error(name, Operation::Start, &e))?;
        let period = layout.rate_hz().div_ceil(WAKEUPS_HZ) as usize;
        let mut microphone = Microphone {
            name: name.to_owned(),
            description: format!("{name}, {layout}{converted}"),
            pace: SamplePace::new(layout.rate_hz(), Instant::now()),
            bytes: vec![0; period * layout.frame_bytes()],
            audio: LiveAudio::new(mixer, epoch),
            pcm,
            counters: counters.clone(),
        };
        microphone.discard_waiting_samples()?;
        Ok(microphone)
    }

    /// Reads without waiting until no samples are left. A sound card has none so soon after its start. A plugin without one, such
    /// as ALSA's `null`, always has more, and is refused here, before it counts as a running microphone.
    fn discard_waiting_samples(&mut self) -> Result<(), CaptureError> {
        while self.read_ready()? > 0 {}
        Ok(())
    }

    /// One line with the negotiated layout: `hw:CARD=Device,DEV=0, PCM 48000 Hz 1 channel`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Waits for a period and reads it into `bytes`. Returns how many bytes were read: none if the capture restarted, for example.
    fn read(&mut self) -> Result<usize, CaptureError> {
        let timeout = u32::try_from(STALL.as_millis()).unwrap_or(u32::MAX);
        let ready = match self.pcm.wait(Some(timeout)) {
            Ok(ready) => ready,
            Err(error) => return self.recover(&error).map(|()| 0),
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
            self.audio.captured(0, at);
        }
        self.read_ready()
    }

    /// Reads at most a period into `bytes`, without waiting. Returns how many bytes were read: none if no samples were ready.
    fn read_ready(&mut self) -> Result<usize, CaptureError> {
        let read = self.pcm.io_bytes().readi(&mut self.bytes);
        match read {
            Ok(0) => Err(CaptureError::microphone(&self.name, Reason::OutOfSamples)),
            Ok(frames) => {
                if self.pace.add(frames as u64, Instant::now()).is_err() {
                    return Err(CaptureError::microphone(&self.name, Reason::FasterThanSound));
                }
                Ok(frames * self.audio.layout().frame_bytes())
            }
            Err(error) if error.errno() == libc::EAGAIN => Ok(0),
            Err(error) => self.recover(&error).map(|()| 0),
        }
    }

    /// Capture time of the next frame to be read: the time of the status minus the duration of the waiting frames. If a plugin
    /// reports no time, the status was determined just now.
    fn captured(&self, status: &Status) -> Option<Instant> {
        let reported = moment(from_timespec(status.get_htstamp())).unwrap_or_else(Instant::now);
        let waiting = u64::try_from(status.get_delay()).ok()?;
        reported.checked_sub(duration_of(waiting, self.audio.layout().rate_hz()))
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
        self.audio.restart();
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
            let read = self.read()?;
            if let Some(block) = self.audio.add(&self.bytes[..read]) {
                return Ok(Some(block));
            }
        }
    }
}

/// Selects the cheapest layout of the card: 16 kHz if the hardware supports it, else the rate nearest to 48 kHz; the fewest
/// channels, but enough for `channel`; 16 bits if possible.
fn configure(pcm: &PCM, channel: Channel) -> alsa::Result<Result<PcmLayout, Reason>> {
    let hw = HwParams::any(pcm)?;
    // Our resampler is better and cheaper than ALSA's.
    hw.set_rate_resample(false)?;
    if hw.set_access(Access::RWInterleaved).is_err() {
        return Ok(Err(Reason::NoSupportedSampleFormat));
    }
    let formats = [
        (Format::S16LE, SampleFormat::S16),
        (Format::S32LE, SampleFormat::S32),
        (Format::FloatLE, SampleFormat::F32),
        (Format::S243LE, SampleFormat::S24),
        (Format::S24LE, SampleFormat::S24In32),
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
    hw.set_channels_near(channel.fewest().into())?;
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
