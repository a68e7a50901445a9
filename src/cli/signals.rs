//! The signals that stop, reload, pause and resume affectd. A thread waits for them.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals as IncomingSignals;

use super::error::CommandError;
use super::terminal::print_error;
use crate::daemon::Signals;
use crate::named_thread;
use crate::privacy::PauseSwitch;

/// A second signal ends affectd at once, but not earlier than this after the first one: `timeout` and service managers send the
/// same signal twice, to the process and to its group.
const FORCE_AFTER: Duration = Duration::from_secs(1);
/// affectd ends this long after the first signal, whatever it is stuck in. It normally ends before.
const STOP_LIMIT: Duration = Duration::from_secs(6);
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What SIGHUP, SIGUSR1 and SIGUSR2 do.
#[derive(Debug, Clone)]
pub enum Handling {
    /// SIGHUP reloads the configuration. If it comes because the terminal was closed, it stops affectd. SIGUSR1 pauses and SIGUSR2
    /// resumes.
    Daemon(Arc<PauseSwitch>),
    /// SIGHUP stops affectd, so that a clip is complete and a terminal as before, unless it is ignored, as `nohup` does it. SIGUSR1 and
    /// SIGUSR2 have the default of the system: they end affectd.
    Stop,
}

/// Holds SIGUSR1 and SIGUSR2 back until [`handle`] can act on them: before that, they would end affectd, and a pause would be lost. Must run
/// before any thread starts, because threads inherit this.
pub fn hold_pause_and_resume() {
    mask_pause_and_resume(libc::SIG_BLOCK);
}

/// A write beyond the limit of a file's size then fails with an error, as on a full disk, and does not end affectd.
pub fn ignore_file_size_limit() {
    // SAFETY: the call changes only how the process takes this signal, and no handler runs.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

fn mask_pause_and_resume(how: libc::c_int) {
    // SAFETY: `set` is a live local that sigemptyset initializes. The calls change only the mask of this thread.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, SIGUSR1);
        libc::sigaddset(&mut set, SIGUSR2);
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// Starts to handle signals. SIGINT and SIGTERM set `stop`.
pub fn handle(handling: Handling) -> Result<Signals, CommandError> {
    let had_terminal = has_terminal() && !is_hangup_ignored();
    let (pause, handled): (_, &[i32]) = match &handling {
        Handling::Daemon(pause) => (Arc::clone(pause), &[SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]),
        Handling::Stop if is_hangup_ignored() => (Arc::default(), &[SIGINT, SIGTERM]),
        Handling::Stop => (Arc::default(), &[SIGINT, SIGTERM, SIGHUP]),
    };
    let reloads = matches!(handling, Handling::Daemon(_));
    let signals = Signals {
        pause,
        ..Signals::default()
    };
    let mut incoming = IncomingSignals::new(handled).map_err(CommandError::Signal)?;
    let Signals { stop, reload, pause } = signals.clone();
    named_thread::spawn("signals", move || {
        // What was held back arrives now.
        mask_pause_and_resume(libc::SIG_UNBLOCK);
        let mut stopping: Option<(i32, Instant)> = None;
        loop {
            let arrived: Vec<i32> = match stopping {
                None => incoming.wait().collect(),
                Some(_) => incoming.pending().collect(),
            };
            for signal in arrived {
                let terminal_closed = || had_terminal && !has_terminal();
                match stopping {
                    _ if matches!(signal, SIGUSR1 | SIGUSR2) => switch(&pause, signal),
                    _ if signal == SIGHUP && reloads && !terminal_closed() => reload.store(true, Ordering::Relaxed),
                    None => {
                        stop.store(true, Ordering::Relaxed);
                        stopping = Some((signal, Instant::now()));
                    }
                    Some((_, since)) if since.elapsed() >= FORCE_AFTER => process::exit(128 + signal),
                    Some(_) => {}
                }
            }
            if let Some((signal, since)) = stopping {
                if since.elapsed() >= STOP_LIMIT {
                    print_error(&format!("not ended after {} s: ends at once", STOP_LIMIT.as_secs()));
                    process::exit(128 + signal);
                }
                thread::sleep(CHECK_INTERVAL);
            }
        }
    })?;
    Ok(signals)
}

/// Pauses or resumes.
fn switch(pause: &PauseSwitch, signal: i32) {
    let switched = match signal {
        SIGUSR1 => {
            info!("SIGUSR1: pause");
            pause.pause()
        }
        _ => {
            info!("SIGUSR2: resume");
            pause.resume()
        }
    };
    if let Err(error) = switched {
        warn!("{error}");
    }
}

/// Whether this process has a controlling terminal.
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok_and(|terminal| {
        // SAFETY: isatty accesses no memory of this process.
        unsafe { libc::isatty(terminal.as_fd().as_raw_fd()) == 1 }
    })
}

/// Whether SIGHUP is ignored, as `nohup` does it: then affectd runs on when the terminal is closed.
fn is_hangup_ignored() -> bool {
    // SAFETY: `sigaction` is plain data for which all-zero bytes are valid. A null pointer asks only for the current action,
    // which is written to this live variable.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        libc::sigaction(SIGHUP, std::ptr::null(), &mut current) == 0 && current.sa_sigaction == libc::SIG_IGN
    }
}
