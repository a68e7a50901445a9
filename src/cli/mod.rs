//! The command line.

pub mod bench;
pub mod check;
pub mod model;

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
        /// Where estimates go: stdout, serial:/dev/ttyUSB0, file:/path; may be given more than once [default: stdout]
        ///
        /// Options come after a question mark: stdout?format=csv, serial:/dev/ttyAMA0?baud=115200&wire=frame,
        /// file:/var/log/affect.csv?format=csv&max_mb=10&keep=4&fsync=60. Frames are described in cross/wire.md.
        #[arg(long, value_name = "SPEC")]
        output: Vec<String>,
    },
    /// Say whether configuration, models, clip and outputs would work, and what would mend them
    Check {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        input: Input,
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
        /// Run each graph this often instead of for a second
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        iterations: Option<u32>,
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
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
    /// The folder with manifest.json and the models [default: where they were installed or built]
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
