//! A microphone behind a program: `arecord`, `ffmpeg` for network cameras, or any command of the user.
//!
//! The program writes WAV, or raw PCM of 16 bits, mono, at 16 kHz, to its standard output. Samples have no time of their own: they count
//! as captured when they arrive, less a delay that the user may configure.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::time::{Duration, Instant};

use super::live_audio::LiveAudio;
use super::pace::SamplePace;
use crate::capture::clip::wav;
use crate::capture::error::{Reason, SourceKind};
use crate::capture::mono::{Channel, MonoMixer};
use crate::capture::pcm::{PcmLayout, SampleFormat};
use crate::capture::program::{CommandLine, ProgramOutput};
use crate::capture::{AUDIO_RATE_HZ, AudioBlock, CaptureError};

/// Network cameras need some seconds until their first samples.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// A program that writes nothing for this long is started again.
const PATIENCE: Duration = Duration::from_secs(4);
/// A program may be ahead of the clock by this much: network streams begin with what they have stored.
const MAX_LEAD: Duration = Duration::from_secs(15);
/// The bytes that tell WAV from raw PCM.
const MAGIC_BYTES: usize = 12;
/// A longer burst becomes several blocks.
const MAX_READ: usize = 1 << 14;

/// A microphone whose samples a program writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrophoneProgram {
    pub command: CommandLine,
    /// How long before its arrival a sample was captured.
    pub delay: Duration,
}

/// A running program.
pub struct ProgramMicrophone<'a> {
    name: String,
    description: String,
    input: BufReader<ProgramOutput<'a>>,
    /// The beginning of a frame whose rest has not arrived.
    incomplete: Vec<u8>,
    pace: SamplePace,
    audio: LiveAudio,
    delay: Duration,
}

impl CommandLine {
    /// The command line of a microphone device in the configuration: `command:…` or a `rtsp://…` address. `None` for other devices.
    pub fn of_microphone(device: &str) -> Option<CommandLine> {
        if let Some(command) = device.strip_prefix("command:") {
            return Some(CommandLine::of_user(command));
        }
        CommandLine::of_network(device, &format!("-vn -ar {AUDIO_RATE_HZ} -c:a pcm_s16le -f wav -"))
    }
}

impl<'a> ProgramMicrophone<'a> {
    /// Starts the program and waits for its first bytes. Block times count from `epoch`.
    pub fn start(
        program: &MicrophoneProgram,
        channel: Channel,
        epoch: Instant,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<ProgramMicrophone<'a>, CaptureError> {
        let MicrophoneProgram { command, delay } = program;
        let error = |reason| CaptureError::microphone(&command.name, reason);
        let mut output = command.start(SourceKind::Microphone, START_PATIENCE, stop)?;
        output.begin_unit();
        let mut magic = [0; MAGIC_BYTES];
        output.read_exact(&mut magic).map_err(|e| error(output.reason(&e)))?;
        let mut input = BufReader::with_capacity(MAX_READ, output.preceded_by(&magic));
        let layout = match wav::is_wav(&magic) {
            true => match wav::header(&mut input).map(|header| header.layout) {
                Ok(layout) => layout,
                Err(_) if input.get_ref().is_overdue() => {
                    return Err(error(input.get_mut().reason(&ErrorKind::TimedOut.into())));
                }
                Err(e) => return Err(error(Reason::UnknownStream(format!("writes WAV, but {e}")))),
            },
            false => PcmLayout::new(SampleFormat::S16, 1, AUDIO_RATE_HZ.into())
                .map_err(|e| error(Reason::UnsupportedLayout(e.to_string())))?,
        };
        let mixer = MonoMixer::new(&command.name, layout).with_channel(channel);
        let mixer = mixer.map_err(error)?;
        input.get_mut().patience = PATIENCE;
        Ok(ProgramMicrophone {
            description: format!("{}, {layout}", command.name),
            name: command.name.clone(),
            input,
            incomplete: Vec::new(),
            pace: SamplePace::new(layout.rate_hz(), Instant::now()).with_lead(MAX_LEAD),
            audio: LiveAudio::new(mixer, epoch),
            delay: *delay,
        })
    }

    /// One line: `command:arecord, PCM 16000 Hz 1 channel`.
    pub fn description(&self) -> &str {
        &self.description
    }

    pub fn next_block(&mut self) -> Result<Option<AudioBlock>, CaptureError> {
        self.input.get_mut().begin_unit();
        loop {
            let bytes = match self.input.fill_buf() {
                Ok([]) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => Ok(bytes.len().min(MAX_READ)),
                Err(error) => Err(error),
            };
            let count = bytes.map_err(|error| {
                let reason = self.input.get_mut().reason(&error);
                CaptureError::microphone(&self.name, reason)
            })?;
            self.incomplete.extend_from_slice(&self.input.buffer()[..count]);
            self.input.consume(count);
            let frames = self.incomplete.len() / self.audio.layout().frame_bytes();
            if self.pace.add(frames as u64, Instant::now()).is_err() {
                return Err(CaptureError::microphone(&self.name, Reason::ProgramTooFast));
            }
            let now = Instant::now();
            let at = now.checked_sub(self.delay).unwrap_or(now);
            // A pipe delivers bursts. Only the last sample of a burst has just been captured; the others were before.
            match self.input.get_ref().has_more() {
                false => self.audio.captured(frames, at),
                true => self.audio.captured_by(frames, at),
            }
            let whole = frames * self.audio.layout().frame_bytes();
            let block = self.audio.add(&self.incomplete[..whole]);
            self.incomplete.drain(..whole);
            if block.is_some() {
                return Ok(block);
            }
        }
    }
}
