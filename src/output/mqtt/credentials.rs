//! Who we are to the broker. The password comes from a file or from systemd, and goes nowhere but into the connection.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use log::warn;

use super::address::Address;

/// `LoadCredential=mqtt-password:/path` in a systemd unit.
const CREDENTIAL: &str = "mqtt-password";
/// MQTT carries it with a length of two bytes.
const LONGEST: usize = u16::MAX as usize;

#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: String,
    pub password: Option<Password>,
}

/// A password, which does not show itself.
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
    /// The address's user with the password from its file, or else from `credentials`, the folder that systemd names in
    /// `$CREDENTIALS_DIRECTORY`. `None` without a user.
    pub fn load(address: &Address, credentials: Option<&Path>) -> Result<Option<Credentials>, String> {
        let Some(user) = address.user.clone() else {
            return Ok(None);
        };
        let from_systemd = || {
            credentials
                .map(|folder| folder.join(CREDENTIAL))
                .filter(|path| path.exists())
        };
        let file = match &address.password_file {
            Some(path) => {
                warn_if_open_to_all(path);
                Some(path.clone())
            }
            None => from_systemd(),
        };
        let password = file.map(|path| read(&path)).transpose()?;
        Ok(Some(Credentials { user, password }))
    }
}

/// The folder of this service's credentials.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The file's content, without the newline that editors put at its end.
fn read(path: &Path) -> Result<Password, String> {
    let mut bytes = fs::read(path).map_err(|e| {
        format!(
            "password_file {}: cannot be read ({e}): check the path and who may read it",
            path.display()
        )
    })?;
    while bytes.last().is_some_and(|b| *b == b'\n' || *b == b'\r') {
        bytes.pop();
    }
    match bytes.len() {
        1..=LONGEST => Ok(Password(bytes)),
        0 => Err(format!(
            "password_file {}: is empty: write the password into it",
            path.display()
        )),
        _ => Err(format!(
            "password_file {}: is longer than any password can be: is it the right file?",
            path.display()
        )),
    }
}

fn warn_if_open_to_all(path: &Path) {
    let open = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0);
    if open {
        warn!(
            "password_file {} may be read by everybody: chmod o-r it",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(query: &str) -> Address {
        Address::parse(&format!("mqtt://li@broker?{query}")).unwrap()
    }

    #[test]
    fn the_password_comes_from_the_file_before_systemd_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pw");
        fs::write(&file, "hunter2\n").unwrap();
        fs::write(folder.path().join("mqtt-password"), "from systemd").unwrap();
        let given = address(&format!("password_file={}", file.display()));
        let credentials = Credentials::load(&given, Some(folder.path())).unwrap().unwrap();
        assert_eq!(credentials.password.as_ref().unwrap().as_bytes(), b"hunter2");
        insta::assert_snapshot!(format!("{credentials:?}"), @r#"Credentials { user: "li", password: Some((hidden)) }"#);
        let credentials = Credentials::load(&address(""), Some(folder.path())).unwrap().unwrap();
        assert_eq!(credentials.password.unwrap().as_bytes(), b"from systemd");
    }

    #[test]
    fn a_file_that_is_missing_or_empty_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = |name: &str| {
            let path = folder.path().join(name);
            let error = Credentials::load(&address(&format!("password_file={}", path.display())), None).unwrap_err();
            error.replace(&format!("{}/", folder.path().display()), "")
        };
        insta::assert_snapshot!(error("none"), @"password_file none: cannot be read (No such file or directory (os error 2)): check the path and who may read it");
        fs::write(folder.path().join("empty"), "\n").unwrap();
        insta::assert_snapshot!(error("empty"), @"password_file empty: is empty: write the password into it");
    }
}
