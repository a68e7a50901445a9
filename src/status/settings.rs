//! The settings of the status page.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSettings {
    pub listen: SocketAddr,
    /// `None` for the systemd credential, if there is one.
    pub token_file: Option<PathBuf>,
    pub preview: Preview,
    /// More names under which browsers reach the page.
    pub hosts: Vec<HostName>,
}

/// What the page shows of the person's face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preview {
    /// Nothing.
    Off,
    /// The face's box and landmarks, drawn as lines. Never the image.
    #[default]
    Outline,
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
    fn host_names_have_neither_port_nor_path() {
        assert_eq!(HostName::parse("Board.LAN.").unwrap().as_str(), "board.lan");
        for text in ["", ".", "board:80", "http://board", "a/b", "a b"] {
            assert_eq!(HostName::parse(text), None, "{text}");
        }
    }
}
