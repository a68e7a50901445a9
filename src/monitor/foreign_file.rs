//! Files that are certainly not of affectd: their first bytes tell.

use std::fmt;

/// The beginning of a file, as long as the longest signature.
const HEAD_BYTES: usize = 16;

/// What a file is, and what to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignFile {
    what: &'static str,
    mend: &'static str,
}

impl fmt::Display for ForeignFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is {}: {}", self.what, self.mend)
    }
}

const OURS: &str = "name a file that affectd writes, such as that of --output file:estimates.jsonl";
const CLIP: &str = "replay it first: affectd run --input CLIP | affectd monitor -";

/// Offset, signature, name, and what to do.
const SIGNATURES: &[(usize, &[u8], &str, &str)] = &[
    (0, b"\x1aE\xdf\xa3", "a Matroska clip", CLIP),
    (4, b"ftyp", "an MP4 clip", CLIP),
    (8, b"WAVE", "a WAV clip", CLIP),
    (8, b"AVI ", "an AVI clip", CLIP),
    (0, b"OggS", "an Ogg clip", CLIP),
    (0, b"\xff\xd8\xff", "a JPEG image", OURS),
    (0, b"\x89PNG\r\n", "a PNG image", OURS),
    (0, b"GIF8", "a GIF image", OURS),
    (0, b"%PDF-", "a PDF document", OURS),
    (0, b"\x7fELF", "a program", OURS),
    (0, b"SQLite format 3", "an SQLite database", OURS),
    (
        0,
        b"\x1f\x8b\x08",
        "compressed with gzip",
        "zcat FILE | affectd monitor -",
    ),
    (0, b"\xfd7zXZ\0", "compressed with xz", "xzcat FILE | affectd monitor -"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "zstdcat FILE | affectd monitor -",
    ),
    (0, b"BZh", "compressed with bzip2", "bzcat FILE | affectd monitor -"),
    (0, b"PK\x03\x04", "a ZIP archive", "unzip -p FILE | affectd monitor -"),
    (
        0,
        b"LPKSHHRH",
        "a systemd journal",
        "journalctl --file FILE -o cat | affectd monitor -",
    ),
    (
        0,
        b"\xd4\xc3\xb2\xa1",
        "a capture of network packets",
        "read the broker itself: affectd monitor mqtt://BROKER",
    ),
    (
        0,
        b"\x0a\x0d\x0d\x0a",
        "a capture of network packets",
        "read the broker itself: affectd monitor mqtt://BROKER",
    ),
];

/// The first bytes of a stream, which may come in pieces.
#[derive(Debug, Default)]
pub struct Head(Vec<u8>);

impl Head {
    /// Adds the next bytes. Returns what the file is if its signature is known and not of affectd.
    pub fn push(&mut self, bytes: &[u8]) -> Option<ForeignFile> {
        let room = HEAD_BYTES - self.0.len();
        if room == 0 {
            return None;
        }
        self.0.extend(bytes.iter().take(room));
        let has = |offset: usize, signature: &[u8]| self.0.get(offset..).is_some_and(|at| at.starts_with(signature));
        // Windows writes `>` in this form. Frames may begin with the mark alone.
        let is_utf16 = matches!(
            self.0[..],
            [0xff, 0xfe, 1..=0x7f, 0, ..] | [0xfe, 0xff, 0, 1..=0x7f, ..]
        );
        if is_utf16 {
            return Some(ForeignFile {
                what: "UTF-16 text",
                mend: "iconv -f UTF-16 -t UTF-8 FILE | affectd monitor -",
            });
        }
        let known = SIGNATURES
            .iter()
            .find(|(offset, signature, ..)| has(*offset, signature));
        known.map(|(_, _, what, mend)| ForeignFile { what, mend })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_files_are_named_however_they_are_read() {
        let mut gzip = Head::default();
        assert_eq!(gzip.push(b"\x1f"), None);
        assert_eq!(gzip.push(b"\x8b"), None);
        insta::assert_snapshot!(gzip.push(b"\x08\0\0").unwrap(), @"is compressed with gzip: zcat FILE | affectd monitor -");
        insta::assert_snapshot!(Head::default().push(b"\x89PNG\r\n\x1a\n").unwrap(), @"is a PNG image: name a file that affectd writes, such as that of --output file:estimates.jsonl");
        insta::assert_snapshot!(Head::default().push(b"RIFF\x24\0\0\0WAVEfmt ").unwrap(), @"is a WAV clip: replay it first: affectd run --input CLIP | affectd monitor -");
        insta::assert_snapshot!(Head::default().push(b"\xff\xfe{\0\"\0").unwrap(), @"is UTF-16 text: iconv -f UTF-16 -t UTF-8 FILE | affectd monitor -");
    }

    #[test]
    fn estimates_in_any_form_are_not_foreign() {
        for ours in [
            &b"{\"schema\":1,"[..],
            b"seq,t,time",
            b"\0\x05\x01\x01\x12",
            b"\xff\xfe\x02\x80\x01",
            b"\n{",
        ] {
            assert_eq!(Head::default().push(ours), None, "{ours:?}");
        }
    }

    #[test]
    fn signatures_fit_into_the_head() {
        assert!(
            SIGNATURES
                .iter()
                .all(|(offset, signature, ..)| offset + signature.len() <= HEAD_BYTES)
        );
    }
}
