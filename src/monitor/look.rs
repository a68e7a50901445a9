//! What the terminal can show.

use std::borrow::Cow;

/// How the monitor looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub glyphs: Glyphs,
    pub colors: Colors,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glyphs {
    Unicode,
    /// For locales without UTF-8, and for consoles whose fonts lack Braille.
    Ascii,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    On,
    Off,
}

impl Glyphs {
    /// What a terminal of the kind `terminal` shows in `locale`, such as `de_DE.UTF-8`.
    pub fn of(locale: Option<&str>, terminal: Option<&str>) -> Glyphs {
        let is_utf8 = locale.is_some_and(|locale| {
            let codeset = locale.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
            codeset.starts_with("utf-8") || codeset.starts_with("utf8")
        });
        match terminal {
            // Fonts of the Linux console have no Braille.
            Some("linux" | "dumb") => Glyphs::Ascii,
            _ if is_utf8 => Glyphs::Unicode,
            _ => Glyphs::Ascii,
        }
    }

    /// `text` with these glyphs. A character that ASCII has nothing similar to becomes a question mark.
    pub fn text(self, text: &str) -> Cow<'_, str> {
        match self {
            Glyphs::Ascii if !text.is_ascii() => text.chars().map(ascii).collect::<String>().into(),
            _ => text.into(),
        }
    }
}

/// The most similar ASCII character.
pub fn ascii(character: char) -> char {
    match character {
        ascii if ascii.is_ascii() => ascii,
        '─' | '–' | '−' => '-',
        '│' => '|',
        '┌' | '┐' | '└' | '┘' => '+',
        '█' => '#',
        '·' => '.',
        '●' => 'O',
        '°' => ' ',
        '…' => '~',
        '“' | '”' => '"',
        '\u{2800}'..='\u{28ff}' => braille(u32::from(character) - 0x2800),
        _ => '?',
    }
}

/// The dots of a Braille character, one bit each, at half its height.
fn braille(dots: u32) -> char {
    const UPPER: u32 = 0b0001_1011;
    match (dots & UPPER != 0, dots & !UPPER != 0) {
        (true, true) => ':',
        (true, false) => '\'',
        (false, true) => '.',
        (false, false) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_and_terminal_decide() {
        for (locale, terminal, glyphs) in [
            (Some("de_DE.UTF-8"), Some("xterm-256color"), Glyphs::Unicode),
            (Some("C.utf8"), None, Glyphs::Unicode),
            (Some("sr_RS.UTF-8@latin"), Some("xterm"), Glyphs::Unicode),
            (Some("de_DE.UTF-8"), Some("linux"), Glyphs::Ascii),
            (Some("C.UTF-8"), Some("dumb"), Glyphs::Ascii),
            (Some("de_DE"), Some("xterm"), Glyphs::Ascii),
            (Some("POSIX"), Some("xterm"), Glyphs::Ascii),
            (None, Some("xterm"), Glyphs::Ascii),
        ] {
            assert_eq!(Glyphs::of(locale, terminal), glyphs, "{locale:?} {terminal:?}");
        }
    }

    #[test]
    fn text_without_utf_8_has_similar_characters() {
        let text = "valence –, 48 °C, “Küche” ⠁⡀⣿";
        assert_eq!(Glyphs::Ascii.text(text), "valence -, 48  C, \"K?che\" '.:");
        assert_eq!(Glyphs::Unicode.text(text), text);
    }
}
