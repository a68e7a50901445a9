//! Commands on a serial line. The reader finds the same as a split at the line ends. affectd does not take its own answers for commands.

use affectd::control::Control;
use affectd::health::LiveHealth;
use affectd::output::commands::{Command, CommandProcessor, CommandReader, MAX_COMMAND_BYTES, parse};
use crossbeam_channel::bounded;

pub fn check(data: &[u8]) {
    let found = read(data);
    let mut lines: Vec<&[u8]> = data.split(|byte| matches!(byte, b'\n' | b'\r')).collect();
    // The last line has no end yet.
    lines.pop();
    let short = lines.into_iter().filter(|line| line.len() <= MAX_COMMAND_BYTES);
    assert_eq!(found, short.filter_map(parse).collect::<Vec<_>>());

    let (controls, requests) = bounded(1);
    let mut processor = CommandProcessor::new(controls, LiveHealth::default(), Default::default());
    let mut rate = Default::default();
    for command in found {
        if let Ok(Command::Rate(rate_hz)) = command {
            assert!((0.1..=100.0).contains(&rate_hz), "{rate_hz}");
        }
        let now = processor.execute(command, (), &mut rate);
        if let Ok(Control::StartBaseline { started }) = requests.try_recv() {
            started.send(()).expect("the processor waits for it");
        }
        for answer in now.into_iter().chain(processor.late_answer()) {
            let line = answer.body.to_string();
            // An answer quotes its command.
            assert!(
                line.len() <= 512 && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{line:?}"
            );
            assert_eq!(read(format!("{line}\r\n").as_bytes()), [], "an answer is a command");
        }
    }
}

fn read(data: &[u8]) -> Vec<Result<Command, String>> {
    let mut reader = CommandReader::default();
    data.iter().filter_map(|byte| reader.push(*byte)).collect()
}
