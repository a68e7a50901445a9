//! `affectd monitor`: shows what a device sends.
//!
//! ```text
//! source ─ Received ─▶ session ─▶ screen, lines of text, plot
//! ```

mod decoder;
mod error;
mod follow;
mod foreign_file;
mod lines;
mod look;
mod plot;
mod reader_gone;
mod received;
mod screen;
mod session;
mod shown_device;
mod source;
mod unrecognized;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use ratatui::termion::raw::IntoRawMode;
use ratatui::termion::screen::IntoAlternateScreen;

use crate::named_thread;
use crate::output::HostIdentity;
use crate::output::mqtt::subscriber::Listening;
use crate::printable::printable;
use reader_gone::is_reader_gone;
use received::Received;
use session::Session;
use source::Source;

pub use error::MonitorError;
pub use look::{Colors, Glyphs, Look};
pub use plot::PlotFile;

/// The time between two drawings. A resize of the terminal is noticed then.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Events that wait to be shown. A source that sends faster waits. At most so many are handled between two drawings.
const EVENT_QUEUE: usize = 256;

/// The arguments of `affectd monitor`.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source, as the user named it.
    pub source: String,
    /// The file for the plot of the session, written at the end.
    pub save: Option<PlotFile>,
    /// Lines of text instead of the screen.
    pub plain: bool,
    pub look: Look,
}

/// An event that the monitor waits for.
enum Event {
    Received(Received),
    Failed(MonitorError),
    Quit,
}

/// Runs until the source ends, the user quits, or `stop` is set. Writes text if standard output is not a terminal.
pub fn run(options: &Options, host: &HostIdentity, stop: &AtomicBool) -> Result<(), MonitorError> {
    let source = Source::parse(&options.source, host)?;
    // A session of hours must not end without its plot.
    let plot = options.save.as_ref().map(|plot| match plot.create() {
        Ok(file) => Ok((plot, file)),
        Err(error) => Err(not_saved(plot, &error)),
    });
    let plot = plot.transpose()?;
    let mut session = Session::new(options.source.clone(), source.hint());
    let (to, events) = sync_channel(EVENT_QUEUE);
    start_listening(source, host.clone(), to.clone())?;
    let plain = options.plain || !io::stdout().is_terminal();
    let shown = match plain {
        true => print(&mut session, &events, stop, options.look.glyphs),
        false => show(&mut session, &events, to, stop, options),
    };
    // What switches back to the normal screen must arrive before an error does.
    let _ = io::stdout().flush();
    if let Some((plot, file)) = plot {
        plot.finish(file, &session).map_err(|error| not_saved(plot, &error))?;
    }
    shown
}

/// Reads the source on a thread of its own. It ends with the process, because a blocked read cannot be interrupted.
fn start_listening(source: Source, host: HostIdentity, to: SyncSender<Event>) -> Result<(), MonitorError> {
    let work = move || {
        let mut listener = |received| match to.send(Event::Received(received)) {
            Ok(()) => Listening::Continue,
            Err(_) => Listening::Stop,
        };
        let listened = catch_unwind(AssertUnwindSafe(|| source.listen(&host, &mut listener)));
        let panicked = |_| Err(MonitorError::Internal("the source thread panicked".into()));
        if let Err(failure) = listened.unwrap_or_else(panicked) {
            let _ = to.send(Event::Failed(failure));
        }
    };
    named_thread::spawn("source", work)?;
    Ok(())
}

/// Prints a line for each estimate, for each change of the source, and for each problem of the device. Fails if the source ends
/// without any message of affectd.
fn print(
    session: &mut Session,
    events: &Receiver<Event>,
    stop: &AtomicBool,
    glyphs: Glyphs,
) -> Result<(), MonitorError> {
    let mut out = io::stdout().lock();
    loop {
        // A reader that closes early, as `head` does, is not an error.
        if stop.load(Ordering::Relaxed) || is_reader_gone(&out) {
            return Ok(());
        }
        let (estimates, status) = (session.estimates, session.status.clone());
        let mut problem = None;
        match events.recv_timeout(DRAW_INTERVAL) {
            Ok(Event::Received(Received::End)) => return end(session),
            Ok(Event::Quit) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(Event::Failed(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Received(received)) => {
                if let Received::Health(health) = &received {
                    problem = health.problem.as_ref().map(|problem| format!("problem: {problem}"));
                }
                session.receive(received);
            }
        }
        session.notice_silence(Instant::now());
        let line = if session.estimates > estimates {
            session.line()
        } else if session.status != status {
            format!("{}: {}", session.name(), session.status)
        } else if let Some(problem) = problem {
            problem
        } else {
            continue;
        };
        match writeln!(out, "{}", glyphs.text(&printable(&line))).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => {
                return Err(MonitorError::Display(format!(
                    "standard output: cannot be written ({e}): redirect it to another file"
                )));
            }
        }
    }
}

/// The source has ended. A session without messages of affectd is an error.
fn end(session: &Session) -> Result<(), MonitorError> {
    let failed = |why| Err(MonitorError::Source(format!("{}: {why}", session.name())));
    session.why_nothing().map_or(Ok(()), failed)
}

/// Shows the screen until `q`, Escape or Ctrl-C. The screen stays after the end of the source.
fn show(
    session: &mut Session,
    events: &Receiver<Event>,
    to: SyncSender<Event>,
    stop: &AtomicBool,
    options: &Options,
) -> Result<(), MonitorError> {
    let failed = |e: io::Error| MonitorError::Display(format!("the terminal cannot be used ({e}): try --plain"));
    // Keys are read from the terminal itself, because standard input may be the source.
    let keys = File::open("/dev/tty").map_err(failed)?;
    let screen = io::stdout()
        .into_raw_mode()
        .and_then(IntoAlternateScreen::into_alternate_screen)
        .map_err(failed)?;
    // Only now: a read that began before, when keys came line by line, can miss the next key.
    named_thread::spawn("keys", move || {
        let quits = |key: &Key| matches!(key, Key::Char('q') | Key::Esc | Key::Ctrl('c'));
        for key in keys.keys().map_while(Result::ok) {
            if quits(&key) && to.send(Event::Quit).is_err() {
                break;
            }
        }
    })?;
    let mut bottom = "q, Esc or Ctrl-C quits".to_owned();
    if let Some(file) = &options.save {
        bottom += &format!("; then the plot is in {}", file.path().display());
    }
    let mut terminal = Terminal::new(TermionBackend::new(screen)).map_err(failed)?;
    let mut draw = |session: &Session| {
        let drawn = terminal.draw(|frame| screen::draw(frame, session, options.look, &bottom));
        drawn.map(|_| ())
    };
    let shown = match redraw(session, events, stop, &mut draw) {
        Err(Ended::Undrawable(_)) if is_reader_gone(io::stdout()) => Ok(()),
        Err(Ended::Undrawable(error)) => Err(failed(error)),
        Err(Ended::Failed(failure)) => Err(failure),
        Ok(()) => Ok(()),
    };
    if is_reader_gone(io::stdout()) {
        // Its end would write to a terminal that has been closed, and panic.
        std::mem::forget(terminal);
    }
    shown
}

/// What ends the screen besides the user.
enum Ended {
    Failed(MonitorError),
    Undrawable(io::Error),
}

fn redraw(
    session: &mut Session,
    events: &Receiver<Event>,
    stop: &AtomicBool,
    draw: &mut dyn FnMut(&Session) -> io::Result<()>,
) -> Result<(), Ended> {
    loop {
        draw(session).map_err(Ended::Undrawable)?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Pending events are handled before the next drawing.
        let mut next = events.recv_timeout(DRAW_INTERVAL);
        for handled in 1.. {
            match next {
                Ok(Event::Received(received)) => session.receive(received),
                Ok(Event::Failed(failure)) => return Err(Ended::Failed(failure)),
                Ok(Event::Quit) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => break,
            }
            // Before the next event is taken, because it would be lost.
            if handled == EVENT_QUEUE {
                break;
            }
            match events.try_recv() {
                Ok(event) => next = Ok(event),
                Err(_) => break,
            }
        }
        session.notice_silence(Instant::now());
        thread::sleep(DRAW_INTERVAL / 4);
    }
}

fn not_saved(file: &PlotFile, error: &io::Error) -> MonitorError {
    let path = file.path().display();
    MonitorError::Display(match error.kind() {
        ErrorKind::AlreadyExists => format!("{path}: exists already: choose another name, or delete it"),
        _ => format!("{path}: cannot be written ({error}): name a file in a folder that you can write to"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_is_lost_between_two_drawings() {
        // The last event comes when so many have been handled that the screen is drawn in between.
        for before in [0, EVENT_QUEUE - 1, EVENT_QUEUE, EVENT_QUEUE + 1, 2 * EVENT_QUEUE] {
            let (to, events) = sync_channel(3 * EVENT_QUEUE);
            for _ in 0..before {
                to.send(Event::Received(Received::Status("online".into()))).unwrap();
            }
            to.send(Event::Quit).unwrap();
            let mut session = Session::new("test".into(), "");
            let (stop, mut drawings) = (AtomicBool::new(false), 0);
            let mut draw = |_: &Session| {
                drawings += 1;
                stop.store(drawings > 10, Ordering::Relaxed);
                Ok(())
            };
            assert!(redraw(&mut session, &events, &stop, &mut draw).is_ok());
            assert!(drawings <= 3, "after {before} events, the key was lost");
        }
    }
}
