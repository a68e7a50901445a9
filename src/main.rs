//! Reads the environment, runs the command, and chooses the exit code.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use affectd::cli::environment::Environment;
use affectd::cli::record::RecordError;
use affectd::cli::{self, Cli, Command, CommandError, Common};
use affectd::config::{Config, ConfigError, Flags, Layers, Settings};
use affectd::daemon::{self, DaemonError, Ending, Signals};
use affectd::model::{Bundle, KernelChoice, ModelError};
use affectd::monitor::{self, MonitorError};
use affectd::output::{HostIdentity, masked};
use clap::{CommandFactory, Parser};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

fn main() -> ExitCode {
    match run(parse_arguments()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("affectd: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Parses the arguments. Ends the process, as clap does, if they are invalid or ask for help.
fn parse_arguments() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        // The message quotes an argument, which may be an address with a password.
        let text = error.render().to_string();
        let shown = std::env::args().fold(text.clone(), |text, argument| {
            text.replace(&argument, &masked(&argument))
        });
        if shown == text {
            error.exit();
        }
        eprint!("{shown}");
        std::process::exit(error.exit_code())
    })
}

/// Users and scripts rely on these codes.
fn exit_code(error: &CommandError) -> u8 {
    const CONFIGURATION: u8 = 2;
    const SOURCE: u8 = 3;
    const MODELS: u8 = 4;
    const OUTPUT: u8 = 5;
    const BUG: u8 = 70;
    match error {
        CommandError::Config(ConfigError::Output { .. }) => OUTPUT,
        CommandError::Config(_) | CommandError::NoBroker => CONFIGURATION,
        CommandError::Capture(_) => SOURCE,
        CommandError::Model(_) => MODELS,
        CommandError::Output(_) | CommandError::NotPrinted(_) => OUTPUT,
        CommandError::Daemon(error) => match error {
            DaemonError::Source(_) => SOURCE,
            DaemonError::Model(_) => MODELS,
            DaemonError::Output(_) => OUTPUT,
            DaemonError::Internal(_) => BUG,
        },
        CommandError::Monitor(error) => match error {
            MonitorError::Source(_) | MonitorError::Display(_) => OUTPUT,
            MonitorError::Internal(_) => BUG,
        },
        CommandError::Record(error) => match error {
            RecordError::InputIsClip | RecordError::Capture(_) | RecordError::NothingCaptured => SOURCE,
            RecordError::FileExists(_) | RecordError::NotWritten { .. } => OUTPUT,
        },
        CommandError::Signal(_) | CommandError::NotRestarted(_) => BUG,
    }
}

fn run(cli: Cli) -> Result<(), CommandError> {
    let environment = &Environment::parse(std::env::vars_os())?;
    env_logger::Builder::new().parse_filters(&environment.log).init();
    let host = Arc::new(host_identity(environment));
    let load = |common: &Common, flags: &Flags| -> Result<Config, ConfigError> {
        Config::load(&layers(common, flags, environment), &host)
    };
    // Only for commands that run a graph, so that an unknown kernel does not stop the others.
    let kernel_choice = || -> Result<KernelChoice, ModelError> {
        Ok(KernelChoice::parse(environment.kernel.as_deref().unwrap_or_default())?)
    };
    let load_with = |kernel: KernelChoice, common: &Common, flags: &Flags| -> Result<Config, ConfigError> {
        load(common, flags).map(|config| Config { kernel, ..config })
    };
    match cli.command {
        Command::Run { common, input, outputs } => {
            let flags = outputs.add_to(input.add_to(common.flags()));
            let kernel = kernel_choice()?;
            let config = load_with(kernel, &common, &flags)?;
            let signals = Signals {
                stop: stop_on_signals()?,
                reload: reload_on_signal()?,
            };
            let fault = environment.fault.as_deref().and_then(daemon::Fault::from_name);
            let read_config = || load_with(kernel, &common, &flags);
            match daemon::run(config, &host, &signals, fault, read_config)? {
                Ending::Done => Ok(()),
                Ending::RestartRequested => restart(),
            }
        }
        Command::Check { common, input } => {
            let config = load_with(kernel_choice()?, &common, &input.add_to(common.flags()))?;
            cli::check::check(&config, &host)
        }
        Command::Devices { common, json } => {
            let config = load(&common, &common.flags())?;
            print(&cli::devices::list(&config, json))
        }
        Command::Record {
            common, file, max_mb, ..
        } => {
            let config = load(&common, &common.flags())?;
            let stop = stop_on_signals()?;
            Ok(cli::record::record(&config, &file, max_mb, &stop)?)
        }
        Command::Bench {
            common,
            model,
            input,
            iterations,
            json,
        } => {
            let runs = iterations.map(|n| n as usize);
            let report = match model {
                Some(path) => cli::bench::file(&path, kernel_choice()?, runs)?,
                None => {
                    let config = load_with(kernel_choice()?, &common, &common.flags())?;
                    cli::bench::models(&config, input.as_deref(), runs)?
                }
            };
            report.print(json);
            Ok(())
        }
        Command::Monitor { source, save, plain } => {
            let stop = stop_on_signals()?;
            Ok(monitor::run(&monitor::Options { source, save, plain }, &host, &stop)?)
        }
        Command::Forget {
            common,
            device,
            outputs,
        } => {
            let config = load(&common, &outputs.add_to(common.flags()))?;
            print(&cli::forget::forget(&config, &device, &host)?)
        }
        Command::Model { common } => {
            let config = load(&common, &common.flags())?;
            let bundle = Bundle::open(config.models.as_deref(), config.kernel)?;
            print(&cli::model::card(&bundle)?)
        }
        Command::Config {
            common,
            input,
            outputs,
            json,
        } => {
            let flags = outputs.add_to(input.add_to(common.flags()));
            let settings = Settings::read(&layers(&common, &flags, environment))?;
            Config::from_settings(&settings, &host)?;
            print(&match json {
                true => cli::config::to_json(&settings),
                false => cli::config::to_toml(&settings),
            })
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "affectd", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Replaces this process with a new affectd with the same arguments, so that a restart also works without systemd.
fn restart() -> Result<(), CommandError> {
    let mut arguments = std::env::args_os();
    // Not `current_exe`: after an upgrade, that is the deleted old program.
    let program = arguments.next().unwrap_or_else(|| "affectd".into());
    Err(CommandError::NotRestarted(
        process::Command::new(program).args(arguments).exec(),
    ))
}

/// The identity of this machine. Values that cannot be read are left out.
fn host_identity(environment: &Environment) -> HostIdentity {
    let read = |path| {
        let text = std::fs::read_to_string(path).ok()?;
        // The firmware ends its texts with a zero byte.
        Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_string())
    };
    HostIdentity {
        host_name: read("/proc/sys/kernel/hostname").unwrap_or_default(),
        // Container images often have an empty file.
        machine_id: read("/etc/machine-id").filter(|id| !id.is_empty()),
        board_serial: read("/proc/device-tree/serial-number").filter(|serial| !serial.is_empty()),
        credentials_directory: environment.credentials.clone(),
    }
}

fn layers<'a>(common: &'a Common, flags: &Flags, environment: &'a Environment) -> Layers<'a> {
    Layers {
        file: common.config.as_deref().or(environment.config.as_deref()),
        variables: &environment.settings,
        flags: flags.clone(),
    }
}

/// Writes to standard output. A reader that closes early, such as `head`, is not an error.
fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::NotPrinted(error)),
        _ => Ok(()),
    }
}

/// A flag that the first SIGINT or SIGTERM sets. A second one ends affectd at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>, CommandError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(CommandError::Signal)?;
    }
    Ok(stop)
}

/// A flag that SIGHUP sets.
fn reload_on_signal() -> Result<Arc<AtomicBool>, CommandError> {
    let reload = Arc::new(AtomicBool::new(false));
    flag::register(SIGHUP, Arc::clone(&reload)).map_err(CommandError::Signal)?;
    Ok(reload)
}
