//! Commands accepted on the serial line: a word, for some commands a number, and a line end.
//!
//! A serial line may carry anything: noise while a cable is plugged in, a login prompt, an echo of our own lines. So affectd
//! answers a line only if it is short, is printable text and does not begin like an answer. It never answers its own echo.

use std::str::FromStr;

/// The longest command, in bytes. Longer lines are ignored.
const MAX_COMMAND_BYTES: usize = 64;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Command {
    /// Answer `pong`.
    Ping,
    /// Send this many estimates a second on this line, from 0.1 to 100.
    Rate(f64),
    /// Send the newest health report.
    Health,
    /// Use the next ten seconds as the person's neutral state.
    Baseline,
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["ping"] => Ok(Command::Ping),
            ["health"] => Ok(Command::Health),
            ["baseline"] => Ok(Command::Baseline),
            ["rate", number] => match number.parse() {
                Ok(rate) if (0.1..=100.0).contains(&rate) => Ok(Command::Rate(rate)),
                _ => Err(format!(
                    "rate {number}: must be a number from 0.1 to 100 estimates a second"
                )),
            },
            _ => Err(format!(
                "unknown command \"{line}\": the commands are ping, rate N, health, baseline"
            )),
        }
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
        let parsed = command_text(&self.line).map(str::parse);
        self.line.clear();
        parsed
    }
}

/// The text of a line that looks like a command.
fn command_text(line: &[u8]) -> Option<&str> {
    let text = str::from_utf8(line).ok()?.trim();
    let printable = text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
    let is_answer = text.starts_with('{');
    (printable && !is_answer && !text.is_empty() && line.len() <= MAX_COMMAND_BYTES).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        ];
        assert_eq!(read(b"ping\nrate 2.5\nhealth\nbaseline\n"), all);
        assert_eq!(read(b"ping\r\n rate\t2.5 \r\nhealth\r\nbaseline\r\n"), all);
    }

    #[test]
    fn errors_name_the_valid_commands_and_values() {
        insta::assert_snapshot!(read(b"pong\n")[0].as_ref().unwrap_err(), @r#"unknown command "pong": the commands are ping, rate N, health, baseline"#);
        insta::assert_snapshot!(read(b"rate 0\n")[0].as_ref().unwrap_err(), @"rate 0: must be a number from 0.1 to 100 estimates a second");
        insta::assert_snapshot!(read(b"rate NaN\n")[0].as_ref().unwrap_err(), @"rate NaN: must be a number from 0.1 to 100 estimates a second");
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
