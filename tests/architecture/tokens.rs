//! The tokens of Rust source, without comments, literals, and test code.

/// An identifier, `::`, or any other single character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub text: &'a str,
    /// Counts from 1.
    pub line: usize,
}

impl Token<'_> {
    pub fn is_word(&self) -> bool {
        self.text.starts_with(is_word_char)
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        let (length, is_code) = if c.is_whitespace() {
            (c.len_utf8(), false)
        } else if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(length) = string(rest) {
            (length, false)
        } else if c == '\'' {
            (quote(rest), false)
        } else if is_word_char(c) {
            (rest.find(|c| !is_word_char(c)).unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (c.len_utf8(), true)
        };
        if is_code {
            let text = &rest[..length];
            tokens.push(Token { text, line });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// The length of a block comment, which may hold others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a string literal with its prefix, or `None` if there is none here.
fn string(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    if prefix > 2 {
        return None;
    }
    let after = &rest[prefix..];
    if rest[..prefix].ends_with('r') {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let body = after[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(prefix + hashes + 1 + length);
    }
    after.starts_with('"').then(|| prefix + escaped(after, '"'))
}

/// The length of a literal between two `delimiter`s, with backslash escapes.
fn escaped(rest: &str, delimiter: char) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == delimiter {
            return at + c.len_utf8();
        }
    }
    rest.len()
}

/// The length of a character literal or a lifetime.
fn quote(rest: &str) -> usize {
    let mut chars = rest.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) | (_, Some('\'')) => escaped(rest, '\''),
        _ => 1 + rest[1..].find(|c| !is_word_char(c)).unwrap_or(rest.len() - 1),
    }
}

/// Removes the items under `#[cfg(test)]`. Also returns the names of the modules among them that are files.
pub fn without_tests<'a>(tokens: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<&'a str>) {
    let (mut kept, mut test_files, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        match attribute(&tokens[at..]) {
            Some(attribute) if is_cfg_test(attribute) => {
                at += attribute.len();
                let item = item(&tokens[at..]);
                if let [.., keyword, name, end] = item
                    && (keyword.text, end.text) == ("mod", ";")
                {
                    test_files.push(name.text);
                }
                at += item.len();
            }
            _ => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    (kept, test_files)
}

/// `#[…]` at the beginning of `tokens`.
fn attribute<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let is_attribute = tokens.len() > 1 && tokens[0].text == "#" && tokens[1].text == "[";
    is_attribute.then(|| &tokens[..1 + group(&tokens[1..])])
}

/// The length of the group of brackets that `tokens` begin with.
fn group(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Whether an attribute is `cfg(test)`, alone or beside other conditions.
fn is_cfg_test(attribute: &[Token]) -> bool {
    let has = |word| attribute.iter().any(|token| token.text == word);
    attribute.get(2).is_some_and(|token| token.text == "cfg") && has("test") && !has("not") && !has("any")
}

/// The words that an item can begin with. Anything else under an attribute is a field, a variant or a match arm.
const ITEM_WORDS: &[&str] = &[
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

/// The item at the beginning of `tokens`, with its other attributes: up to its `;` or its closing brace. A field, a variant or a
/// match arm ends at its comma.
fn item<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let mut at = 0;
    while let Some(attribute) = attribute(&tokens[at..]) {
        at += attribute.len();
    }
    let is_item = tokens.get(at).is_some_and(|token| {
        // `pub` may also stand before a field: the word behind it, and behind `(crate)`, decides.
        let mut word = at;
        if token.text == "pub" {
            word += 1;
            if tokens.get(word).is_some_and(|next| next.text == "(") {
                word += group(&tokens[word..]);
            }
        }
        tokens.get(word).is_some_and(|word| ITEM_WORDS.contains(&word.text))
    });
    let mut ends_at_brace = true;
    while at < tokens.len() {
        match tokens[at].text {
            "," if !is_item => return &tokens[..=at],
            ")" | "]" | "}" => return &tokens[..at],
            ";" => return &tokens[..=at],
            "use" | "static" | "type" => ends_at_brace = false,
            "(" | "[" | "{" => {
                let is_body = ends_at_brace && tokens[at].text == "{";
                at += group(&tokens[at..]);
                if is_body {
                    return &tokens[..at];
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_left_out() {
        let source = r####"
            a // crate::x
            /* crate::y /* nested */ crate::z */ b
            "crate::s \" crate::t" r#"crate::"u"# b"v" c"w" br##"x"# "## 'y' '\'' b'z' c
        "####;
        assert_eq!(words(source), ["a", "b", "b", "c"]);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(
            words("fn f<'a>(x: &'a str, c: 'b') 'label: loop"),
            [
                "fn", "f", "<", ">", "(", "x", ":", "&", "str", ",", "c", ":", ")", ":", "loop"
            ]
        );
    }

    #[test]
    fn tokens_know_their_line() {
        let tokens = tokens("a\n\"two\nlines\"\n/* one */ b::c");
        let lines: Vec<_> = tokens.iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(lines, [("a", 1), ("b", 4), ("::", 4), ("c", 4)]);
    }

    #[test]
    fn test_code_is_left_out() {
        let tokens = tokens(
            "a; #[cfg(test)] use x::{y, z}; b; #[cfg(test)] #[path = \"p\"] mod t { mod u; } \
             #[cfg(test)] mod file; #[cfg(not(test))] c; #[cfg(test)] fn f(x: [u8; 3]) -> X { {} } d",
        );
        let (kept, files) = without_tests(&tokens);
        let kept: Vec<_> = kept.iter().map(|token| token.text).collect();
        let c = ["#", "[", "cfg", "(", "not", "(", "test", ")", ")", "]", "c", ";"];
        assert_eq!(kept, [&["a", ";", "b", ";"][..], &c, &["d"]].concat());
        assert_eq!(files, ["file"]);
    }

    #[test]
    fn a_test_only_field_or_variant_does_not_hide_what_follows() {
        let kept = |source: &str| -> Vec<String> {
            let tokens = tokens(source);
            without_tests(&tokens)
                .0
                .iter()
                .map(|token| token.text.to_owned())
                .collect()
        };
        assert_eq!(
            kept("struct S { #[cfg(test)] pub(crate) a: u8, b: B }"),
            ["struct", "S", "{", "b", ":", "B", "}"]
        );
        assert_eq!(
            kept("enum E { A, #[cfg(test)] B } use c;"),
            ["enum", "E", "{", "A", ",", "}", "use", "c", ";"]
        );
        assert_eq!(kept("#[cfg(test)] fn f<A, B>() {} use c;"), ["use", "c", ";"]);
    }
}
