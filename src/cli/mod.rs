//! The command line.

pub mod bench;
pub mod check;
pub mod devices;
pub mod model;
pub mod record;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;

/// Valence and arousal from a camera and a microphone, on the board itself.
///
/// Estimates go to standard output or the outputs you name, logs to standard error.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str =
    "Environment: AFFECTD_LOG sets the log level (error, warn, info, debug); every configuration key has a
variable, face.rate_hz for instance AFFECTD_FACE_RATE_HZ.
Exit codes: 0 done, 2 usage or configuration, 3 camera, microphone or clip, 4 models, 5 output, 70 a bug.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Estimate, and write one line a tick to each output
    Run {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        input: Input,
        /// Where estimates go: stdout, serial:/dev/ttyUSB0, file:/path, mqtt://broker; may be given more than once
        /// [default: stdout]
        ///
        /// Options come after a question mark: stdout?format=csv, serial:/dev/ttyAMA0?baud=115200&wire=frame,
        /// file:/var/log/affect.csv?format=csv&max_mb=10&keep=4&fsync=60,
        /// mqtts://user@broker:8883/topic?version=5&device=NAME&password_file=PATH&ca=PEM&cert=PEM&key=PEM&discovery=off&spool=10m.
        /// Frames are described in cross/wire.md.
        #[arg(long, value_name = "SPEC")]
        output: Vec<String>,
    },
    /// Say whether configuration, models, devices or clip, and outputs would work, and what would mend them
    ///
    /// Camera and microphone are watched for two seconds.
    Check {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        input: Input,
    },
    /// List cameras, microphones and serial ports, and which of them `auto` takes
    Devices {
        #[command(flatten)]
        common: Common,
        /// One JSON object instead of a list
        #[arg(long)]
        json: bool,
    },
    /// Record camera and microphone to a clip that `run --input` replays
    Record {
        #[command(flatten)]
        common: Common,
        /// The clip, which must not exist yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Everybody who will be seen or heard has agreed to it
        #[arg(long, required = true)]
        i_have_consent: bool,
        /// Stop when the clip is this large
        #[arg(long, value_name = "MB", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
        max_mb: u64,
    },
    /// Measure how fast the graphs run on this machine, one thread
    ///
    /// AFFECTD_KERNEL forces the kernels: tract for none of ours, or a name that this command shows.
    Bench {
        #[command(flatten)]
        common: Common,
        /// Measure this ONNX file instead of the models
        #[arg(long, value_name = "FILE")]
        model: Option<PathBuf>,
        /// Measure the pipeline on this clip [default: the demo clip, if it is installed]
        #[arg(long, value_name = "CLIP", conflicts_with = "model")]
        input: Option<PathBuf>,
        /// Run each graph this often instead of for a second
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        iterations: Option<u32>,
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show what a device sends: valence and arousal as a picture in the terminal
    Monitor {
        /// serial:/dev/ttyUSB0?wire=frame, mqtt://broker/affectd/kitchen, a file of lines, or - for standard input
        source: String,
        /// Draw the session as a picture when it ends
        #[arg(long, value_name = "FILE.svg")]
        save: Option<PathBuf>,
        /// Lines of text, as where standard output is no terminal
        #[arg(long)]
        plain: bool,
    },
    /// Show the model card: what the models are, what they were trained on, how good they are, their licence
    Model {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub struct Common {
    /// The configuration file [default: /etc/affectd/affectd.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "AFFECTD_CONFIG")]
    pub config: Option<PathBuf>,
    /// A folder with manifest.json and other models [default: the embedded models]
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Input {
    /// A clip to read instead of camera and microphone
    #[arg(long = "input", value_name = "CLIP")]
    pub clip: Option<PathBuf>,
    /// Play the clip by the clock, as if it came from devices
    #[arg(long, requires = "clip")]
    pub realtime: bool,
}

impl Common {
    /// These flags as configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            models: self.models.clone(),
            ..Overrides::default()
        }
    }
}

impl Input {
    /// Adds these flags to `overrides`.
    pub fn over(&self, overrides: Overrides) -> Overrides {
        Overrides {
            clip: self.clip.clone(),
            realtime: self.realtime,
            ..overrides
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }
}
