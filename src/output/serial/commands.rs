//! What whoever reads a serial line may say on it: a word, perhaps a number, a line end.
//!
//! A line may carry anything: noise while a plug goes in, a login prompt, our own lines sent back by an echo. So a line is
//! answered only if it is short and readable and does not look like an answer; an echo cannot start a conversation.

use std::str::FromStr;

/// Longer lines are not commands.
const LONGEST: usize = 64;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Command {
    /// Is anybody there?
    Ping,
    /// Thin this line out to so many estimates a second.
    Rate(f64),
    /// The newest health record.
    Health,
    /// Take the coming seconds as the person's neutral.
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
                    "rate {number}: give a number from 0.1 to 100 estimates a second"
                )),
            },
            _ => Err(format!(
                "no command \"{line}\": there is ping, rate N, health, baseline"
            )),
        }
    }
}

/// Finds commands in what comes in.
#[derive(Debug, Default)]
pub struct Commands {
    line: Vec<u8>,
}

impl Commands {
    /// Takes in the next byte; gives what the line it ends says, if it was meant to say something.
    pub fn push(&mut self, byte: u8) -> Option<Result<Command, String>> {
        if !matches!(byte, b'\n' | b'\r') {
            // One byte too many is enough to know that there were too many.
            if self.line.len() <= LONGEST {
                self.line.push(byte);
            }
            return None;
        }
        let parsed = readable(&self.line).map(str::parse);
        self.line.clear();
        parsed
    }
}

fn readable(line: &[u8]) -> Option<&str> {
    let text = str::from_utf8(line).ok()?.trim();
    let plain = text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
    let ours = text.starts_with('{');
    (plain && !ours && !text.is_empty() && line.len() <= LONGEST).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hear(bytes: &[u8]) -> Vec<Result<Command, String>> {
        let mut commands = Commands::default();
        bytes.iter().filter_map(|b| commands.push(*b)).collect()
    }

    #[test]
    fn every_command_whatever_the_line_end() {
        let all = [
            Ok(Command::Ping),
            Ok(Command::Rate(2.5)),
            Ok(Command::Health),
            Ok(Command::Baseline),
        ];
        assert_eq!(hear(b"ping\nrate 2.5\nhealth\nbaseline\n"), all);
        assert_eq!(hear(b"ping\r\n rate\t2.5 \r\nhealth\r\nbaseline\r\n"), all);
    }

    #[test]
    fn what_is_wrong_with_a_command_is_said() {
        insta::assert_snapshot!(hear(b"pong\n")[0].as_ref().unwrap_err(), @r#"no command "pong": there is ping, rate N, health, baseline"#);
        insta::assert_snapshot!(hear(b"rate 0\n")[0].as_ref().unwrap_err(), @"rate 0: give a number from 0.1 to 100 estimates a second");
        insta::assert_snapshot!(hear(b"rate NaN\n")[0].as_ref().unwrap_err(), @"rate NaN: give a number from 0.1 to 100 estimates a second");
    }

    #[test]
    fn an_echo_of_what_we_said_is_not_answered() {
        assert_eq!(hear(b"{\"schema\":1}\n{\"error\":\"no command\"}\n\n\r\n"), []);
    }

    proptest! {
        #[test]
        fn after_any_noise_the_next_line_is_understood(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut stream = noise;
            stream.extend_from_slice(b"\nping\n");
            prop_assert_eq!(hear(&stream).pop(), Some(Ok(Command::Ping)));
        }

        #[test]
        fn what_is_not_text_is_not_answered(noise in prop::collection::vec(0x80..=0xFFu8, 1..300)) {
            let stream = [&noise[..], b"\n"].concat();
            prop_assert_eq!(hear(&stream), []);
        }
    }
}
