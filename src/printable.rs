//! Text from outside, made safe to print. A path, a topic, a clip or another device must not control the terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with every character that can control a terminal or hide other text written as an escape, such as `\u{1b}`.
/// These are control characters (line ends too), marks that change the direction of text, and characters without a width.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// The same for text that affectd lays out itself: its line ends and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| {
        is_hidden(character) && !matches!(character, '\n' | '\t')
    })
}

/// A JSON document with the same characters as escapes of JSON. Its meaning stays the same.
pub fn printable_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // The only one that is outside of strings.
            '\n' => escaped.push('\n'),
            hidden if is_hidden(hidden) => {
                for unit in hidden.encode_utf16(&mut [0; 2]) {
                    // Writing into a string cannot fail.
                    let _ = write!(escaped, "\\u{unit:04x}");
                }
            }
            visible => escaped.push(visible),
        }
    }
    escaped
}

/// `text` as a string of TOML, with the same characters as escapes of TOML.
pub fn printable_toml(text: &str) -> String {
    let mut escaped = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            hidden if is_hidden(hidden) => {
                let _ = write!(escaped, "\\U{:08x}", u32::from(hidden));
            }
            visible => escaped.push(visible),
        }
    }
    escaped + "\""
}

/// Whether [`printable`] would change `text`.
pub fn has_hidden(text: &str) -> bool {
    text.contains(is_hidden)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            visible if !is_escaped(visible) => escaped.push(visible),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            hidden => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(hidden));
            }
        }
    }
    Cow::Owned(escaped)
}

fn is_hidden(character: char) -> bool {
    let is_format = matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    character.is_control() || is_format
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_is_not_changed() {
        for text in ["", "/dev/ttyUSB0: gone", "Küche – 部屋 ∑ 😀"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb"), r"a\u{1b}[2Jb");
        assert_eq!(printable("\u{9b}5n\u{7f}\r\n\t\0"), r"\u{9b}5n\u{7f}\r\n\t\u{0}");
        assert_eq!(
            printable("\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}"),
            r"\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}"
        );
    }

    #[test]
    fn lines_that_affectd_lays_out_stay() {
        assert_eq!(
            printable_lines("a\tb\nc\u{1b}\r\u{202e}\n"),
            "a\tb\nc\\u{1b}\\r\\u{202e}\n"
        );
    }

    proptest! {
        #[test]
        fn json_and_toml_keep_their_meaning_without_hidden_characters(text in any::<String>()) {
            let json = printable_json(&serde_json::to_string(&text).unwrap());
            prop_assert!(!has_hidden(&json));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.clone());
            let toml = printable_toml(&text);
            prop_assert!(!has_hidden(&toml));
            let document: toml::Table = format!("a = {toml}").parse().unwrap();
            prop_assert_eq!(document["a"].as_str().unwrap(), text);
        }

        #[test]
        fn the_result_never_holds_a_hidden_character(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(!shown.contains(is_hidden));
            prop_assert_eq!(printable(&shown), shown.as_ref());
        }
    }
}
