//! Text from outside, made safe to print. A path, a topic, a clip or another device must not control the terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with every character that can control a terminal or hide other text written as an escape, such as `\u{1b}`.
/// These are control characters (line ends too), marks that change the direction of text, and characters without a width.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            hidden if is_hidden(hidden) => {
                // Writing into a string cannot fail.
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(hidden));
            }
            visible => escaped.push(visible),
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

    proptest! {
        #[test]
        fn the_result_never_holds_a_hidden_character(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(!shown.contains(is_hidden));
            prop_assert_eq!(printable(&shown), shown.as_ref());
        }
    }
}
