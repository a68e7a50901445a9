//! Whether the system has the time zone that it is told to use. If not, the C library takes UTC without a word, and off hours would be
//! those of Greenwich.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

const LOCAL_TIME: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo";

/// The setting that names a time zone which the system does not have.
pub fn missing_time_zone() -> Option<String> {
    let variable = std::env::var_os("TZ").unwrap_or_default();
    let folder = std::env::var_os("TZDIR").map_or(PathBuf::from(ZONES), PathBuf::from);
    missing(&variable, &folder, Path::new(LOCAL_TIME))
}

/// `variable` is `TZ`, empty if there is none.
fn missing(variable: &OsStr, zones: &Path, local_time: &Path) -> Option<String> {
    if variable.is_empty() {
        let is_dangling = fs::symlink_metadata(local_time).is_ok() && fs::metadata(local_time).is_err();
        return is_dangling.then(|| local_time.display().to_string());
    }
    let text = variable.to_string_lossy();
    let zone = text.strip_prefix(':').unwrap_or(&text);
    // An absolute path replaces the folder.
    let exists = is_rule(zone) || zones.join(zone).is_file();
    (!exists).then(|| format!("TZ = {text}"))
}

/// Whether `zone` holds the offset itself, as POSIX has it: `CET-1CEST,M3.5.0,M10.5.0/3` or `<+05>-5`. UTC needs no offset.
fn is_rule(zone: &str) -> bool {
    let after_name = match zone.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>').map(|(_, rest)| rest),
        None => Some(zone.trim_start_matches(|c: char| c.is_ascii_alphabetic())),
    };
    let has_offset = |rest: &str| {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        rest.len() < zone.len() && digits.starts_with(|c: char| c.is_ascii_digit())
    };
    matches!(zone, "UTC" | "UTC0" | "GMT") || after_name.is_some_and(has_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_the_system_does_not_have_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("Europe")).unwrap();
        fs::write(folder.path().join("Europe/Vienna"), "").unwrap();
        let local_time = folder.path().join("localtime");
        let missing = |zone: &str| missing(OsStr::new(zone), folder.path(), &local_time);
        let path = folder.path().join("Europe/Vienna").display().to_string();
        for zone in [
            "",
            "Europe/Vienna",
            ":Europe/Vienna",
            "UTC",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "EST5",
            "<+0530>-5:30",
            &path,
        ] {
            assert_eq!(missing(zone), None, "{zone}");
        }
        for zone in ["Europe/Wien", ":Mars", "Europe", "5", "<+05>", "/none", "-1"] {
            assert_eq!(missing(zone), Some(format!("TZ = {zone}")), "{zone}");
        }
        std::os::unix::fs::symlink(folder.path().join("none"), &local_time).unwrap();
        assert_eq!(missing(""), Some(local_time.display().to_string()));
    }
}
