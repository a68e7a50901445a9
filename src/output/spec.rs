//! What `--output` and `output = […]` name: a kind of output, a place and options, as in
//! `file:/var/log/affect.csv?format=csv&keep=3`.

use std::fmt;
use std::str::FromStr;

use super::lines::Format;
use super::stdout::Stdout;
use super::{Output, OutputError, Service};

/// An output that can be opened, if the world plays along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputSpec {
    Stdout { format: Format },
}

impl OutputSpec {
    /// Opens it for `service`. An error means that waiting would not help.
    pub fn open(&self, service: &Service) -> Result<Box<dyn Output>, OutputError> {
        let _ = service;
        Ok(match self {
            OutputSpec::Stdout { format } => Box::new(Stdout::new(*format)),
        })
    }

    /// Whether [`OutputSpec::open`] would work. Leaves nothing behind.
    pub fn check(&self) -> Result<(), OutputError> {
        match self {
            OutputSpec::Stdout { .. } => Ok(()),
        }
    }

    /// The kind, as threads and the log name it.
    pub fn kind(&self) -> &'static str {
        match self {
            OutputSpec::Stdout { .. } => "stdout",
        }
    }

    /// Whether both write to the same place, whatever their options.
    pub fn same_place(&self, other: &OutputSpec) -> bool {
        match (self, other) {
            (OutputSpec::Stdout { .. }, OutputSpec::Stdout { .. }) => true,
        }
    }
}

impl fmt::Display for OutputSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputSpec::Stdout { format: Format::Json } => f.write_str("stdout"),
            OutputSpec::Stdout { format } => write!(f, "stdout?format={format}"),
        }
    }
}

impl FromStr for OutputSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        let (place, options) = spec.split_once('?').unwrap_or((spec, ""));
        let options = Options::parse(options)?;
        match place.split_once(':') {
            None if place == "stdout" => {
                let [format] = options.take(["format"])?;
                let format = option("format", format, Format::Json)?;
                Ok(OutputSpec::Stdout { format })
            }
            _ => Err("no such output: name stdout".into()),
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
