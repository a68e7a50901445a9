//! What `--output` and `output = […]` name: a kind of output, a place and options, as in
//! `file:/var/log/affect.csv?format=csv&keep=3`.

use std::fmt;
use std::str::FromStr;

use super::file::FileSpec;
use super::lines::Format;
use super::mqtt::{Address, Mqtt};
use super::serial::SerialSpec;
use super::stdout::Stdout;
use super::{Output, OutputError, Service};

/// An output that can be opened, if the world plays along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputSpec {
    Stdout { format: Format },
    Serial(SerialSpec),
    File(FileSpec),
    Mqtt(Address),
}

impl OutputSpec {
    /// Opens it for `service`. An error means that waiting would not help.
    pub fn open(&self, service: &Service) -> Result<Box<dyn Output>, OutputError> {
        Ok(match self {
            OutputSpec::Stdout { format } => Box::new(Stdout::new(*format)),
            OutputSpec::Serial(serial) => Box::new(serial.open(service)?),
            OutputSpec::File(file) => Box::new(file.open(service)?),
            OutputSpec::Mqtt(address) => Box::new(Mqtt::open(address, service)?),
        })
    }

    /// Whether [`OutputSpec::open`] would work. Leaves nothing behind.
    pub fn check(&self) -> Result<(), OutputError> {
        match self {
            OutputSpec::Stdout { .. } => Ok(()),
            OutputSpec::Serial(serial) => serial.check(),
            OutputSpec::File(file) => file.check(),
            OutputSpec::Mqtt(address) => Mqtt::check(address),
        }
    }

    /// The kind, as threads and the log name it.
    pub fn kind(&self) -> &'static str {
        match self {
            OutputSpec::Stdout { .. } => "stdout",
            OutputSpec::Serial(_) => "serial",
            OutputSpec::File(_) => "file",
            OutputSpec::Mqtt(_) => "mqtt",
        }
    }

    /// Whether both write to the same place, whatever their options.
    pub fn same_place(&self, other: &OutputSpec) -> bool {
        match (self, other) {
            (OutputSpec::Stdout { .. }, OutputSpec::Stdout { .. }) => true,
            (OutputSpec::Serial(a), OutputSpec::Serial(b)) => a.path() == b.path(),
            (OutputSpec::File(a), OutputSpec::File(b)) => a.path() == b.path(),
            (OutputSpec::Mqtt(a), OutputSpec::Mqtt(b)) => a.same_topics(b),
            _ => false,
        }
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

impl FromStr for OutputSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        // Read apart: it has a form of its own, in which a question mark may be part of a password that must not be shown.
        if Address::is_one(spec) {
            return Address::parse(spec).map(OutputSpec::Mqtt);
        }
        let (place, options) = spec.split_once('?').unwrap_or((spec, ""));
        let options = Options::parse(options)?;
        let (kind, place) = place.split_once(':').unwrap_or((place, ""));
        match (kind, place) {
            ("stdout", "") => {
                let [format] = options.take(["format"])?;
                let format = option("format", format, Format::Json)?;
                Ok(OutputSpec::Stdout { format })
            }
            ("serial", path) => SerialSpec::parse(path, options).map(OutputSpec::Serial),
            ("file", path) => FileSpec::parse(path, options).map(OutputSpec::File),
            _ => Err("no such output: there is stdout, serial:/dev/ttyUSB0, file:/path, mqtt://broker".into()),
        }
    }
}

/// What stands after the question mark: `key=value`, separated by `&`.
pub struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    pub fn parse(text: &'a str) -> Result<Options<'a>, String> {
        let mut options: Vec<(&str, &str)> = Vec::new();
        for option in text.split('&').filter(|o| !o.is_empty()) {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| format!("\"{option}\" after the question mark is not key=value"))?;
            if options.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key} is given twice: keep one"));
            }
            options.push((key, value));
        }
        Ok(Options(options))
    }

    /// The values of `known` keys, in their order. Any other key is an error, so that a misspelt one is not ignored.
    pub fn take<const N: usize>(self, known: [&str; N]) -> Result<[Option<&'a str>; N], String> {
        if let Some((key, _)) = self.0.iter().find(|(key, _)| !known.contains(key)) {
            return Err(format!("no option {key}: there is {}", known.join(", ")));
        }
        Ok(known.map(|wanted| self.0.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value)))
    }
}

/// The value of an option, `default` where it is not given.
pub fn option<T: FromStr>(key: &str, value: Option<&str>, default: T) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    match value {
        None => Ok(default),
        Some(text) => text.parse().map_err(|why| format!("{key}={text}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_spec_is_shown_as_it_may_be_given() {
        for spec in [
            "stdout",
            "stdout?format=csv",
            "serial:/dev/ttyAMA0?baud=9600&wire=frame",
            "file:/var/log/affect.csv?format=csv&max_mb=2&keep=9&fsync=60",
        ] {
            let parsed: OutputSpec = spec.parse().unwrap();
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
    }

    #[test]
    fn one_place_has_one_output() {
        let same = |a: &str, b: &str| {
            let (a, b): (OutputSpec, OutputSpec) = (a.parse().unwrap(), b.parse().unwrap());
            a.same_place(&b)
        };
        assert!(same("stdout", "stdout?format=csv"));
        assert!(same("serial:/dev/x", "serial:/dev/x?wire=frame"));
        assert!(!same("serial:/dev/x", "serial:/dev/y"));
        assert!(!same("serial:/dev/x", "file:/dev/x"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_spec_or_an_error_of_one_line(text in "(stdout|serial:/|file:/|)[ -~]{0,40}") {
            match text.parse::<OutputSpec>() {
                Ok(spec) => prop_assert_eq!(spec.to_string().parse(), Ok(spec)),
                Err(why) => prop_assert!(!why.is_empty() && !why.contains('\n')),
            }
        }
    }
}
