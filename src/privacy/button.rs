//! A push button on a GPIO line, which pauses and resumes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::{Bias, EdgeDetection, Offset};
use gpiocdev_uapi::{Errno, Error as CallError};

/// Contacts bounce for less than this. A press that is shorter does not count.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Where a button is connected, such as `gpiochip0:17`: between the line and ground, or, with `?active=high`, between the line and the
/// supply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ButtonLine {
    chip: PathBuf,
    offset: Offset,
    active: Active,
}

/// The level of the line while the button is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Active {
    Low,
    High,
}

/// A button that is watched.
#[derive(Debug)]
pub struct Button {
    line: ButtonLine,
    request: Request,
}

/// The thing, the reason, the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("privacy.button = {line}: {reason}")]
pub struct ButtonError {
    line: String,
    reason: String,
}

impl FromStr for ButtonLine {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ButtonLine, &'static str> {
        const FORM: &str =
            "must be a chip and the number of its line, for example gpiochip0:17, or gpiochip0:17?active=high";
        let (place, active) = match text.split_once('?') {
            None | Some((_, "active=low")) => (text.split('?').next().unwrap_or_default(), Active::Low),
            Some((place, "active=high")) => (place, Active::High),
            Some(_) => return Err(FORM),
        };
        let (chip, offset) = place.split_once(':').ok_or(FORM)?;
        let name = chip.strip_prefix("/dev/").unwrap_or(chip);
        let number = name.strip_prefix("gpiochip").ok_or(FORM)?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(number) || !is_number(offset) {
            return Err(FORM);
        }
        Ok(ButtonLine {
            chip: Path::new("/dev").join(name),
            offset: offset.parse().map_err(|_| FORM)?,
            active,
        })
    }
}

impl fmt::Display for ButtonLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.chip.display(), self.offset)?;
        match self.active {
            Active::Low => Ok(()),
            Active::High => f.write_str("?active=high"),
        }
    }
}

impl ButtonLine {
    /// Takes the line from the kernel. Nothing else can use it then.
    pub fn open(&self) -> Result<Button, ButtonError> {
        let mut builder = Request::builder();
        builder
            .on_chip(&self.chip)
            .with_consumer("affectd")
            .with_line(self.offset)
            .as_input()
            .with_edge_detection(EdgeDetection::RisingEdge)
            .with_debounce_period(DEBOUNCE);
        // An open contact must have a level, too.
        match self.active {
            Active::Low => builder.as_active_low().with_bias(Bias::PullUp),
            Active::High => builder.as_active_high().with_bias(Bias::PullDown),
        };
        let request = builder.request().map_err(|error| self.error(&error))?;
        Ok(Button {
            line: self.clone(),
            request,
        })
    }

    fn error(&self, error: &gpiocdev::Error) -> ButtonError {
        let number = match error {
            gpiocdev::Error::Os(Errno(number)) | gpiocdev::Error::Uapi(_, CallError::Os(Errno(number))) => *number,
            _ => 0,
        };
        let reason = match number {
            _ if !self.chip.exists() => "there is no such chip: ls /dev/gpiochip* lists them".to_owned(),
            libc::EACCES | libc::EPERM => {
                "not allowed: run sudo systemctl daemon-reload && sudo systemctl restart affectd, or give the \
                                           user of affectd access to the chip (group gpio)"
                    .to_owned()
            }
            libc::EBUSY => {
                "the line is in use: choose another (gpioinfo shows them), or end the program that uses it".to_owned()
            }
            libc::EINVAL => "the chip has no such line: gpioinfo shows them".to_owned(),
            _ => format!("cannot be used ({error}): choose another line (gpioinfo shows them)"),
        };
        ButtonError {
            line: self.to_string(),
            reason,
        }
    }
}

impl Button {
    /// Waits for a press, for at most `timeout`. Returns whether there was one.
    pub fn wait(&self, timeout: Duration) -> Result<bool, ButtonError> {
        let wait = || -> gpiocdev::Result<bool> {
            let is_pressed = self.request.wait_edge_event(timeout)?;
            if is_pressed {
                self.request.read_edge_event()?;
            }
            Ok(is_pressed)
        };
        wait().map_err(|error| self.line.error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_chip_and_a_number() {
        for (text, shown) in [
            ("gpiochip0:17", "/dev/gpiochip0:17"),
            ("/dev/gpiochip12:3?active=low", "/dev/gpiochip12:3"),
            ("gpiochip0:17?active=high", "/dev/gpiochip0:17?active=high"),
        ] {
            let line: ButtonLine = text.parse().unwrap();
            assert_eq!(line.to_string(), shown);
            assert_eq!(shown.parse(), Ok(line));
        }
        for text in [
            "",
            "17",
            "GPIO17",
            "gpiochip:1",
            "gpiochip0",
            "gpiochip0:",
            "gpiochip0:-1",
            "gpiochip0:99999999999",
            "gpiochip0:1?active=up",
            "/dev/../etc/gpiochip0:1",
            "gpiochip0/../x:1",
        ] {
            assert!(text.parse::<ButtonLine>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chip_that_is_absent_is_named() {
        let line: ButtonLine = "gpiochip987:1".parse().unwrap();
        insta::assert_snapshot!(line.open().unwrap_err(), @"privacy.button = /dev/gpiochip987:1: there is no such chip: ls /dev/gpiochip* lists them");
    }
}
