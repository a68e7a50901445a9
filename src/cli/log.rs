//! The log on standard error: with a time and colours in a terminal, with priorities for the systemd journal.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, Record};

use super::environment::Environment;
use super::stderr::Stderr;
use crate::printable::printable;
use crate::secrets::without_passwords;

/// Dependencies that log a lot, and their level. rumqttc logs each denied message and each packet that it did not expect, as often as
/// the broker sends them; affectd itself says both, a few times a minute. `AFFECTD_LOG` can name them.
const TALKATIVE: &[(&str, &str)] = &[("tract", "warn"), ("rustls", "warn"), ("rumqttc", "off")];

/// Starts the log. `own_values` are the arguments and variables that a line may quote.
pub fn init(environment: &Environment, own_values: Vec<String>) {
    let to_journal = environment.journal_stream.as_deref().is_some_and(is_stderr);
    let style = match io::stderr().is_terminal() && environment.has_colors() {
        true => WriteStyle::Always,
        false => WriteStyle::Never,
    };
    Builder::new()
        .parse_filters(&filters(&environment.log))
        .target(Target::Pipe(Box::new(Stderr::default())))
        .write_style(style)
        .format(move |line, record| {
            let message = message(record, &own_values);
            if to_journal {
                return writeln!(line, "<{}>{}{message}", priority(record.level()), prefix(record));
            }
            let (time, level) = (line.timestamp(), record.level());
            let style = line.default_level_style(level);
            writeln!(
                line,
                "[{time} {style}{level:<5}{style:#} {}] {message}",
                record.target()
            )
        })
        .init();
}

/// The text of a line. Every line passes here, also those of dependencies: it shows no password, and does not control the terminal.
fn message(record: &Record, own_values: &[String]) -> String {
    let text = record.args().to_string();
    let masked = without_passwords(&text, own_values.iter().map(String::as_str));
    printable(&masked).into_owned()
}

/// The levels of the user, and quiet dependencies unless the user names them.
fn filters(levels: &str) -> String {
    let mut filters = levels.to_owned();
    for (dependency, level) in TALKATIVE {
        if !levels.contains(dependency) {
            filters.push_str(&format!(",{dependency}={level}"));
        }
    }
    filters
}

/// Whether `JOURNAL_STREAM`, the device and inode of a socket of the journal, is standard error. It is not if standard error is
/// redirected.
fn is_stderr(journal_stream: &str) -> bool {
    // SAFETY: `stat` is plain data for which all-zero bytes are valid, and the pointer is to this live variable.
    let known = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(io::stderr().as_fd().as_raw_fd(), &mut stat) == 0).then_some(stat)
    };
    known.is_some_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == journal_stream)
}

/// The priority of a line in the journal, see sd-daemon(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The module, for messages that do not come from affectd itself.
fn prefix(record: &Record) -> String {
    match record.target().starts_with("affectd") {
        true => String::new(),
        false => format!("{}: ", record.target()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_shows_a_password() {
        let own_values = ["rtsp://bob:my secret@cam".to_owned()];
        for level in Level::iter() {
            for target in [
                "affectd::daemon",
                "rumqttc_v4_next::state",
                "rustls::conn",
                "tract_core",
            ] {
                let line = |text: std::fmt::Arguments| {
                    let record = Record::builder().level(level).target(target).args(text).build();
                    message(&record, &own_values)
                };
                let url = "mqtt://li:hunter2@b/x";
                assert_eq!(line(format_args!("{url}: gone")), "mqtt://li:…@b/x: gone");
                let debug = line(format_args!("Connect {{ url: {url:?}, retry: true }}"));
                assert_eq!(debug, r#"Connect { url: "mqtt://li:…@b/x", retry: true }"#);
                assert_eq!(
                    line(format_args!("camera absent: rtsp://bob:my secret@cam: 401\u{1b}")),
                    r"camera absent: rtsp://bob:…@cam: 401\u{1b}"
                );
            }
        }
    }

    #[test]
    fn dependencies_are_quiet_unless_the_user_names_them() {
        assert_eq!(filters("debug"), "debug,tract=warn,rustls=warn,rumqttc=off");
        assert_eq!(filters("info,tract=debug"), "info,tract=debug,rustls=warn,rumqttc=off");
    }
}
