//! The command line.

pub mod bench;
pub mod check;
pub mod config;
pub mod devices;
pub mod environment;
pub mod error;
pub mod forget;
pub mod health;
pub mod level;
pub mod log;
pub mod model;
pub mod panics;
pub mod progress;
pub mod record;
pub mod signals;
pub mod stderr;
pub mod terminal;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::Flags;
use crate::monitor::PlotFile;
use crate::output::mqtt::DeviceName;
pub use error::CommandError;

/// Such as `0.1.0 (162dcda 2026-11-29, aarch64, release)`. The build script provides the part in parentheses.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_IDENTITY"), ")");

const ENVIRONMENT_AND_EXIT_CODES: &str = "\
Environment:
  AFFECTD_CONFIG  The configuration file.
  AFFECTD_LOG     The log level: off, error, warn, info, debug or trace [default: info].
  AFFECTD_KERNEL  The kernels to use instead of the fastest: a name from `affectd bench`, or tract.
  AFFECTD_PAUSED  1 makes `affectd run` start paused, with the camera and the microphone closed.
  AFFECTD_*       One configuration key each: AFFECTD_FACE_RATE_HZ sets face.rate_hz.

Exit codes:
  0   Done.
  1   affectd has a problem, or is not running: only `affectd health`.
  2   The command line or the configuration is wrong.
  3   A camera, microphone or clip cannot be used.
  4   The models cannot be used.
  5   An output cannot be used.
  70  A bug in affectd.
  71  The system refuses a thread.";

/// Estimates valence and arousal from a camera and a microphone, on this machine
///
/// Estimates go to standard output or to the outputs you name. Logs go to standard error.
#[derive(Debug, Parser)]
#[command(version = VERSION, after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Estimate, and write one line per estimate to each output
    ///
    /// Reads the camera and the microphone until it is stopped, or a clip until its end. SIGHUP reloads the
    /// configuration. SIGUSR1 closes the camera and the microphone, and SIGUSR2 opens them again.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Run {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        outputs: Outputs,
        #[command(flatten)]
        page: Page,
    },
    /// Check the configuration, models, devices or clip, and outputs, and say how to fix what is wrong
    ///
    /// Watches the camera and the microphone for two seconds. Tests the outputs that `run` with the same arguments would use. Publishes
    /// nothing. The exit code is that of the first part that fails.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Check {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        outputs: Outputs,
        #[command(flatten)]
        page: Page,
        /// Show what the camera and the microphone see and hear, until Ctrl-C, to aim them
        ///
        /// In a terminal, one line is updated. Otherwise, one line is printed each second. Outputs are not tested.
        #[arg(long, conflicts_with = "clip")]
        watch: bool,
        /// Print one JSON object instead of lines of text, or one each second with --watch
        #[arg(long)]
        json: bool,
    },
    /// List cameras, microphones and serial ports, and which of them `auto` chooses
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Devices {
        #[command(flatten)]
        common: Common,
        /// Print one JSON object instead of a list
        #[arg(long)]
        json: bool,
    },
    /// Record the camera and the microphone to a clip for `run --input`
    ///
    /// Records until it is stopped. The clip stays readable however the recording ends.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Record {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        devices: Devices,
        /// The clip to write (Matroska). The file must not exist yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Confirm that everybody who will be seen or heard has agreed to the recording
        #[arg(long, required = true)]
        i_have_consent: bool,
        /// Stop when the clip has this size
        #[arg(long, value_name = "MB", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
        max_mb: u64,
    },
    /// Measure the speed of the models and of the whole pipeline on this machine
    ///
    /// Uses one thread. AFFECTD_KERNEL selects the kernels: a name that this command prints, or tract.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Bench {
        #[command(flatten)]
        common: Common,
        /// Measure this ONNX file instead of the models
        #[arg(long, value_name = "FILE")]
        model: Option<PathBuf>,
        /// Measure the pipeline on this clip [default: the demo clip, if it is installed]
        #[arg(long, value_name = "CLIP", conflicts_with = "model")]
        input: Option<PathBuf>,
        /// Run each graph N times instead of for one second
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        iterations: Option<u32>,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show the estimates that a device sends, in the terminal
    ///
    /// Reads JSON lines, CSV rows and frames, and also what other programs have recorded: a journal, a capture of a serial
    /// port, or the lines of `mosquitto_sub -v`. A file is followed while it is written, as by `tail -F`. Press q to quit.
    /// Without a terminal it prints lines of text.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Monitor {
        /// Where to read: serial:/dev/ttyUSB0?baud=115200, mqtt://broker/affectd/kitchen, a file of estimates, or - for
        /// standard input
        source: String,
        /// Draw the session into this file when it ends: SVG or PNG, by its suffix
        #[arg(long, value_name = "FILE")]
        save: Option<PlotFile>,
        /// Print lines of text, even in a terminal
        #[arg(long)]
        plain: bool,
        /// Use ASCII characters only, as without a locale with UTF-8 and on the Linux console
        #[arg(long)]
        ascii: bool,
    },
    /// Delete a device that is gone from the MQTT brokers and from Home Assistant
    ///
    /// Brokers keep the announcement, the status and the health report of a device for ever: after a change of its name on
    /// another system, or after a test. This command deletes them and prints the topics. It leaves a device alone that is
    /// online.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Forget {
        #[command(flatten)]
        common: Common,
        /// The name of the device, as in device=NAME
        #[arg(value_name = "DEVICE")]
        device: DeviceName,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Show the health of the running service: devices, counters, latency, temperature, and what is wrong
    ///
    /// The exit code is 1 if something is wrong or if affectd does not run, for scripts and containers.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Health {
        /// The socket of the affectd to ask [default: $RUNTIME_DIRECTORY/health.sock, or /run/affectd/health.sock]
        #[arg(long, value_name = "FILE")]
        socket: Option<PathBuf>,
        /// Print the health record as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the model card: the models, their training data, their accuracy and their licences
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Model {
        #[command(flatten)]
        common: Common,
    },
    /// Show the effective configuration, with the origin of each value
    ///
    /// Prints a configuration file with all keys. A comment after each value names its origin: default, file,
    /// environment or flag. Passwords are never shown.
    #[command(after_long_help = ENVIRONMENT_AND_EXIT_CODES)]
    Config {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        outputs: Outputs,
        #[command(flatten)]
        page: Page,
        /// Print one JSON object, {"KEY": {"value": …, "origin": …}, …}, instead
        #[arg(long)]
        json: bool,
    },
    /// Print the completion script for a shell
    ///
    /// For example, in bash: source <(affectd completions bash)
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub struct Common {
    /// The configuration file [default: $AFFECTD_CONFIG, or /etc/affectd/affectd.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A folder with manifest.json and other models [default: the embedded models]
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
}

/// Which devices to read.
#[derive(Debug, Args)]
pub struct Devices {
    /// Read this camera: a name from `affectd devices`, auto or off
    #[arg(long, value_name = "DEVICE")]
    pub camera: Option<String>,
    /// Read this microphone: a name from `affectd devices`, an ALSA name, auto or off
    #[arg(long, value_name = "DEVICE")]
    pub microphone: Option<String>,
}

#[derive(Debug, Args)]
pub struct Input {
    #[command(flatten)]
    pub devices: Devices,
    /// Turn the image clockwise, for a camera that is mounted on its side or upside down: 0, 90, 180 or 270
    #[arg(long, value_name = "DEGREES")]
    pub rotate: Option<u32>,
    /// Read this clip instead of the camera and the microphone: a file, - for standard input, or an http:// address
    #[arg(long = "input", value_name = "CLIP", conflicts_with_all = ["camera", "microphone"])]
    pub clip: Option<PathBuf>,
    /// Play the clip at its own speed, as if it came from devices
    #[arg(long, requires = "clip")]
    pub realtime: bool,
}

#[derive(Debug, Args)]
pub struct Outputs {
    /// Where estimates go: stdout, serial:/dev/ttyUSB0, file:/path or mqtt://broker. Can be given more than once
    /// [default: stdout]
    ///
    /// Options follow a question mark, with & between them: stdout?format=csv,
    /// serial:/dev/ttyAMA0?baud=115200&wire=frame, file:/var/log/affect.csv?format=csv&max_mb=10&keep=4&fsync=60,
    /// mqtts://user@broker:8883/topic?device=NAME&ca=PEM. An MQTT output also has the options version, password_file, cert,
    /// key, discovery, prefix, spool, qos and retain.
    /// /usr/share/doc/affectd/cross/wire.md, or cross/wire.md in the repository, describes the frames of wire=frame.
    #[arg(long = "output", value_name = "SPEC")]
    pub specs: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Page {
    /// Serve the status page, metrics and commands over HTTP on this address, for example 127.0.0.1:8787, or off
    ///
    /// Any address but that of this machine itself (loopback) needs a token: status.token in the configuration.
    #[arg(long, value_name = "ADDRESS")]
    pub status: Option<String>,
}

impl Command {
    /// The flags that most commands have.
    pub fn common(&self) -> Option<&Common> {
        match self {
            Command::Run { common, .. }
            | Command::Check { common, .. }
            | Command::Devices { common, .. }
            | Command::Record { common, .. }
            | Command::Bench { common, .. }
            | Command::Forget { common, .. }
            | Command::Model { common }
            | Command::Config { common, .. } => Some(common),
            Command::Health { .. } | Command::Monitor { .. } | Command::Completions { .. } => None,
        }
    }
}

impl Common {
    /// These flags as settings.
    pub fn flags(&self) -> Flags {
        Flags {
            models: self.models.clone(),
            ..Flags::default()
        }
    }
}

impl Devices {
    /// Adds these flags to `flags`.
    pub fn add_to(&self, flags: Flags) -> Flags {
        Flags {
            camera: self.camera.clone(),
            microphone: self.microphone.clone(),
            ..flags
        }
    }
}

impl Input {
    /// Adds these flags to `flags`.
    pub fn add_to(&self, flags: Flags) -> Flags {
        Flags {
            rotate: self.rotate,
            clip: self.clip.clone(),
            realtime: self.realtime,
            ..self.devices.add_to(flags)
        }
    }
}

impl Outputs {
    /// Adds these flags to `flags`.
    pub fn add_to(&self, flags: Flags) -> Flags {
        Flags {
            outputs: self.specs.clone(),
            ..flags
        }
    }
}

impl Page {
    /// Adds these flags to `flags`.
    pub fn add_to(&self, flags: Flags) -> Flags {
        Flags {
            status: self.status.clone(),
            ..flags
        }
    }
}

#[cfg(test)]
mod tests;
