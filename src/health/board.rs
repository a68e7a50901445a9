//! Whether the board has enough power, and whether it runs slower than it could.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bits of the firmware of a Raspberry Pi: the voltage is low; the clock is capped, throttled, or lowered at a temperature below
/// the limit.
const UNDER_VOLTAGE: u32 = 1;
const SLOWED_DOWN: u32 = 1 << 1 | 1 << 2 | 1 << 3;

/// What the board says about itself; `None` for what it does not say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct BoardState {
    /// The voltage of the power supply is too low.
    pub low_voltage: Option<bool>,
    /// The processor is slowed down, because it is hot or the voltage is low.
    pub throttled: Option<bool>,
}

impl BoardState {
    /// Reads the state from the files in `sysfs`, which is `/sys` except in tests.
    pub fn read(sysfs: &Path) -> BoardState {
        let firmware = firmware_flags(sysfs);
        let has = |bits| firmware.map(|flags| flags & bits != 0);
        BoardState {
            low_voltage: either(voltage_alarm(sysfs), has(UNDER_VOLTAGE)),
            throttled: either(clock_limit(sysfs), has(SLOWED_DOWN)),
        }
    }
}

/// The newest state, for all threads.
#[derive(Debug, Default)]
pub struct SharedBoardState(Mutex<BoardState>);

impl SharedBoardState {
    pub fn get(&self) -> BoardState {
        *self.lock()
    }

    pub fn set(&self, state: BoardState) {
        *self.lock() = state;
    }

    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    one.into_iter().chain(other).reduce(|a, b| a || b)
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The kernel's voltage sensor on a Raspberry Pi. It asks the firmware every two seconds whether the voltage was low since then.
fn voltage_alarm(sysfs: &Path) -> Option<bool> {
    let sensors = fs::read_dir(sysfs.join("class/hwmon")).ok()?.flatten();
    let mut alarms = sensors
        .map(|sensor| sensor.path())
        .filter(|sensor| text(&sensor.join("name")).as_deref() == Some("rpi_volt"))
        .filter_map(|sensor| text(&sensor.join("in0_lcrit_alarm")));
    alarms.next().map(|alarm| alarm != "0")
}

/// The flags of a Raspberry Pi's firmware, a hexadecimal number. Only the kernel of Raspberry Pi OS has this file.
fn firmware_flags(sysfs: &Path) -> Option<u32> {
    let flags = text(&sysfs.join("devices/platform/soc/soc:firmware/get_throttled"))?;
    u32::from_str_radix(&flags, 16).ok()
}

/// Whether the kernel limits the processor's clock to cool it. State 0 is no limit.
fn clock_limit(sysfs: &Path) -> Option<bool> {
    let devices = fs::read_dir(sysfs.join("class/thermal")).ok()?.flatten();
    let limits = devices.map(|device| device.path()).filter_map(|device| {
        let kind = text(&device.join("type"))?;
        // The name in older kernels, and in current ones.
        let is_clock = kind.starts_with("thermal-cpufreq-") || kind.starts_with("cpufreq-");
        let state: u64 = text(&device.join("cur_state"))?.parse().ok()?;
        is_clock.then_some(state > 0)
    });
    limits.reduce(|a, b| a || b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of `/sys` that these files make.
    fn read(files: &[(&str, &str)]) -> BoardState {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        BoardState::read(folder.path())
    }

    const FLAGS: &str = "devices/platform/soc/soc:firmware/get_throttled";

    #[test]
    fn a_board_that_says_nothing_has_no_state() {
        let nothing = BoardState::default();
        assert_eq!(read(&[]), nothing);
        let others = [
            ("class/hwmon/hwmon0/name", "cpu_thermal\n"),
            ("class/hwmon/hwmon0/in0_lcrit_alarm", "1\n"),
            ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("class/thermal/cooling_device0/type", "pwm-fan\n"),
            ("class/thermal/cooling_device0/cur_state", "4\n"),
            (FLAGS, "unknown\n"),
        ];
        assert_eq!(read(&others), nothing);
    }

    #[test]
    fn low_voltage_is_read_from_the_sensor_of_a_raspberry_pi() {
        let alarm = |value| {
            let sensor = [
                ("class/hwmon/hwmon0/name", "cpu_thermal\n"),
                ("class/hwmon/hwmon1/name", "rpi_volt\n"),
                ("class/hwmon/hwmon1/in0_lcrit_alarm", value),
            ];
            read(&sensor).low_voltage
        };
        assert_eq!((alarm("0\n"), alarm("1\n")), (Some(false), Some(true)));
    }

    #[test]
    fn the_flags_of_the_firmware_count_while_they_hold_and_not_after() {
        let flags = |text| {
            let BoardState { low_voltage, throttled } = read(&[(FLAGS, text)]);
            (low_voltage.unwrap(), throttled.unwrap())
        };
        assert_eq!(flags("0\n"), (false, false));
        assert_eq!(flags("50005\n"), (true, true));
        assert_eq!(flags("1\n"), (true, false));
        assert_eq!([flags("2\n"), flags("4\n"), flags("8\n")], [(false, true); 3]);
        // It has happened since the start of the board.
        assert_eq!(flags("f0000\n"), (false, false));
    }

    #[test]
    fn a_limit_of_the_clock_by_the_kernel_is_throttling() {
        let cooled = |kind, first, second| {
            let devices = [
                ("class/thermal/cooling_device0/type", kind),
                ("class/thermal/cooling_device0/cur_state", first),
                ("class/thermal/cooling_device1/type", kind),
                ("class/thermal/cooling_device1/cur_state", second),
            ];
            read(&devices).throttled
        };
        assert_eq!(cooled("cpufreq-cpu0\n", "0\n", "0\n"), Some(false));
        assert_eq!(cooled("cpufreq-cpu4\n", "0\n", "2\n"), Some(true));
        assert_eq!(cooled("thermal-cpufreq-0\n", "1\n", "0\n"), Some(true));
    }
}
