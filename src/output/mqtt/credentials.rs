//! User and password for the broker. The password comes from a file or from systemd. It is sent to the broker and never
//! shown.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use log::warn;

use super::address::Address;
use crate::output::contract::HostIdentity;
use crate::small_file;

/// `LoadCredential=mqtt-password:/path` in a systemd unit.
const CREDENTIAL: &str = "mqtt-password";
/// MQTT sends the length of a password in two bytes.
const MAX_PASSWORD_BYTES: u16 = u16::MAX;

#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: String,
    pub password: Option<Password>,
}

/// A password. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct Password(Vec<u8>);

impl Password {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Credentials {
    /// The address's user, with the password from `password_file` or else from systemd's credentials. `None` without a
    /// user.
    pub fn load(address: &Address, host: &HostIdentity) -> Result<Option<Credentials>, String> {
        let Some(user) = address.user.clone() else {
            return Ok(None);
        };
        if let Some(path) = &address.password_file {
            warn_if_world_readable(path);
        }
        let password = Credentials::file(address, host).map(|path| read(&path)).transpose()?;
        Ok(Some(Credentials { user, password }))
    }

    /// The file with the password, if there is one.
    pub fn file(address: &Address, host: &HostIdentity) -> Option<PathBuf> {
        let from_systemd = || {
            let folder = host.credentials_directory.as_ref()?;
            Some(folder.join(CREDENTIAL)).filter(|path| path.exists())
        };
        address.password_file.clone().or_else(from_systemd)
    }
}

/// The content of the file, without line breaks at its end.
fn read(path: &Path) -> Result<Password, String> {
    // The line break at the end does not count.
    let mut bytes = small_file::read(path, usize::from(MAX_PASSWORD_BYTES) + 2).map_err(|e| {
        format!(
            "password_file {}: cannot be read ({e}): check the path and its permissions",
            path.display()
        )
    })?;
    while bytes.last().is_some_and(|b| *b == b'\n' || *b == b'\r') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(format!(
            "password_file {}: is empty: write the password into it",
            path.display()
        ));
    }
    if bytes.len() > usize::from(MAX_PASSWORD_BYTES) {
        return Err(format!(
            "password_file {}: is longer than {MAX_PASSWORD_BYTES} bytes, the longest password in MQTT: check the path",
            path.display()
        ));
    }
    Ok(Password(bytes))
}

fn warn_if_world_readable(path: &Path) {
    let world_readable = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0);
    if world_readable {
        warn!(
            "password_file {}: every user can read it: run chmod o-r on it",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(query: &str) -> Address {
        Address::parse(&format!("mqtt://li@broker?{query}"), &HostIdentity::default()).unwrap()
    }

    #[test]
    fn password_file_has_priority_over_systemd_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pw");
        fs::write(&file, "hunter2\n").unwrap();
        fs::write(folder.path().join("mqtt-password"), "from systemd").unwrap();
        let host = HostIdentity {
            credentials_directory: Some(folder.path().into()),
            ..HostIdentity::default()
        };
        let address_with_file = address(&format!("password_file={}", file.display()));
        let credentials = Credentials::load(&address_with_file, &host).unwrap().unwrap();
        assert_eq!(credentials.password.as_ref().unwrap().as_bytes(), b"hunter2");
        insta::assert_snapshot!(format!("{credentials:?}"), @r#"Credentials { user: "li", password: Some((hidden)) }"#);
        let credentials = Credentials::load(&address(""), &host).unwrap().unwrap();
        assert_eq!(credentials.password.unwrap().as_bytes(), b"from systemd");
    }

    #[test]
    fn missing_and_empty_files_are_rejected_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = |name: &str| {
            let path = folder.path().join(name);
            let address = address(&format!("password_file={}", path.display()));
            let error = Credentials::load(&address, &HostIdentity::default()).unwrap_err();
            error.replace(&format!("{}/", folder.path().display()), "")
        };
        insta::assert_snapshot!(error("none"), @"password_file none: cannot be read (No such file or directory (os error 2)): check the path and its permissions");
        fs::write(folder.path().join("empty"), "\n").unwrap();
        insta::assert_snapshot!(error("empty"), @"password_file empty: is empty: write the password into it");
    }
}
