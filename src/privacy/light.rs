//! A light that shows when a camera or a microphone may be open: an LED of the board.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::warn;

/// Switches an LED on before the first device is opened, and off after the last one is closed.
#[derive(Debug, Default)]
pub struct CaptureLight {
    /// `None` if the configuration has none.
    led: Option<Led>,
    /// The number of devices that are open or being opened.
    in_use: Mutex<usize>,
}

#[derive(Debug)]
struct Led {
    folder: PathBuf,
    /// What to write to `brightness` to switch it on.
    on: String,
}

/// What to do with what a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    AsItIs,
    Empty,
}

/// The light is on while this exists.
#[derive(Debug)]
pub struct InUse<'a>(&'a CaptureLight);

/// The thing, the reason, the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("privacy.light = {}: {reason}", .folder.display())]
pub struct LightError {
    folder: PathBuf,
    reason: String,
}

impl CaptureLight {
    /// Takes the LED in `folder`, such as `/sys/class/leds/ACT`, from its trigger and switches it off.
    pub fn open(folder: Option<&Path>) -> Result<CaptureLight, LightError> {
        let led = folder.map(Led::open).transpose()?;
        Ok(CaptureLight {
            led,
            in_use: Mutex::new(0),
        })
    }

    /// Whether the LED in `folder` can be switched. Leaves it as it is.
    pub fn check(folder: &Path) -> Result<(), LightError> {
        let led = Led::find(folder)?;
        led.has_trigger()?;
        led.file("brightness", Open::AsItIs).map(drop)
    }

    /// Switches the light on. A device must not be opened if this fails.
    pub fn switch_on(&self) -> Result<InUse<'_>, LightError> {
        let mut in_use = self.in_use();
        // Also if it should be on already: its trigger may have come back, or the LED may be gone.
        if let Some(led) = &self.led {
            led.take_and_write(&led.on)?;
        }
        *in_use += 1;
        Ok(InUse(self))
    }

    fn in_use(&self) -> MutexGuard<'_, usize> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut in_use = self.0.in_use();
        *in_use -= 1;
        if *in_use == 0
            && let Some(led) = &self.0.led
            && let Err(error) = led.take_and_write("0")
        {
            warn!("{error}");
        }
    }
}

impl Led {
    fn open(folder: &Path) -> Result<Led, LightError> {
        let led = Led::find(folder)?;
        led.take_and_write("0")?;
        Ok(led)
    }

    /// The LED, as it is.
    fn find(folder: &Path) -> Result<Led, LightError> {
        let max = fs::read_to_string(folder.join("max_brightness")).unwrap_or_default();
        let on = match max.trim() {
            "" => "1".to_owned(),
            max => max.to_owned(),
        };
        match on.bytes().all(|digit| digit == b'0') {
            false => Ok(Led {
                folder: folder.to_path_buf(),
                on,
            }),
            true => Err(LightError {
                folder: folder.to_path_buf(),
                reason: "cannot be switched on (its max_brightness is 0): choose another LED".to_owned(),
            }),
        }
    }

    /// Another program may have given the LED a trigger again, which would switch it.
    fn take_and_write(&self, brightness: &str) -> Result<(), LightError> {
        if self.has_trigger()? {
            self.write("trigger", "none")?;
        }
        self.write("brightness", brightness)
    }

    /// Whether something else switches the LED. Fails if it does and the trigger cannot be changed.
    fn has_trigger(&self) -> Result<bool, LightError> {
        let triggers = fs::read_to_string(self.folder.join("trigger"));
        if triggers.is_ok_and(|triggers| !triggers.contains("[none]")) {
            return self.file("trigger", Open::AsItIs).map(|_| true);
        }
        Ok(false)
    }

    fn write(&self, name: &str, value: &str) -> Result<(), LightError> {
        let written = self.file(name, Open::Empty)?.write_all(value.as_bytes());
        written.map_err(|error| self.error(name, &error))
    }

    /// Opens a file of the LED for writing. It is not created: a folder that is no LED must stay as it is. Does not wait for a reader,
    /// if it is a named pipe.
    fn file(&self, name: &str, open: Open) -> Result<fs::File, LightError> {
        let file = fs::OpenOptions::new()
            .write(true)
            .truncate(open == Open::Empty)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.folder.join(name));
        file.map_err(|error| self.error(name, &error))
    }

    fn error(&self, file: &str, error: &io::Error) -> LightError {
        LightError {
            folder: self.folder.clone(),
            reason: match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    "there is no such LED: ls /sys/class/leds lists them".to_owned()
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
                    "its file {file} cannot be written ({error}): run sudo systemctl daemon-reload && sudo systemctl restart affectd, \
                     or give the user of affectd write access to it"
                ),
                _ => format!("its file {file} cannot be written ({error}): choose another LED"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as the kernel has it.
    fn led(trigger: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [("brightness", "7"), ("max_brightness", "255\n"), ("trigger", trigger)] {
            fs::write(folder.path().join(name), value).unwrap();
        }
        folder
    }

    fn read(folder: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(folder.path().join(name)).unwrap()
    }

    /// Plain files keep what was there before, unlike those of the kernel.
    fn clear(folder: &tempfile::TempDir) {
        fs::write(folder.path().join("brightness"), "").unwrap();
    }

    #[test]
    fn the_light_is_on_while_any_device_is_in_use() {
        let folder = led("[none] timer heartbeat");
        clear(&folder);
        let light = CaptureLight::open(Some(folder.path())).unwrap();
        assert_eq!(read(&folder, "brightness"), "0");
        clear(&folder);
        CaptureLight::check(folder.path()).unwrap();
        assert_eq!(read(&folder, "brightness"), "");
        let camera = light.switch_on().unwrap();
        assert_eq!(read(&folder, "brightness"), "255");
        clear(&folder);
        let microphone = light.switch_on().unwrap();
        assert_eq!(read(&folder, "brightness"), "255");
        clear(&folder);
        drop(camera);
        assert_eq!(read(&folder, "brightness"), "");
        drop(microphone);
        assert_eq!(read(&folder, "brightness"), "0");
        assert_eq!(read(&folder, "trigger"), "[none] timer heartbeat");
    }

    #[test]
    fn the_led_is_taken_from_its_trigger() {
        let folder = led("none timer [mmc0]");
        CaptureLight::open(Some(folder.path())).unwrap();
        assert!(read(&folder, "trigger").starts_with("none"));
    }

    #[test]
    fn an_led_that_cannot_be_written_is_an_error_and_opens_no_device() {
        let folder = led("[none]");
        let light = CaptureLight::open(Some(folder.path())).unwrap();
        fs::remove_file(folder.path().join("brightness")).unwrap();
        assert!(light.switch_on().is_err());
        let error = CaptureLight::open(Some(Path::new("/sys/class/leds/none-such"))).unwrap_err();
        insta::assert_snapshot!(error, @"privacy.light = /sys/class/leds/none-such: there is no such LED: ls /sys/class/leds lists them");
        assert!(CaptureLight::check(folder.path()).is_err());
        fs::write(folder.path().join("max_brightness"), "0\n").unwrap();
        for error in [
            CaptureLight::open(Some(folder.path())).err(),
            CaptureLight::check(folder.path()).err(),
        ] {
            assert!(
                error
                    .unwrap()
                    .reason
                    .starts_with("cannot be switched on (its max_brightness is 0)")
            );
        }
        assert!(CaptureLight::open(None).unwrap().switch_on().is_ok());
    }
}
