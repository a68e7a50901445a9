//! Passwords in an output spec. They are never valid there, and never shown.

use super::mqtt::without_password;

/// `spec` with each password replaced by `…`.
pub fn masked(spec: &str) -> String {
    let spec = without_password(spec);
    match secret_option(&spec) {
        // A password may contain `&`, so everything after it is hidden, too.
        Some(end_of_key) => format!("{}=…", &spec[..end_of_key]),
        None => spec.into_owned(),
    }
}

/// Whether one of the options after the question mark is a password.
pub fn has_secret_option(spec: &str) -> bool {
    secret_option(spec).is_some()
}

/// The end of the key of the first option that is a password.
fn secret_option(spec: &str) -> Option<usize> {
    let mut start = spec.find('?')? + 1;
    for option in spec[start..].split('&') {
        let key = option.split('=').next().unwrap_or_default();
        if key.len() < option.len() && is_secret(key) {
            return Some(start + key.len());
        }
        start += option.len() + 1;
    }
    None
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words = ["pass", "pwd", "pw", "secret", "token"];
    // A file's path is no secret.
    !key.ends_with("_file") && words.iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        for (spec, shown) in [
            ("mqtt://li:hunter2@broker/x", "mqtt://li:…@broker/x"),
            ("mqtt://broker?password=hunter2", "mqtt://broker?password=…"),
            (
                "mqtt://broker?device=hall&PassWord=hun&ter2",
                "mqtt://broker?device=hall&PassWord=…",
            ),
            ("file:/tmp/x?token=hunter2", "file:/tmp/x?token=…"),
            ("stdout?pw=hunter2", "stdout?pw=…"),
        ] {
            assert_eq!(masked(spec), shown);
        }
    }

    #[test]
    fn specs_without_a_password_are_shown_as_they_are() {
        for spec in [
            "stdout",
            "serial:/dev/ttyAMA0?baud=9600&wire=frame",
            "mqtts://li@broker?password_file=/etc/affectd/password&key=/etc/affectd/key.pem",
            "file:/var/log/passwords.jsonl?keep=2",
        ] {
            assert_eq!(masked(spec), spec);
        }
    }
}
