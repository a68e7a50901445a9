//! The token that a client of the status page must know.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::StatusError;
use super::settings::StatusSettings;
use crate::output::HostIdentity;
use crate::small_file;

/// `LoadCredential=status-token:/path` in a systemd unit.
const CREDENTIAL: &str = "status-token";
/// A shorter token could be guessed.
const MIN_BYTES: usize = 16;
const MAX_BYTES: usize = 256;
/// With white space around it. A longer file is something else.
const MAX_FILE_BYTES: usize = 4096;

/// The hash of a token. Hashes have the same length, so the time of a comparison tells nothing about the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    fn of(text: &[u8]) -> Token {
        Token(Sha256::digest(text).into())
    }

    /// The token in the settings' file or else in systemd's credential. `None` if there is neither, which is an error on an address
    /// that other machines reach.
    pub fn load(settings: &StatusSettings, host: &HostIdentity) -> Result<Option<Token>, StatusError> {
        let listen = settings.listen;
        match Token::file(settings, host) {
            Some(path) => Ok(Some(read(&path)?)),
            None if listen.ip().is_loopback() => Ok(None),
            None => Err(StatusError::NoToken { listen }),
        }
    }

    fn file(settings: &StatusSettings, host: &HostIdentity) -> Option<PathBuf> {
        let from_systemd = || {
            let folder = host.credentials_directory.as_ref()?;
            Some(folder.join(CREDENTIAL)).filter(|path| path.exists())
        };
        settings.token_file.clone().or_else(from_systemd)
    }

    /// Compares in constant time.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(&Token::of(presented).0).into()
    }
}

/// The content of the file, without white space around it.
fn read(path: &Path) -> Result<Token, StatusError> {
    let failed = |reason: String| StatusError::Token {
        path: path.into(),
        reason,
    };
    let bytes = small_file::read(path, MAX_FILE_BYTES)
        .map_err(|error| failed(format!("cannot be read ({error}): check the path and its permissions")))?;
    let token = bytes.trim_ascii();
    let sendable = token.iter().all(u8::is_ascii_graphic);
    if !(MIN_BYTES..=MAX_BYTES).contains(&token.len()) || !sendable {
        return Err(failed(format!(
            "must hold {MIN_BYTES} to {MAX_BYTES} letters, digits and signs without spaces: write a new one with openssl \
             rand -hex 16"
        )));
    }
    Ok(Token::of(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Preview;

    fn load(listen: &str, text: Option<&str>) -> Result<Option<Token>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let settings = StatusSettings {
            listen: listen.parse().unwrap(),
            token_file: text.map(|_| path),
            preview: Preview::Outline,
            unencrypted_image: false,
            hosts: Vec::new(),
        };
        let shown = |error: StatusError| error.to_string().replace(&folder.path().display().to_string(), "");
        Token::load(&settings, &HostIdentity::default()).map_err(shown)
    }

    #[test]
    fn a_token_is_demanded_where_other_machines_reach_the_page() {
        for listen in ["127.0.0.1:1", "127.3.4.5:1", "[::1]:1"] {
            assert_eq!(load(listen, None), Ok(None));
        }
        for listen in ["0.0.0.0:1", "[::]:1", "192.168.1.2:1"] {
            assert!(load(listen, None).unwrap_err().contains("needs a token"), "{listen}");
        }
    }

    #[test]
    fn only_the_whole_token_matches() {
        let token = load("0.0.0.0:1", Some("0123456789abcdef\n")).unwrap().unwrap();
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in [&b"0123456789abcdef\n"[..], b"0123456789abcde", b"", b"0123456789abcdeg"] {
            assert!(!token.matches(wrong));
        }
        assert_eq!(format!("{token:?}"), "Token(hidden)");
    }

    #[test]
    fn a_token_that_could_be_guessed_or_not_be_sent_is_rejected() {
        let long = "x".repeat(MAX_BYTES + 1);
        for text in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé", &long] {
            let error = load("127.0.0.1:1", Some(text)).unwrap_err();
            assert!(error.starts_with("status.token /token: must hold 16 to 256"), "{error}");
        }
    }

    #[test]
    fn the_credential_is_used_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("status-token"), "0123456789abcdef").unwrap();
        let host = HostIdentity {
            credentials_directory: Some(folder.path().into()),
            ..HostIdentity::default()
        };
        let settings = StatusSettings {
            listen: "0.0.0.0:1".parse().unwrap(),
            token_file: None,
            preview: Preview::Off,
            unencrypted_image: false,
            hosts: Vec::new(),
        };
        assert!(
            Token::load(&settings, &host)
                .unwrap()
                .unwrap()
                .matches(b"0123456789abcdef")
        );
    }
}
