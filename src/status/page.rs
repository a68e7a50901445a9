//! The page itself: one file, and the policy that allows a browser to run exactly its script and style.

use std::fmt::Write;

use hyper::body::Bytes;
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("page.html");

/// The page and its Content-Security-Policy.
pub struct Page {
    pub html: Bytes,
    pub policy: String,
}

impl Page {
    pub fn new() -> Page {
        let script = base64(&Sha256::digest(between(HTML, "<script>", "</script>")));
        let style = base64(&Sha256::digest(between(HTML, "<style>", "</style>")));
        Page {
            html: Bytes::from_static(HTML.as_bytes()),
            policy: format!(
                "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; img-src \
                 data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
        }
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or("", |(inner, _)| inner)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0u32, |group, i| group << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for i in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * i)) as usize & 63];
            // Writing into a string cannot fail.
            let _ = text.write_char(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_the_last_group() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_page_is_small_and_loads_nothing() {
        assert!(HTML.len() <= 100_000, "{}", HTML.len());
        for once in ["<script>", "<style>"] {
            assert_eq!(HTML.matches(once).count(), 1);
        }
        for outside in ["src=", "//cdn", "@import", "url(", "style=\"", "onclick"] {
            assert!(!HTML.contains(outside), "{outside}");
        }
        let links = HTML.matches("href=").count();
        assert_eq!(
            links,
            HTML.matches("href=\"data:").count() + HTML.matches("href=\"#").count()
        );
    }
}
