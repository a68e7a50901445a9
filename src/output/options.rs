//! The options of an output spec: `key=value` pairs after the question mark, separated by `&`.

use std::fmt::Display;
use std::str::FromStr;

/// Parsed options, with `%41` decoded to the letter it stands for in every value.
#[derive(Debug, Default)]
pub struct Options(Vec<(String, String)>);

impl Options {
    pub fn parse(text: &str) -> Result<Options, String> {
        let mut options: Vec<(String, String)> = Vec::new();
        for option in text.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| format!("option \"{option}\" has no value: write {option}=VALUE"))?;
            if options.iter().any(|(known, _)| known == key) {
                return Err(format!("option {key} is given twice: keep one"));
            }
            let value = percent_decoded(value).map_err(|why| format!("{key}={value}: {why}"))?;
            options.push((key.into(), value));
        }
        Ok(Options(options))
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    /// Rejects every key that is not in `known`, so that a misspelt option is not ignored.
    pub fn allow_only(&self, known: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) if known.is_empty() => Err(format!("unknown option {key}: this output has no options")),
            Some((key, _)) => Err(format!("unknown option {key}: the options are {}", known.join(", "))),
        }
    }

    /// The value of an option, parsed; `None` if the option is not given.
    pub fn get<T: FromStr>(&self, key: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, text)| {
                // Escaped: a decoded value may contain a line break.
                let shown = text.escape_debug();
                text.parse().map_err(|why| format!("{key}={shown}: {why}"))
            })
            .transpose()
    }

    /// The value of an option, or `default` if the option is not given.
    pub fn get_or<T: FromStr>(&self, key: &str, default: T) -> Result<T, String>
    where
        T::Err: Display,
    {
        Ok(self.get(key)?.unwrap_or(default))
    }
}

/// Replaces each `%` and two hexadecimal digits with the byte they stand for.
pub fn percent_decoded(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.ok_or("two hexadecimal digits must follow a %: write %25 for a % sign")?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "the decoded text must be UTF-8")
}

/// The reverse of [`percent_decoded`]: escapes all characters but letters, digits and those in `plain`.
pub fn percent_encoded(text: &str, plain: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_alphanumeric() || plain.contains(character) {
            true => encoded.push(character),
            false => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    encoded.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_parsed() {
        let options = Options::parse("path=/run/secret%20s&count=3&").unwrap();
        assert_eq!(options.get("path"), Ok(Some("/run/secret s".to_string())));
        assert_eq!(options.get("count"), Ok(Some(3)));
        assert_eq!(options.get_or("other", 7), Ok(7));
    }

    #[test]
    fn invalid_options_are_rejected_with_the_correction() {
        let error = |text: &str| Options::parse(text).unwrap_err();
        insta::assert_snapshot!(error("baud"), @r#"option "baud" has no value: write baud=VALUE"#);
        insta::assert_snapshot!(error("baud=1&baud=2"), @"option baud is given twice: keep one");
        insta::assert_snapshot!(error("ca=/a%4"), @"ca=/a%4: two hexadecimal digits must follow a %: write %25 for a % sign");
        insta::assert_snapshot!(error("ca=%ff"), @"ca=%ff: the decoded text must be UTF-8");
        let options = Options::parse("baud=fast").unwrap();
        insta::assert_snapshot!(options.get::<u32>("baud").unwrap_err(), @"baud=fast: invalid digit found in string");
        insta::assert_snapshot!(options.allow_only(&["wire", "rate"]).unwrap_err(), @"unknown option baud: the options are wire, rate");
        insta::assert_snapshot!(options.allow_only(&[]).unwrap_err(), @"unknown option baud: this output has no options");
        options.allow_only(&["baud"]).unwrap();
    }
}
