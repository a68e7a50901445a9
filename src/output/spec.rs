//! Output specs, as in `--output` and `output = […]`: a kind, a place and options, for example
//! `file:/var/log/affect.csv?format=csv&keep=3`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::contract::{HostIdentity, Output, OutputContext, OutputError};
use super::file::FileSpec;
use super::line_encoder::Format;
use super::mqtt::{Address, Mqtt};
use super::options::Options;
use super::place::Place;
use super::serial::{Serial, SerialSpec};
use super::stdout::Stdout;

/// A valid spec of an output, which is not open yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputSpec {
    Stdout { format: Format },
    Serial(SerialSpec),
    File(FileSpec),
    Mqtt(Address),
}

/// Why two outputs cannot be open at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    SamePlace,
    /// The rotation of one gives the name of the other to an old file.
    NameOfOldFile,
}

impl OutputSpec {
    /// Parses a spec, in which a path may be any bytes. `host` and the error are those of [`OutputSpec::parse`].
    pub fn parse_os(spec: &OsStr, host: &HostIdentity) -> Result<OutputSpec, String> {
        if let Some(text) = spec.to_str() {
            return OutputSpec::parse(text, host);
        }
        let bytes = spec.as_bytes();
        let end = bytes.iter().position(|byte| *byte == b'?').unwrap_or(bytes.len());
        let (place, options) = bytes.split_at(end);
        let Ok(options) = str::from_utf8(options) else {
            return Err("its options must be UTF-8".into());
        };
        let options = Options::parse(options.strip_prefix('?').unwrap_or_default())?;
        if let Some(path) = place.strip_prefix(b"file:") {
            FileSpec::parse(OsStr::from_bytes(path), &options).map(OutputSpec::File)
        } else if let Some(path) = place.strip_prefix(b"serial:") {
            SerialSpec::parse(OsStr::from_bytes(path), &options).map(OutputSpec::Serial)
        } else {
            Err("must be UTF-8, except for the paths of file: and serial:".into())
        }
    }

    /// Parses a spec. `host` gives the default device name of an MQTT output. The error is one line without a password.
    pub fn parse(spec: &str, host: &HostIdentity) -> Result<OutputSpec, String> {
        // An address is parsed on its own: a question mark in it may belong to a password, which no error may show.
        if Address::is_address(spec) {
            return Address::parse(spec, host).map(OutputSpec::Mqtt);
        }
        let (place, options) = spec.split_once('?').unwrap_or((spec, ""));
        let options = Options::parse(options)?;
        let (kind, place) = place.split_once(':').unwrap_or((place, ""));
        match (kind, place) {
            ("stdout", "") => {
                options.allow_only(&["format"])?;
                let format = options.get_or("format", Format::Json)?;
                Ok(OutputSpec::Stdout { format })
            }
            ("serial" | "file", path) if path.starts_with('~') => Err(format!(
                "~ stands for the home folder only in a shell, at the start of a word: write the whole path, or \
                 {kind}:\"$HOME\"{}",
                path.trim_start_matches('~')
            )),
            ("serial", path) => SerialSpec::parse(path, &options).map(OutputSpec::Serial),
            ("file", path) => FileSpec::parse(path, &options).map(OutputSpec::File),
            (scheme, place) if place.starts_with("//") && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Err(format!(
                    "unknown scheme {scheme}://: a broker is mqtt://HOST, or mqtts://HOST with TLS, in small letters"
                ))
            }
            _ => Err("unknown output: use stdout, serial:/dev/ttyUSB0, file:/path or mqtt://broker".into()),
        }
    }

    /// Opens the output. It fails only if waiting would not help.
    pub fn open(&self, context: &OutputContext) -> Result<Box<dyn Output>, OutputError> {
        Ok(match self {
            OutputSpec::Stdout { format } => Box::new(Stdout::new(*format)),
            OutputSpec::Serial(serial) => Box::new(Serial::open(serial, context)?),
            OutputSpec::File(file) => Box::new(file.open(context)?),
            OutputSpec::Mqtt(address) => Box::new(Mqtt::open(address, context)?),
        })
    }

    /// Whether [`OutputSpec::open`] would succeed. Leaves nothing behind. Returns a description.
    pub fn check(&self, host: &HostIdentity) -> Result<String, OutputError> {
        match self {
            OutputSpec::Stdout { .. } => {}
            OutputSpec::Serial(serial) => serial.check()?,
            OutputSpec::File(file) => file.check()?,
            OutputSpec::Mqtt(address) => return Ok(format!("{self}: {}", Mqtt::check(address, host)?)),
        }
        Ok(self.to_string())
    }

    /// The kind of output, for thread names and the log.
    pub fn kind(&self) -> &'static str {
        match self {
            OutputSpec::Stdout { .. } => "stdout",
            OutputSpec::Serial(_) => "serial",
            OutputSpec::File(_) => "file",
            OutputSpec::Mqtt(_) => "mqtt",
        }
    }

    /// How both would disturb each other, with whatever options. It looks at the paths as they are now.
    pub fn conflict(&self, other: &OutputSpec) -> Option<Conflict> {
        let is_same = match (self, other) {
            (OutputSpec::Stdout { .. }, OutputSpec::Stdout { .. }) => true,
            (OutputSpec::Serial(a), OutputSpec::Serial(b)) => Place::of(a.path()).is_same(&Place::of(b.path())),
            (OutputSpec::File(a), OutputSpec::File(b)) => {
                let (a, b) = (Place::of(a.path()), Place::of(b.path()));
                if a.is_old_file_of(&b) || b.is_old_file_of(&a) {
                    return Some(Conflict::NameOfOldFile);
                }
                a.is_same(&b)
            }
            (OutputSpec::Stdout { .. }, OutputSpec::File(file))
            | (OutputSpec::File(file), OutputSpec::Stdout { .. }) => Place::of(file.path()).is_stdout(),
            (OutputSpec::Mqtt(a), OutputSpec::Mqtt(b)) => a.same_topics(b),
            _ => false,
        };
        is_same.then_some(Conflict::SamePlace)
    }

    /// Whether one must be closed before the other can be opened.
    pub fn conflicts_with(&self, other: &OutputSpec) -> bool {
        self.conflict(other).is_some()
    }
}

impl fmt::Display for OutputSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputSpec::Stdout { format: Format::Json } => f.write_str("stdout"),
            OutputSpec::Stdout { format } => write!(f, "stdout?format={format}"),
            OutputSpec::Serial(serial) => serial.fmt(f),
            OutputSpec::File(file) => file.fmt(f),
            OutputSpec::Mqtt(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(spec: &str) -> Result<OutputSpec, String> {
        OutputSpec::parse(spec, &HostIdentity::default())
    }

    #[test]
    fn displayed_specs_parse_to_the_same_spec() {
        for spec in [
            "stdout",
            "stdout?format=csv",
            "serial:/dev/ttyAMA0?baud=9600&wire=frame",
            "file:/var/log/affect.csv?format=csv&max_mb=2&keep=9&fsync=60",
        ] {
            let parsed = parse(spec).unwrap();
            assert_eq!(parse(&parsed.to_string()), Ok(parsed));
        }
    }

    #[test]
    fn paths_may_be_any_bytes_and_options_may_not() {
        let parse = |spec: &[u8]| OutputSpec::parse_os(OsStr::from_bytes(spec), &HostIdentity::default());
        let Ok(OutputSpec::File(file)) = parse(b"file:/caf\xe9.csv?format=csv") else {
            panic!("not a file")
        };
        assert_eq!(file.path().as_os_str().as_bytes(), b"/caf\xe9.csv");
        assert!(matches!(parse(b"serial:/dev/\xff"), Ok(OutputSpec::Serial(_))));
        assert_eq!(parse(b"stdout"), OutputSpec::parse("stdout", &HostIdentity::default()));
        insta::assert_snapshot!(parse(b"file:/x?format=\xff").unwrap_err(), @"its options must be UTF-8");
        insta::assert_snapshot!(parse(b"stdout\xff").unwrap_err(), @"must be UTF-8, except for the paths of file: and serial:");
    }

    #[test]
    fn a_home_folder_that_only_a_shell_knows_is_rejected() {
        insta::assert_snapshot!(parse("file:~/x.csv").unwrap_err(), @r#"~ stands for the home folder only in a shell, at the start of a word: write the whole path, or file:"$HOME"/x.csv"#);
    }

    #[test]
    fn conflicts_ignore_options() {
        let same = |a: &str, b: &str| parse(a).unwrap().conflict(&parse(b).unwrap()) == Some(Conflict::SamePlace);
        assert!(same("stdout", "stdout?format=csv"));
        assert!(same("serial:/dev/x", "serial:/dev/x?wire=frame"));
        assert!(!same("serial:/dev/x", "serial:/dev/y"));
        assert!(!same("serial:/dev/x", "file:/dev/x"));
        assert!(same("mqtt://b?version=5", "mqtt://b"));
        assert!(!same("mqtt://b?device=a", "mqtt://b?device=b"));
    }

    #[test]
    fn outputs_with_two_names_of_one_file_or_port_conflict() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::os::unix::fs::symlink("/dev/null", path("port")).unwrap();
        std::os::unix::fs::symlink("y.json", path("link.json")).unwrap();
        let conflict = |a: &str, b: &str| {
            let (a, b) = (parse(a).unwrap(), parse(b).unwrap());
            assert_eq!(a.conflict(&b), b.conflict(&a));
            a.conflict(&b)
        };
        let same = Some(Conflict::SamePlace);
        let file = |name: &str| format!("file:{}", path(name));
        assert_eq!(conflict(&file("y.json"), &file("link.json")), same);
        assert_eq!(conflict(&file("y.json"), &file("./y.json?format=csv")), same);
        assert_eq!(conflict(&file("y.json"), &file("z.json")), None);
        assert_eq!(conflict(&file("z"), &file("z.1")), Some(Conflict::NameOfOldFile));
        assert_eq!(conflict("serial:/dev/null", &format!("serial:{}", path("port"))), same);
        assert_eq!(conflict("serial:/dev/zero", &format!("serial:{}", path("port"))), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_spec_or_a_one_line_error(text in "(stdout|serial:/|file:/|)[ -~]{0,40}") {
            match parse(&text) {
                Ok(spec) => prop_assert_eq!(parse(&spec.to_string()), Ok(spec)),
                Err(why) => prop_assert!(!why.is_empty() && !why.contains('\n')),
            }
        }
    }
}
