//! The settings of the status page.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::StatusError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSettings {
    pub listen: SocketAddr,
    /// `None` for the systemd credential, if there is one.
    pub token_file: Option<PathBuf>,
    pub preview: Preview,
    /// Whether images may also go to other machines, which HTTP does not encrypt.
    pub unencrypted_image: bool,
    /// More names under which browsers reach the page.
    pub hosts: Vec<HostName>,
}

impl StatusSettings {
    /// Fails if the image would go to other machines although nobody has allowed that.
    pub fn check_image(&self) -> Result<(), StatusError> {
        let is_open = self.preview == Preview::Image && !self.listen.ip().is_loopback();
        match is_open && !self.unencrypted_image {
            true => Err(StatusError::UnencryptedImage { listen: self.listen }),
            false => Ok(()),
        }
    }
}

/// What the page shows of the person's face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preview {
    /// Nothing.
    Off,
    /// The face's box and landmarks, drawn as lines.
    #[default]
    Outline,
    /// The same lines on a small grey image of the camera.
    Image,
}

/// A host name in lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    pub fn parse(text: &str) -> Option<HostName> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        (!name.is_empty() && name.bytes().all(valid)).then_some(HostName(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `127.0.0.1:8787`, `[::1]:8787` or `localhost:8787`.
pub fn parse_listen(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port() {
        for (text, address) in [
            ("127.0.0.1:8787", "127.0.0.1:8787"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::]:8787", "[::]:8787"),
        ] {
            assert_eq!(parse_listen(text), address.parse().ok());
        }
        for text in ["8787", "127.0.0.1", "board.lan:8787", "localhost:", "::1:8787:x"] {
            assert_eq!(parse_listen(text), None, "{text}");
        }
    }

    #[test]
    fn an_image_goes_to_other_machines_only_if_that_is_allowed() {
        let check = |listen: &str, preview, unencrypted_image| {
            let settings = StatusSettings {
                listen: listen.parse().unwrap(),
                token_file: None,
                preview,
                unencrypted_image,
                hosts: Vec::new(),
            };
            settings.check_image().map_err(|error| error.to_string())
        };
        insta::assert_snapshot!(check("0.0.0.0:8787", Preview::Image, false).unwrap_err(), @"status.preview = image: other machines reach 0.0.0.0:8787, and HTTP would show the image to everybody on the way: listen on 127.0.0.1 and use a tunnel (ssh -L) or a proxy with TLS, or allow it with status.unencrypted_image = true");
        assert_eq!(check("0.0.0.0:8787", Preview::Image, true), Ok(()));
        assert_eq!(check("0.0.0.0:8787", Preview::Outline, false), Ok(()));
        assert_eq!(check("[::1]:8787", Preview::Image, false), Ok(()));
    }

    #[test]
    fn host_names_have_neither_port_nor_path() {
        assert_eq!(HostName::parse("Board.LAN.").unwrap().as_str(), "board.lan");
        for text in ["", ".", "board:80", "http://board", "a/b", "a b"] {
            assert_eq!(HostName::parse(text), None, "{text}");
        }
    }
}
