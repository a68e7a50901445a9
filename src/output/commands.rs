//! Commands from the readers of an output. Serial lines and MQTT share the parser and the answers.
//!
//! A command is a word, for some commands followed by a number. A serial line may carry anything: noise while a cable is plugged
//! in, a login prompt, an echo of our own lines. So affectd answers a text only if it is short, printable and does not begin like
//! an answer. It never answers its own echo.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use log::info;
use serde_json::{Value, json};

use super::estimate_rate::EstimateRate;
use crate::control::Control;
use crate::health::LiveHealth;
use crate::privacy::{PauseError, PauseSwitch};

/// The longest command, in bytes. Longer texts are ignored.
pub const MAX_COMMAND_BYTES: usize = 64;
/// affectd refuses to restart sooner than this after its start, so that a peer that asks without end cannot stop it.
const MIN_UPTIME: Duration = Duration::from_secs(10);
/// A device that is not closed so long after a pause is stuck in its driver.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// So many readers of one output may wait until the devices are closed.
const MAX_WAITING: usize = 4;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Command {
    /// Answer `pong`.
    Ping,
    /// Send this many estimates a second on this output, from 0.1 to 100.
    Rate(f64),
    /// Send a health report as of now.
    Health,
    /// Use the next ten seconds as the person's neutral state.
    Baseline,
    /// Close the camera and the microphone.
    Pause,
    /// Open them again.
    Resume,
    /// Start affectd again.
    Restart,
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["ping"] => Ok(Command::Ping),
            ["health"] => Ok(Command::Health),
            ["baseline"] => Ok(Command::Baseline),
            ["pause"] => Ok(Command::Pause),
            ["resume"] => Ok(Command::Resume),
            ["restart"] => Ok(Command::Restart),
            ["rate", number] => match number.parse() {
                Ok(rate) if EstimateRate::RANGE_HZ.contains(&rate) => Ok(Command::Rate(rate)),
                _ => Err(format!(
                    "rate {number}: must be a number from 0.1 to 100 estimates a second"
                )),
            },
            _ => Err(format!(
                "unknown command \"{line}\": the commands are ping, rate N, health, baseline, pause, resume, restart"
            )),
        }
    }
}

/// Parses `text` if it looks like a command. Returns the command or the error to answer with, and `None` for a text that gets
/// no answer.
pub fn parse(text: &[u8]) -> Option<Result<Command, String>> {
    let short = text.len() <= MAX_COMMAND_BYTES;
    let text = str::from_utf8(text).ok()?.trim();
    let printable = text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
    let is_answer = text.starts_with('{');
    (printable && !is_answer && !text.is_empty() && short).then(|| text.parse())
}

/// The answer to a command, and the reader it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<R> {
    pub to: R,
    /// `{"ok": …}` or `{"error": "…"}`.
    pub body: Value,
}

/// Executes the commands of one output. `R` tells its readers apart.
#[derive(Debug)]
pub struct CommandProcessor<R> {
    controls: Sender<Control>,
    health: LiveHealth,
    pause: Arc<PauseSwitch>,
    /// The readers that wait until the devices are closed, the first to ask first.
    closing: Vec<Closing<R>>,
    /// The reader that waits for the start of a calibration, and the message of the `fusion` thread.
    baseline: Option<(R, Receiver<()>)>,
    opened: Instant,
}

/// A reader that waits until the devices are closed.
#[derive(Debug)]
struct Closing<R> {
    reader: R,
    asked: Instant,
    /// Whether a restart will keep them closed.
    kept: Result<(), String>,
}

impl<R> CommandProcessor<R> {
    pub fn new(controls: Sender<Control>, health: LiveHealth, pause: Arc<PauseSwitch>) -> CommandProcessor<R> {
        CommandProcessor {
            controls,
            health,
            pause,
            closing: Vec::new(),
            baseline: None,
            opened: Instant::now(),
        }
    }

    /// A processor of an output that was opened then, not now.
    pub fn opened_at(self, opened: Instant) -> CommandProcessor<R> {
        CommandProcessor { opened, ..self }
    }

    /// Executes a command of `reader`. The answers to `baseline` and `pause` come later, from [`CommandProcessor::late_answer`].
    pub fn execute(
        &mut self,
        command: Result<Command, String>,
        reader: R,
        rate: &mut EstimateRate,
    ) -> Option<Answer<R>> {
        let result = match command {
            Ok(Command::Ping) => Ok(json!("pong")),
            Ok(Command::Rate(rate_hz)) => {
                rate.set_hz(rate_hz);
                Ok(json!({ "rate": rate_hz }))
            }
            Ok(Command::Health) => Ok(json!(self.health.report())),
            Ok(Command::Baseline) if self.pause.is_paused() => Err(match self.pause.is_requested() {
                true => "baseline: affectd is paused: send resume first".into(),
                false => "baseline: affectd is paused by privacy.off: wait until these hours are over".into(),
            }),
            Ok(Command::Baseline) => match self.start_baseline() {
                Some(started) => {
                    self.baseline = Some((reader, started));
                    return None;
                }
                None => Err("baseline: busy: ask again in a second".into()),
            },
            // Too many readers may wait for the answer, but nothing keeps a pause from being executed.
            Ok(Command::Pause) => match self.pause.pause() {
                Err(error @ PauseError::NoDevices) => Err(format!("pause: {error}")),
                _ if self.closing.len() >= MAX_WAITING => Err(
                    "pause: the devices are being closed, but too many readers wait for that: see camera and microphone in health"
                        .into(),
                ),
                kept => {
                    info!("a reader requested a pause");
                    self.closing.push(Closing {
                        reader,
                        asked: Instant::now(),
                        kept: kept.map_err(|error| format!("pause: {error}")),
                    });
                    return None;
                }
            },
            Ok(Command::Resume) => {
                info!("a reader requested to resume");
                let resumed = self.pause.resume().map(|()| json!("resume"));
                resumed.map_err(|error| format!("resume: {error}"))
            }
            Ok(Command::Restart) => self.restart().map(|()| json!("restart")),
            Err(why) => Err(why),
        };
        Some(Answer::new(reader, result))
    }

    fn start_baseline(&self) -> Option<Receiver<()>> {
        if self.baseline.is_some() {
            return None;
        }
        let (started, from_fusion) = bounded(1);
        let request = Control::StartBaseline { started };
        self.controls.try_send(request).ok().map(|()| from_fusion)
    }

    fn restart(&self) -> Result<(), String> {
        let left = MIN_UPTIME.saturating_sub(self.opened.elapsed());
        if !left.is_zero() {
            let seconds = left.as_secs() + 1;
            return Err(format!("restart: affectd has just started: ask again in {seconds} s"));
        }
        let busy = |_| "restart: busy: ask again in a second".to_owned();
        self.controls.try_send(Control::Restart).map_err(busy)
    }

    /// The next answer to a command that took its time.
    pub fn late_answer(&mut self) -> Option<Answer<R>> {
        self.answer_to_pause().or_else(|| self.answer_to_baseline())
    }

    /// The answer to the first `pause`, once the devices are closed.
    fn answer_to_pause(&mut self) -> Option<Answer<R>> {
        let first = self.closing.first()?;
        let result = match self.health.device_in_use() {
            _ if !self.pause.is_paused() => Err("pause: resumed before the devices were closed".to_owned()),
            None => Ok(()),
            Some(device) if first.asked.elapsed() >= CLOSE_TIMEOUT => Err(format!(
                "pause: the {device} is still open, stuck in its driver: unplug it, or restart the board"
            )),
            Some(_) => return None,
        };
        let Closing { reader, kept, .. } = self.closing.remove(0);
        Some(Answer::new(reader, result.and(kept).map(|()| json!("pause"))))
    }

    /// The answer to `baseline`, once the `fusion` thread has sent it.
    fn answer_to_baseline(&mut self) -> Option<Answer<R>> {
        let (_, from_fusion) = self.baseline.as_ref()?;
        let result = match from_fusion.try_recv() {
            Ok(()) => Ok(json!("baseline")),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => {
                Err("baseline: affectd is stopping: ask again after it has restarted".into())
            }
        };
        let (reader, _) = self.baseline.take()?;
        Some(Answer::new(reader, result))
    }
}

impl<R> Answer<R> {
    fn new(to: R, result: Result<Value, String>) -> Answer<R> {
        let body = match result {
            Ok(value) => json!({ "ok": value }),
            Err(why) => json!({ "error": why }),
        };
        Answer { to, body }
    }
}

/// Finds commands in a stream of bytes.
#[derive(Debug, Default)]
pub struct CommandReader {
    line: Vec<u8>,
}

impl CommandReader {
    /// Reads the next byte. If it ends a line that looks like a command, returns the command or the error to answer with.
    pub fn push(&mut self, byte: u8) -> Option<Result<Command, String>> {
        if !matches!(byte, b'\n' | b'\r') {
            // One byte more than the limit is kept, to see that the line is too long.
            if self.line.len() <= MAX_COMMAND_BYTES {
                self.line.push(byte);
            }
            return None;
        }
        let parsed = parse(&self.line);
        self.line.clear();
        parsed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::health::{Health, SourceState, count};
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Vec<Result<Command, String>> {
        let mut commands = CommandReader::default();
        bytes.iter().filter_map(|b| commands.push(*b)).collect()
    }

    #[test]
    fn all_commands_are_read_with_any_line_end() {
        let all = [
            Ok(Command::Ping),
            Ok(Command::Rate(2.5)),
            Ok(Command::Health),
            Ok(Command::Baseline),
            Ok(Command::Pause),
            Ok(Command::Resume),
            Ok(Command::Restart),
        ];
        assert_eq!(read(b"ping\nrate 2.5\nhealth\nbaseline\npause\nresume\nrestart\n"), all);
        assert_eq!(
            read(b"ping\r\n rate\t2.5 \r\nhealth\r\nbaseline\r\npause\r\nresume\r\nrestart\r\n"),
            all
        );
    }

    #[test]
    fn errors_name_the_valid_commands_and_values() {
        insta::assert_snapshot!(read(b"pong\n")[0].as_ref().unwrap_err(), @r#"unknown command "pong": the commands are ping, rate N, health, baseline, pause, resume, restart"#);
        insta::assert_snapshot!(read(b"rate 0\n")[0].as_ref().unwrap_err(), @"rate 0: must be a number from 0.1 to 100 estimates a second");
        insta::assert_snapshot!(read(b"rate NaN\n")[0].as_ref().unwrap_err(), @"rate NaN: must be a number from 0.1 to 100 estimates a second");
    }

    fn processor() -> (CommandProcessor<u8>, Receiver<Control>, EstimateRate) {
        let (controls, requests) = bounded(1);
        let processor = CommandProcessor::new(controls, LiveHealth::default(), Arc::default());
        (processor, requests, EstimateRate::default())
    }

    #[test]
    fn the_answer_to_baseline_comes_when_the_calibration_starts() {
        let (mut processor, requests, mut rate) = processor();
        assert_eq!(processor.execute(Ok(Command::Baseline), 1, &mut rate), None);
        let busy = processor.execute(Ok(Command::Baseline), 2, &mut rate).unwrap();
        assert_eq!(
            busy,
            Answer {
                to: 2,
                body: json!({ "error": "baseline: busy: ask again in a second" })
            }
        );
        assert_eq!(processor.late_answer(), None);
        let Ok(Control::StartBaseline { started }) = requests.try_recv() else {
            panic!("no request")
        };
        started.send(()).unwrap();
        let answer = Answer {
            to: 1,
            body: json!({ "ok": "baseline" }),
        };
        assert_eq!(processor.late_answer(), Some(answer));
        assert_eq!(processor.late_answer(), None);
    }

    #[test]
    fn restart_is_refused_just_after_the_start() {
        let (mut processor, requests, mut rate) = processor();
        let answer = processor.execute(Ok(Command::Restart), 1, &mut rate).unwrap();
        insta::assert_snapshot!(answer.body["error"].as_str().unwrap(), @"restart: affectd has just started: ask again in 10 s");
        assert!(requests.is_empty());
        processor.opened -= MIN_UPTIME;
        let answer = processor.execute(Ok(Command::Restart), 1, &mut rate).unwrap();
        assert_eq!(answer.body, json!({ "ok": "restart" }));
        assert!(matches!(requests.try_recv(), Ok(Control::Restart)));
    }

    /// A processor of a daemon with a running camera.
    fn with_camera(pause: PauseSwitch) -> (CommandProcessor<u8>, Arc<Health>) {
        let health = Arc::<Health>::default();
        health.camera.set(SourceState::Running, None);
        let live = LiveHealth::of(Arc::clone(&health));
        (CommandProcessor::new(bounded(1).0, live, Arc::new(pause)), health)
    }

    #[test]
    fn pause_is_answered_when_the_devices_are_closed() {
        let (mut processor, health) = with_camera(PauseSwitch::default());
        let mut rate = EstimateRate::default();
        assert_eq!(processor.execute(Ok(Command::Pause), 1, &mut rate), None);
        assert_eq!(processor.execute(Ok(Command::Pause), 2, &mut rate), None);
        assert!(processor.pause.is_paused());
        assert_eq!(processor.late_answer(), None);
        health.camera.set(SourceState::Paused, None);
        for to in [1, 2] {
            let body = json!({ "ok": "pause" });
            assert_eq!(processor.late_answer(), Some(Answer { to, body }));
        }
        assert_eq!(processor.late_answer(), None);
        let answer = processor.execute(Ok(Command::Baseline), 1, &mut rate).unwrap();
        assert_eq!(
            answer.body,
            json!({ "error": "baseline: affectd is paused: send resume first" })
        );
        let answer = processor.execute(Ok(Command::Resume), 1, &mut rate).unwrap();
        assert_eq!(answer.body, json!({ "ok": "resume" }));
        assert!(!processor.pause.is_paused());
    }

    #[test]
    fn a_pause_that_did_not_close_the_devices_is_an_error() {
        let (mut processor, _health) = with_camera(PauseSwitch::default());
        let mut rate = EstimateRate::default();
        processor.execute(Ok(Command::Pause), 1, &mut rate);
        processor.execute(Ok(Command::Resume), 2, &mut rate);
        let answer = processor.late_answer().unwrap();
        insta::assert_snapshot!(answer.body["error"].as_str().unwrap(), @"pause: resumed before the devices were closed");
        processor.execute(Ok(Command::Pause), 1, &mut rate);
        processor.closing[0].asked -= CLOSE_TIMEOUT;
        let answer = processor.late_answer().unwrap();
        insta::assert_snapshot!(answer.body["error"].as_str().unwrap(), @"pause: the camera is still open, stuck in its driver: unplug it, or restart the board");
    }

    #[test]
    fn a_pause_is_executed_however_many_readers_wait_for_one() {
        let (mut processor, _health) = with_camera(PauseSwitch::default());
        let mut rate = EstimateRate::default();
        for reader in 0..4 {
            assert_eq!(processor.execute(Ok(Command::Pause), reader, &mut rate), None);
        }
        processor.execute(Ok(Command::Resume), 5, &mut rate);
        let answer = processor.execute(Ok(Command::Pause), 6, &mut rate).unwrap();
        insta::assert_snapshot!(answer.body["error"].as_str().unwrap(), @"pause: the devices are being closed, but too many readers wait for that: see camera and microphone in health");
        assert!(processor.pause.is_paused());
    }

    #[test]
    fn a_clip_is_not_paused() {
        let (mut processor, _health) = with_camera(PauseSwitch::of_clip());
        let mut rate = EstimateRate::default();
        for (command, name) in [(Command::Pause, "pause"), (Command::Resume, "resume")] {
            let now = processor.execute(Ok(command), 1, &mut rate);
            let answer = now.or_else(|| processor.late_answer()).unwrap();
            let error = format!("{name}: {}", PauseError::NoDevices);
            assert_eq!(answer.body, json!({ "error": error }));
        }
    }

    #[test]
    fn rate_changes_the_rate_of_this_output() {
        let (mut processor, _requests, mut rate) = processor();
        let answer = processor.execute(Ok(Command::Rate(2.5)), 1, &mut rate).unwrap();
        assert_eq!(answer.body, json!({ "ok": { "rate": 2.5 } }));
        assert_eq!(rate.hz(), Some(2.5));
    }

    #[test]
    fn health_is_that_of_now() {
        let (mut processor, _requests, mut rate) = processor();
        let counters = Arc::<Health>::default();
        processor.health = LiveHealth::of(Arc::clone(&counters));
        let mut estimates = || {
            let answer = processor.execute(Ok(Command::Health), 1, &mut rate).unwrap();
            answer.body["ok"]["estimates"].clone()
        };
        assert_eq!(estimates(), 0);
        count(&counters.estimates);
        assert_eq!(estimates(), 1);
    }

    #[test]
    fn an_echo_of_our_messages_is_not_answered() {
        assert_eq!(read(b"{\"schema\":1}\n{\"error\":\"unknown command\"}\n\n\r\n"), []);
    }

    proptest! {
        #[test]
        fn after_any_noise_the_next_command_is_read(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut stream = noise;
            stream.extend_from_slice(b"\nping\n");
            prop_assert_eq!(read(&stream).pop(), Some(Ok(Command::Ping)));
        }

        #[test]
        fn bytes_that_are_not_text_are_not_answered(noise in prop::collection::vec(0x80..=0xFFu8, 1..300)) {
            let stream = [&noise[..], b"\n"].concat();
            prop_assert_eq!(read(&stream), []);
        }
    }
}
