//! Passwords in addresses. They are never shown: not in the log, in errors, in health reports or on standard output.

use std::ops::Range;

/// A shorter password is replaced only where it stands in an address.
const SHORTEST_REPLACED: usize = 4;
/// Texts that begin like this are addresses, however the rest of the scheme is spelt.
const SCHEMES: [&str; 4] = ["mqtt", "rtsp", "rtmp", "http"];

/// `message` without the passwords in `values`, which it may quote, and in words that look like addresses. For every message that
/// quotes what a user has written, in whatever place.
pub fn without_passwords<'a>(message: &str, values: impl IntoIterator<Item = &'a str>) -> String {
    let mut shown = message.to_owned();
    for value in values {
        let masked = masked(value);
        if masked != value {
            shown = shown.replace(value, &masked);
        }
        // A message may quote a part of an address only.
        if let Some(password) = password_of(value) {
            shown = shown.replace(password, "…");
        }
    }
    shown.split_inclusive(char::is_whitespace).map(masked_word).collect()
}

/// The password in the login of an address, unless it is so short that it may be a part of any word.
pub fn password_of(address: &str) -> Option<&str> {
    let password = &address[login_password(address)?];
    (address.contains("://") && password.len() >= SHORTEST_REPLACED).then_some(password)
}

/// The name of a device or a clip: as it is, or without the password if it is an address.
pub fn masked_name(name: &str) -> String {
    match name.contains("://") || is_scheme(name) {
        true => masked(name),
        false => name.to_owned(),
    }
}

/// A command without the passwords in its addresses, its options and its assignments.
pub fn masked_command(command: &str) -> String {
    /// What the next word is.
    enum Next {
        Any,
        Login,
        Secret,
        /// Everything up to the end: a header of HTTP has several words.
        Rest,
    }
    let mut next = Next::Any;
    let mask = |word: &str| {
        let core = word.trim_matches(|c: char| c.is_whitespace() || "\"'`".contains(c));
        let (shown, following) = match next {
            Next::Rest => (String::new(), Next::Rest),
            Next::Secret => (word.replacen(core, "…", 1), Next::Any),
            Next::Login => {
                let user = core.split_once(':').map_or(core, |(user, _)| user);
                (word.replacen(core, &format!("{user}:…"), 1), Next::Any)
            }
            Next::Any if core.ends_with(':') && is_secret(core) => (format!("{core} …"), Next::Rest),
            Next::Any => {
                let following = match core {
                    "-u" | "--user" => Next::Login,
                    "-p" | "-P" => Next::Secret,
                    long if long.starts_with("--") && !long.contains('=') && is_secret(long) => Next::Secret,
                    _ => Next::Any,
                };
                let assigned = secret_assignment(core).map(|secret| format!("{}…", &core[..secret]));
                let shown = assigned.map_or_else(|| masked_word(word), |assigned| word.replacen(core, &assigned, 1));
                (shown, following)
            }
        };
        if !core.is_empty() {
            next = following;
        }
        shown
    };
    command.split_inclusive(char::is_whitespace).map(mask).collect()
}

/// One word of a message. An address in it may be in quotes or brackets, and a colon or full stop may follow it.
fn masked_word(word: &str) -> String {
    let address = match word.find("://") {
        Some(separator) => {
            let of_scheme = word[..separator].bytes().rev().take_while(is_of_scheme).count();
            &word[separator - of_scheme..]
        }
        None => word.trim_start_matches(['"', '`', '\'', '(']),
    };
    let end = |c: char| c.is_whitespace() || "\"`'.,:;)]}>".contains(c);
    let address = address.trim_end_matches(end);
    match address.contains("://") || is_scheme(address) {
        true => word.replacen(address, &masked(address), 1),
        false => word.to_owned(),
    }
}

/// `text` with each password replaced by `…`: `user:password@` before a host, and options such as `password=`. `text` may be
/// misspelt, so the rules are wide. A path stays as it is.
pub fn masked(text: &str) -> String {
    if text.starts_with(['/', '.', '~']) {
        return text.to_owned();
    }
    // A spec may be given as the path of another output by mistake.
    for kind in ["file:", "serial:"] {
        if let Some(path) = text.strip_prefix(kind)
            && path.to_ascii_lowercase().starts_with("mqtt")
        {
            return format!("{kind}{}", masked(path));
        }
    }
    let mut shown = text.to_owned();
    let password = login_password(text)
        .or_else(|| password_as_port(text))
        .or_else(|| password_as_path(text));
    if let Some(password) = password {
        shown.replace_range(password, "…");
    }
    let option = secret_option(&shown, |key, value| is_secret(key) || is_secret_key(key, value));
    let assignment = match is_path_of_output(&shown) {
        true => None,
        false => secret_assignment(&shown),
    };
    if let Some(secret) = option.into_iter().chain(assignment).min() {
        // A password may contain `&`, so everything after it is hidden, too.
        shown.truncate(secret);
        shown.push('…');
    }
    shown
}

/// `message` with the passwords in its quoted parts replaced by `…`. For messages of parsers, which quote values.
pub fn masked_quotes(message: &str) -> String {
    // A quoted text may contain quotation marks, so it reaches to the last one.
    let message = match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            let quoted = masked(&message[first + 1..last]);
            format!("{}\"{quoted}\"{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    };
    let parts: Vec<_> = message.split('`').enumerate().collect();
    let masked = parts.into_iter().map(|(i, part)| match i % 2 {
        0 => part.to_owned(),
        _ => masked(part),
    });
    masked.collect::<Vec<_>>().join("`")
}

/// Whether one of the options is a password.
pub fn has_secret_option(spec: &str) -> bool {
    secret_option(spec, |key, _| is_secret(key)).is_some()
}

/// The place of the password in `mqtt://user:password@host`. The colon may be written as `%3A`, and the slashes may be wrong. A
/// password may contain `/`, `?` and `@`.
pub fn login_password(text: &str) -> Option<Range<usize>> {
    if is_path_of_output(text) {
        return None;
    }
    let start = start_of_login(text);
    let rest = &text[start..];
    let end = start + rest.rfind('@')?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (user, complete) = match authority.rsplit_once('@') {
        Some((user, _)) => (user, true),
        None => (authority, false),
    };
    let lower = user.to_ascii_lowercase();
    let colon = [
        lower.find(':').map(|at| at..at + 1),
        lower.find("%3a").map(|at| at..at + 3),
        // Misspelt.
        lower.find(';').map(|at| at..at + 1),
    ];
    let colon = colon.into_iter().flatten().min_by_key(|colon| colon.start)?;
    // Without an `@` before the options, the colon may come before a port.
    let before_options = rest.split('?').next().unwrap_or_default();
    let is_port = !before_options.contains('@')
        && !user[colon.end..].is_empty()
        && user[colon.end..].bytes().all(|b| b.is_ascii_digit());
    let is_address = user.starts_with('[');
    (complete || !is_port && !is_address).then_some(start + colon.end..end)
}

/// The place of a port that is not a number. It may be a password: in `mqtt://user:password` the host is missing.
fn password_as_port(text: &str) -> Option<Range<usize>> {
    let start = start_of_login(text);
    let authority = text[start..].split(['/', '?']).next().unwrap_or_default();
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    let colon = host + authority[host..].find(':')?;
    let port = &authority[colon + 1..];
    let is_password = start > 0 && !authority[host..].starts_with('[') && !port.bytes().all(|b| b.is_ascii_digit());
    is_password.then_some(start + colon + 1..start + authority.len())
}

/// The place of the text between a slash and `@`, as in `mqtt://user/password@host`.
fn password_as_path(text: &str) -> Option<Range<usize>> {
    if is_path_of_output(text) {
        return None;
    }
    let start = start_of_login(text);
    let rest = text[start..].split('?').next().unwrap_or_default();
    let (slash, at) = (rest.find('/')?, rest.rfind('@')?);
    let is_password = start > 0 && slash < at && !rest[..slash].contains('@');
    is_password.then_some(start + slash + 1..start + at)
}

fn is_path_of_output(text: &str) -> bool {
    ["file:", "serial:"].iter().any(|kind| text.starts_with(kind))
}

/// Where the user and host begin, after `mqtt://` or something like it.
fn start_of_login(text: &str) -> usize {
    let word = text.bytes().take_while(is_of_scheme).count();
    if text[word..].starts_with("://") {
        return word + 3;
    }
    let separator = text[word..].bytes().take_while(|b| b":;,/".contains(b)).count();
    if is_scheme(text) && separator > 0 {
        word + separator
    } else {
        0
    }
}

fn is_of_scheme(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(byte)
}

fn is_scheme(text: &str) -> bool {
    let begins = |scheme: &&str| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    SCHEMES.iter().any(begins)
}

/// Where the value of the first option begins that is secret. The sign between key and value may be escaped or missing.
fn secret_option(spec: &str, is_secret: impl Fn(&str, &str) -> bool) -> Option<usize> {
    let mut start = spec.find(['?', '&', ';'])? + 1;
    for option in spec[start..].split(['&', ';']) {
        let lower = option.to_ascii_lowercase();
        let signs = ["=", "%3d", ":"].map(|sign| lower.find(sign).map(|at| (at, at + sign.len())));
        let (key, value) = signs.into_iter().flatten().min().unwrap_or((option.len(), 0));
        if is_secret(&option[..key], &option[value..]) {
            return Some(start + value);
        }
        start += option.len() + 1;
    }
    None
}

/// Where the first value begins that is assigned to a secret, in whatever part of an address: some cameras have
/// `user=admin_password=…` in the path.
fn secret_assignment(text: &str) -> Option<usize> {
    text.match_indices('=').find_map(|(at, _)| {
        let before = &text[..at];
        let key = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "_-%".contains(c));
        let key = &before[key.len()..];
        let value = text[at + 1..].split(['&', ';']).next().unwrap_or_default();
        (is_secret(key) || is_secret_key(key, value)).then_some(at + 1)
    })
}

/// Whether this is a key itself, as in `api_key=`, and not the path of one.
fn is_secret_key(key: &str, value: &str) -> bool {
    let is_path = value.starts_with(['/', '.', '~']) || [".pem", ".key", ".der"].iter().any(|end| value.ends_with(end));
    key.to_ascii_lowercase().ends_with("key") && !is_path
}

fn is_secret(key: &str) -> bool {
    // Also with an escaped letter, as in `%70assword`.
    let key = key.to_ascii_lowercase().replace("%70", "p");
    // Some are misspelt often, and some are of other programs.
    let words = [
        "pas",
        "pwd",
        "psw",
        "pw",
        "secret",
        "token",
        "auth",
        "cred",
        "kennwort",
        "login",
        "jwt",
        "signature",
    ];
    let is_short = matches!(key.as_str(), "p" | "sig");
    // A file's path is no secret.
    !key.ends_with("_file") && (is_short || words.iter().any(|word| key.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        for (spec, shown) in [
            ("mqtt://li:hunter2@broker/x", "mqtt://li:…@broker/x"),
            ("mqtt://li:12345/hunter2@broker", "mqtt://li:…@broker"),
            ("mqtt://li:hunter2", "mqtt://li:…"),
            ("mqtt://li@broker:hunter2/x", "mqtt://li@broker:…/x"),
            ("file:mqtt://li:hunter2@broker", "file:mqtt://li:…@broker"),
            ("mqtt://b?auth=hunter2", "mqtt://b?auth=…"),
            ("mqtt://b?%70assword=hunter2", "mqtt://b?%70assword=…"),
            ("mqtt://li:hun/t?e@r2@b/x", "mqtt://li:…@b/x"),
            ("mqtt://li%3Ahunter2@b", "mqtt://li%3A…@b"),
            ("mqtt://li%3ahun/ter2@b", "mqtt://li%3a…@b"),
            ("mqtt//li:hunter2@b", "mqtt//li:…@b"),
            ("mqtt:/li:hunter2@b", "mqtt:/li:…@b"),
            ("mqtt:li:hunter2@b", "mqtt:li:…@b"),
            ("MQTTS://li:hunter2@b", "MQTTS://li:…@b"),
            ("http://li:hunter2@b", "http://li:…@b"),
            ("li:hunter2@b", "li:…@b"),
            ("mqtt://broker?password=hunter2", "mqtt://broker?password=…"),
            (
                "mqtt://broker?device=hall&PassWord=hun&ter2",
                "mqtt://broker?device=hall&PassWord=…",
            ),
            ("mqtt://broker&pasword=hunter2", "mqtt://broker&pasword=…"),
            ("mqtt://li:hunter2@b?pw=hunter2", "mqtt://li:…@b?pw=…"),
            ("file:/tmp/x?token=hunter2", "file:/tmp/x?token=…"),
            ("stdout?pw=hunter2", "stdout?pw=…"),
            ("mqtt;//li:hunter2@b", "mqtt;//li:…@b"),
            ("mqtt://li/hunter2@b", "mqtt://li/…@b"),
            ("mqtt://li/hun/ter2@b?version=5", "mqtt://li/…@b?version=5"),
            ("mqtt://b?password%3Dhunter2", "mqtt://b?password%3D…"),
            ("mqtt://b?password:hunter2", "mqtt://b?password:…"),
            ("mqtt://b?passwordhunter2", "mqtt://b?…"),
            ("mqtt://b?api_key=hunter2", "mqtt://b?api_key=…"),
            ("--input=mqtt://b?password=hunter2", "--input=mqtt://b?password=…"),
            ("mqtt://u@h,pass=hunter2", "mqtt://u@h,pass=…"),
            ("mqtt://u;hunter2@h", "mqtt://u;…@h"),
            ("RTSP://li:hunter2@cam/x", "RTSP://li:…@cam/x"),
            ("rtsp:/li:hunter2@cam", "rtsp:/li:…@cam"),
            ("rtsp//li:hunter2@cam", "rtsp//li:…@cam"),
            ("rtsps:li:hunter2@cam", "rtsps:li:…@cam"),
            (
                "rtsp://cam/user=admin_password=hunter2_channel=1_stream=0.sdp",
                "rtsp://cam/user=admin_password=…",
            ),
            ("http://cam/x?key=hunter2/a", "http://cam/x?key=…"),
            ("http://cam/x?u=admin&p=hunter2", "http://cam/x?u=admin&p=…"),
            ("http://cam/x?loginuse=a&psw=hunter2", "http://cam/x?loginuse=…"),
            ("http://cam/x?psw=hunter2", "http://cam/x?psw=…"),
            ("http://cam/x?sig=hunter2", "http://cam/x?sig=…"),
            ("http://cam/x?jwt=hunter2", "http://cam/x?jwt=…"),
            ("http://cam/x#password=hunter2", "http://cam/x#password=…"),
        ] {
            assert_eq!(masked(spec), shown);
        }
    }

    #[test]
    fn a_password_that_a_program_quotes_is_masked() {
        let address = "rtsp://li:a b hunter2@cam/x";
        assert_eq!(without_passwords("li:a b hunter2@cam: 401", [address]), "li:…@cam: 401");
        // A short one may be a part of any word.
        assert_eq!(without_passwords("camera: 401", ["rtsp://li:a@cam"]), "camera: 401");
        assert_eq!(
            without_passwords("rtsp://li:a@cam: 401", ["rtsp://li:a@cam"]),
            "rtsp://li:…@cam: 401"
        );
    }

    #[test]
    fn only_addresses_are_masked_in_names_of_devices() {
        for name in ["plughw:CARD=pass,DEV=0", "/dev/video0", "a:b@c.mkv", "auto"] {
            assert_eq!(masked_name(name), name);
        }
        assert_eq!(masked_name("rtmp://u:hunter2@cam/x"), "rtmp://u:…@cam/x");
        assert_eq!(masked_name("rtsp//u:hunter2@cam/x"), "rtsp//u:…@cam/x");
    }

    #[test]
    fn passwords_in_commands_are_masked() {
        for (command, shown) in [
            ("curl -u bob:hunter2 http://cam/x", "curl -u bob:… http://cam/x"),
            (
                "curl --user 'bob:hunter2' http://cam/x",
                "curl --user 'bob:…' http://cam/x",
            ),
            ("x --password=hunter2 -v", "x --password=… -v"),
            ("x --password hunter2 -v", "x --password … -v"),
            ("PASS=hunter2 x", "PASS=… x"),
            (
                "ffmpeg -i rtsp://u:hunter2@cam/x -f mjpeg -",
                "ffmpeg -i rtsp://u:…@cam/x -f mjpeg -",
            ),
            ("sshpass -p hunter2 ssh cam", "sshpass -p … ssh cam"),
            (
                "curl -H 'Authorization: Bearer hunter2' http://cam",
                "curl -H Authorization: …",
            ),
            (
                "gst-launch-1.0 -q videotestsrc ! 'video/x-raw,width=640' ! fdsink",
                "gst-launch-1.0 -q videotestsrc ! 'video/x-raw,width=640' ! fdsink",
            ),
        ] {
            assert_eq!(masked_command(command), shown);
        }
    }

    #[test]
    fn specs_without_a_password_are_shown_as_they_are() {
        for spec in [
            "stdout",
            "serial:/dev/ttyAMA0?baud=9600&wire=frame",
            "mqtts://li@broker?password_file=/etc/affectd/password&key=/etc/affectd/key.pem",
            "mqtt://li@b:1883/x",
            "mqtts://b:8883?ca=/etc/affectd@hall/ca.pem",
            "mqtts://[fd00::1]:8883?ca=/etc/affectd@hall/ca.pem",
            "file:/var/log/passwords.jsonl?keep=2",
            "file:/var/log/a:b@c.jsonl",
            "/models?token=1",
            "./li:x@y?password=1",
            "mqtt://li@b/home/mood",
        ] {
            assert_eq!(masked(spec), spec);
        }
    }

    #[test]
    fn passwords_in_messages_of_parsers_are_masked() {
        let masked = masked_quotes;
        insta::assert_snapshot!(masked(r#"invalid type: string "mqtt://li:hun\"ter2@b", expected a sequence"#), @r#"invalid type: string "mqtt://li:…@b", expected a sequence"#);
        insta::assert_snapshot!(masked("unknown field `mqtt://li:hunter2@b`, expected one of `models`, `output`"), @"unknown field `mqtt://li:…@b`, expected one of `models`, `output`");
    }

    #[test]
    fn passwords_in_messages_that_quote_anything_are_masked() {
        let address = "mqtt://li:hun ter2@b";
        insta::assert_snapshot!(without_passwords("mqtt://li:hun ter2@b: cannot be read: check the path", [address]), @"mqtt://li:…@b: cannot be read: check the path");
        insta::assert_snapshot!(without_passwords("file \"mqtt://li:hunter2@b\": missing\nsee mqtt://b?pw=hunter2", []), @r#"
        file "mqtt://li:…@b": missing
        see mqtt://b?pw=…
        "#);
        for message in [
            "mqtts://li@localhost:8883/affectd/d: no secure connection: add ca=/path/to/ca.pem",
            "/models?token=1: cannot be read",
            "password_file is given without a user: write mqtt://user@host",
            "unknown scheme http://: write mqtt:// or mqtts://",
            "rtsp://cam.local:554: 401 (http://x/y?z=a@b)",
            "[rtsp://[fd00::1]:554]: no answer",
        ] {
            assert_eq!(without_passwords(message, ["/models?token=1", "check"]), message);
        }
    }

    #[test]
    fn an_address_is_found_wherever_it_stands_in_a_word() {
        for (before, after) in [
            ("", ""),
            ("[", "]:"),
            ("Url(\"", "\"),"),
            ("uri=", ";"),
            ("-i'", "'."),
            ("é", "\n"),
        ] {
            let message = |password| format!("x {before}rtsp://bob:{password}@cam.local/stream{after} y");
            assert_eq!(without_passwords(&message("p@ss"), []), message("…"));
        }
        let two = "mqtt://a:hunter2@b,mqtt://c:hunter2@d";
        assert!(!without_passwords(two, []).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_login_shows_its_password(
            scheme in "(mqtt|mqtts|MQTT|rtsp|rtsps|http|tcp)", separator in "(://|:/|//|:|;//)", colon in "(:|%3A|%3a)", password in "[a-z/?&]{0,6}hunter2",
        ) {
            prop_assume!(scheme != "tcp" || separator == "://");
            let shown = masked(&format!("{scheme}{separator}li{colon}{password}@broker/x"));
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            masked(&text);
            masked_quotes(&text);
            without_passwords(&text, [text.as_str()]);
            masked_name(&text);
            masked_command(&text);
        }
    }
}
