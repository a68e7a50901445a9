//! Reads the environment, runs the command, and chooses the exit code.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;

use affectd::cli::check::Format;
use affectd::cli::environment::{Environment, PAUSED};
use affectd::cli::health::{RUNTIME_FOLDER, SOCKET};
use affectd::cli::progress::{ProgressLine, replay_line};
use affectd::cli::record::RecordError;
use affectd::cli::signals::{Handling, handle, hold_pause_and_resume, ignore_file_size_limit};
use affectd::cli::terminal::{print, print_error, print_to_stderr};
use affectd::cli::{self, Cli, Command, CommandError, Common, panics};
use affectd::config::{Config, ConfigError, Flags, Layers, Settings, Source};
use affectd::daemon::{self, Callbacks, DaemonError, Ending};
use affectd::model::{Bundle, KernelChoice, UnknownKernel};
use affectd::monitor::{self, Colors, Glyphs, Look, MonitorError};
use affectd::output::{HostIdentity, OutputSpec};
use affectd::printable::has_hidden;
use affectd::privacy::PauseSwitch;
use affectd::secrets::without_passwords;
use affectd::status::StatusError;
use clap::{CommandFactory, Parser};

/// The command line is wrong, or the configuration is.
const USAGE: u8 = 2;
const OUTPUT: u8 = 5;
const SYSTEM: u8 = 71;

fn main() -> ExitCode {
    panics::log_panics();
    hold_pause_and_resume();
    ignore_file_size_limit();
    let result = panics::catch(|| match Cli::try_parse() {
        Ok(cli) => run(cli).map(|()| 0),
        Err(message) => explain(&message),
    });
    ExitCode::from(result.unwrap_or_else(|error| report(&error)))
}

/// Prints the error of a command. Returns the exit code.
fn report(error: &CommandError) -> u8 {
    print_error(&without_own_passwords(&error.to_string()));
    exit_code(error)
}

/// Prints the help, or the reason why the command line is wrong. Returns the exit code.
fn explain(message: &clap::Error) -> Result<u8, CommandError> {
    // The message quotes arguments. One may be an address with a password, or control the terminal.
    let text = message.render().to_string();
    let shown = without_own_passwords(&text);
    let controls_terminal = std::env::args_os().any(|argument| has_hidden(&argument.to_string_lossy()));
    if message.use_stderr() && (shown != text || controls_terminal) {
        print_to_stderr(&shown);
        return Ok(USAGE);
    }
    match message.print() {
        // Nobody reads the reason, but the exit code still tells.
        _ if message.use_stderr() => Ok(USAGE),
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CommandError::NotPrinted(error)),
        _ => Ok(0),
    }
}

/// `message` without the passwords in the arguments and variables that it may quote.
fn without_own_passwords(message: &str) -> String {
    without_passwords(message, own_values().iter().map(String::as_str))
}

/// The arguments and variables that a message may quote.
fn own_values() -> Vec<String> {
    let arguments = std::env::args_os().skip(1);
    let ours = |(name, value): (OsString, OsString)| name.as_encoded_bytes().starts_with(b"AFFECTD_").then_some(value);
    let values: Vec<String> = arguments
        .chain(std::env::vars_os().filter_map(ours))
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    // As in `--output=SPEC`, of which only the value is quoted.
    let parts = values
        .iter()
        .filter_map(|value| Some(value.strip_prefix("--")?.split_once('=')?.1.to_owned()));
    parts.chain(values.iter().cloned()).collect()
}

fn status_code(error: &StatusError) -> u8 {
    match error {
        StatusError::NotBuilt
        | StatusError::NoToken { .. }
        | StatusError::UnencryptedImage { .. }
        | StatusError::Token { .. } => USAGE,
        StatusError::Address { .. } => OUTPUT,
        StatusError::Thread(_) => SYSTEM,
    }
}

/// Users and scripts rely on these codes.
fn exit_code(error: &CommandError) -> u8 {
    const PROBLEM: u8 = 1;
    const SOURCE: u8 = 3;
    const MODELS: u8 = 4;
    const BUG: u8 = 70;
    match error {
        CommandError::Config(_) | CommandError::Kernel(_) | CommandError::NoBroker | CommandError::WatchedClip => USAGE,
        CommandError::NotAnswered(_) | CommandError::Problem(_) => PROBLEM,
        CommandError::Capture(_) => SOURCE,
        CommandError::Model(_) => MODELS,
        CommandError::Status(error) => status_code(error),
        CommandError::Output(_) | CommandError::NotPrinted(_) => OUTPUT,
        CommandError::Daemon(error) => match error {
            DaemonError::Source(_) | DaemonError::Light(_) | DaemonError::Button(_) => SOURCE,
            DaemonError::Model(_) => MODELS,
            DaemonError::Output(_) => OUTPUT,
            DaemonError::Status(error) => status_code(error),
            DaemonError::Thread(_) => SYSTEM,
            DaemonError::Internal(_) => BUG,
        },
        CommandError::Monitor(error) => match error {
            MonitorError::InvalidSource(_) => USAGE,
            MonitorError::Source(_) => SOURCE,
            MonitorError::Display(_) => OUTPUT,
            MonitorError::Thread(_) => SYSTEM,
            MonitorError::Internal(_) => BUG,
        },
        CommandError::Record(error) => match error {
            RecordError::InputIsClip | RecordError::Capture(_) | RecordError::NothingCaptured => SOURCE,
            RecordError::FileExists(_) | RecordError::NotWritten { .. } => OUTPUT,
            RecordError::Thread(_) => SYSTEM,
        },
        CommandError::Thread(_) => SYSTEM,
        CommandError::Signal(_) | CommandError::Panicked(_) | CommandError::NotRestarted(_) => BUG,
    }
}

fn run(cli: Cli) -> Result<(), CommandError> {
    let environment = &Environment::parse(std::env::vars_os())?;
    cli::log::init(environment, own_values());
    let configuration = cli.command.common().and_then(|common| {
        let layers = layers(common, &Flags::default(), environment);
        std::path::absolute(layers.path()?).ok()
    });
    let host = Arc::new(HostIdentity {
        configuration,
        ..host_identity(environment)
    });
    let load = |common: &Common, flags: &Flags| -> Result<Config, ConfigError> {
        Config::load(&layers(common, flags, environment), &host)
    };
    // Only for commands that run a graph, so that an unknown kernel does not stop the others.
    let kernel_choice = || -> Result<KernelChoice, UnknownKernel> {
        KernelChoice::parse(environment.kernel.as_deref().unwrap_or_default())
    };
    let load_with = |kernel: KernelChoice, common: &Common, flags: &Flags| -> Result<Config, ConfigError> {
        load(common, flags).map(|config| Config { kernel, ..config })
    };
    match cli.command {
        Command::Run {
            common,
            input,
            outputs,
            page,
        } => {
            let flags = page.add_to(outputs.add_to(input.add_to(common.flags())));
            let kernel = kernel_choice()?;
            let config = load_with(kernel, &common, &flags)?;
            let pause = Arc::new(match config.source {
                Source::Clip { .. } => PauseSwitch::of_clip(),
                Source::Devices(_) => {
                    PauseSwitch::of_devices(environment.paused, environment.state_directory.as_deref())
                }
            });
            let signals = handle(Handling::Daemon(Arc::clone(&pause)))?;
            let socket = match config.source {
                Source::Clip { .. } => None,
                Source::Devices(_) => environment.runtime_directory.as_ref().map(|folder| folder.join(SOCKET)),
            };
            let fault = environment.fault.as_deref().and_then(daemon::Fault::from_name);
            let read_config = || load_with(kernel, &common, &flags);
            let finish = |result: Result<Ending, DaemonError>| match result? {
                Ending::Done => Ok(()),
                Ending::RestartRequested => restart(&pause),
            };
            let leave = |result| process::exit(finish(result).map_or_else(|error| report(&error).into(), |()| 0));
            let line = RefCell::new(match shows_progress(&config) {
                true => ProgressLine::on_stderr(),
                false => ProgressLine::off(),
            });
            let callbacks = Callbacks {
                read_config: &read_config,
                show_progress: &|progress| line.borrow_mut().show(|elapsed| replay_line(progress, elapsed)),
            };
            let socket = socket.as_deref();
            finish(daemon::run(config, &host, &signals, socket, fault, &callbacks, leave))
        }
        Command::Check {
            common,
            input,
            outputs,
            page,
            watch,
            json,
        } => {
            let flags = page.add_to(outputs.add_to(input.add_to(common.flags())));
            let config = load_with(kernel_choice()?, &common, &flags)?;
            let format = match json {
                true => Format::Json,
                false => Format::Text,
            };
            match (watch, &config.source) {
                (true, Source::Devices(devices)) => {
                    let stop = handle(Handling::Stop)?.stop;
                    cli::check::watch(&config, devices, format, &stop)
                }
                (true, Source::Clip { .. }) => Err(CommandError::WatchedClip),
                (false, _) => cli::check::check(&config, &host, format),
            }
        }
        Command::Devices { common, json } => {
            let config = load(&common, &common.flags())?;
            print(&cli::devices::list(&config, json))
        }
        Command::Record {
            common,
            devices,
            file,
            max_mb,
            ..
        } => {
            let config = load(&common, &devices.add_to(common.flags()))?;
            let stop = handle(Handling::Stop)?.stop;
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
            print(&report.text(json))
        }
        Command::Monitor {
            source,
            save,
            plain,
            ascii,
        } => {
            let stop = handle(Handling::Stop)?.stop;
            let terminal = environment.terminal.as_deref();
            let glyphs = match ascii {
                true => Glyphs::Ascii,
                false => Glyphs::of(environment.locale.as_deref(), terminal),
            };
            let colors = match environment.has_colors() {
                true => Colors::On,
                false => Colors::Off,
            };
            // A dumb terminal cannot place the cursor.
            let plain = plain || environment.is_terminal_dumb();
            let options = monitor::Options {
                source,
                save,
                plain,
                look: Look { glyphs, colors },
            };
            Ok(monitor::run(&options, &host, &stop)?)
        }
        Command::Forget {
            common,
            device,
            outputs,
        } => {
            let config = load(&common, &outputs.add_to(common.flags()))?;
            print(&cli::forget::forget(&config, &device, &host)?)
        }
        Command::Health { socket, json } => {
            let folder = environment.runtime_directory.as_deref();
            let socket = socket.unwrap_or_else(|| folder.unwrap_or(Path::new(RUNTIME_FOLDER)).join(SOCKET));
            let (line, report) = cli::health::ask(&socket)?;
            print(&if json { line } else { cli::health::text(&report) })?;
            report
                .problem
                .map_or(Ok(()), |problem| Err(CommandError::Problem(problem)))
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
            page,
            json,
        } => {
            let flags = page.add_to(outputs.add_to(input.add_to(common.flags())));
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

/// Whether the progress of a replay is worth a line: the estimates in a terminal show it themselves.
fn shows_progress(config: &Config) -> bool {
    let is_shown = |output: &OutputSpec| matches!(output, OutputSpec::Stdout { .. }) && io::stdout().is_terminal();
    !config.outputs.iter().any(is_shown)
}

/// Replaces this process with a new affectd with the same arguments, so that a restart also works without systemd. It stays
/// paused.
fn restart(pause: &PauseSwitch) -> Result<(), CommandError> {
    let mut arguments = std::env::args_os();
    // Not `current_exe`: after an upgrade, that is the deleted old program.
    let program = arguments.next().unwrap_or_else(|| "affectd".into());
    Err(CommandError::NotRestarted(
        process::Command::new(program)
            .args(arguments)
            .env(PAUSED, if pause.is_requested() { "1" } else { "0" })
            .exec(),
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
        configuration: None,
    }
}

fn layers<'a>(common: &'a Common, flags: &Flags, environment: &'a Environment) -> Layers<'a> {
    Layers {
        file: common.config.as_deref().or(environment.config.as_deref()),
        variables: &environment.settings,
        flags: flags.clone(),
    }
}
