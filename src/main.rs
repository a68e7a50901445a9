//! Parse, run, exit code.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use affectd::cli::{self, Cli, Command, Common};
use affectd::config::{Config, ConfigError, Overrides};
use affectd::daemon::{self, Signals};
use affectd::failure::Failure;
use affectd::model::Bundle;
use affectd::monitor;
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = env_logger::Env::new().filter_or("AFFECTD_LOG", "info,tract=warn");
    env_logger::Builder::from_env(log).init();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("affectd: {failure}");
            failure.exit_code()
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run { common, input, output } => {
            let flags = Overrides {
                outputs: output,
                ..input.over(common.overrides())
            };
            let config = load(&common, &flags)?;
            let signals = Signals {
                stop: stop_on_signals()?,
                reload: reload_on_signal()?,
            };
            Ok(daemon::run(config, &signals, || load(&common, &flags))?)
        }
        Command::Check { common, input } => {
            let config = load(&common, &input.over(common.overrides()))?;
            cli::check::check(&config)
        }
        Command::Devices { common, json } => {
            let config = load(&common, &common.overrides())?;
            cli::devices::print(&config, json);
            Ok(())
        }
        Command::Record {
            common, file, max_mb, ..
        } => {
            let config = load(&common, &common.overrides())?;
            let stop = stop_on_signals()?;
            cli::record::record(&config, &file, max_mb, &stop)
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
                Some(path) => cli::bench::file(&path, runs)?,
                None => {
                    let config = load(&common, &common.overrides())?;
                    cli::bench::models(&config, input.as_deref(), runs)?
                }
            };
            report.print(json);
            Ok(())
        }
        Command::Monitor { source, save, plain } => {
            let stop = stop_on_signals()?;
            monitor::run(&monitor::Options { source, save, plain }, &stop)
        }
        Command::Model { common } => {
            let config = load(&common, &common.overrides())?;
            let bundle = Bundle::open(config.models.as_deref())?;
            // A reader that closes early, as `head` does, is no fault.
            let _ = std::io::stdout().write_all(cli::model::card(&bundle)?.as_bytes());
            Ok(())
        }
    }
}

fn load(common: &Common, flags: &Overrides) -> Result<Config, ConfigError> {
    Config::load(common.config.as_deref(), std::env::vars(), flags)
}

/// A flag that the first SIGINT or SIGTERM sets; a second one ends affectd at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| Failure::Internal(format!("signal {signal} cannot be caught ({e})")))?;
    }
    Ok(stop)
}

/// A flag that SIGHUP sets.
fn reload_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let reload = Arc::new(AtomicBool::new(false));
    flag::register(SIGHUP, Arc::clone(&reload))
        .map_err(|e| Failure::Internal(format!("SIGHUP cannot be caught ({e})")))?;
    Ok(reload)
}
