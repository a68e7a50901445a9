//! `affectd monitor`: what a device sends, seen from the other end.
//!
//! ```text
//! source ─ Heard ─▶ session ─▶ screen, lines of text, picture
//! ```

pub mod picture;
pub mod reading;
pub mod screen;
pub mod session;
pub mod source;

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use ratatui::termion::raw::IntoRawMode;
use ratatui::termion::screen::IntoAlternateScreen;

use crate::failure::Failure;

use reading::Heard;
use session::Session;
use source::Source;

/// From one drawing to the next: estimates come at most so often, and a resize is seen.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// What `affectd monitor` was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// As the user named it.
    pub source: String,
    /// Where the session's picture goes at the end.
    pub save: Option<PathBuf>,
    /// Lines of text instead of the screen.
    pub plain: bool,
}

/// Something the monitor waits for.
enum Event {
    Heard(Heard),
    Failed(Failure),
    Quit,
}

/// Until the source ends, the user has seen enough, or `stop` is set. Where standard output is no terminal, text is
/// written.
pub fn run(options: &Options, stop: &AtomicBool) -> Result<(), Failure> {
    let source = Source::parse(&options.source)?;
    let mut session = Session::new(options.source.clone());
    let (to, events) = channel();
    listen(source, to.clone())?;
    let plain = options.plain || !io::stdout().is_terminal();
    let shown = match plain {
        true => print(&mut session, &events, stop),
        false => show(&mut session, &events, to, stop),
    };
    if let Some(path) = &options.save {
        save(path, &session)?;
    }
    shown
}

/// Reads on a thread of its own, which ends with the process: a read cannot be called off.
fn listen(source: Source, to: Sender<Event>) -> Result<(), Failure> {
    let work = move || {
        if let Err(failure) = source.listen(&mut |heard| to.send(Event::Heard(heard)).is_ok()) {
            let _ = to.send(Event::Failed(failure));
        }
    };
    match thread::Builder::new().name("source".into()).spawn(work) {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::Internal(format!("the source thread cannot start ({e})"))),
    }
}

/// A line for each estimate, and for each change of the source or of the device's health.
fn print(session: &mut Session, events: &Receiver<Event>, stop: &AtomicBool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let line = match events.recv_timeout(DRAW_EVERY) {
            Ok(Event::Heard(Heard::End) | Event::Quit) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(Event::Failed(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout) => continue,
            Ok(Event::Heard(heard)) => {
                let line = match &heard {
                    Heard::Note(note) => Some(format!("{}: {note}", session.source)),
                    Heard::Health(health) => health.problem.as_ref().map(|problem| format!("problem: {problem}")),
                    _ => None,
                };
                let estimates = session.estimates;
                session.take(heard);
                match session.estimates > estimates {
                    true => session.line(),
                    false => match line {
                        Some(line) => line,
                        None => continue,
                    },
                }
            }
        };
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            // A reader that closes early, as `head` does, is no fault.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(Failure::Output(format!("standard output: cannot be written ({e})"))),
        }
    }
}

/// The screen, until `q`, Escape or Ctrl-C. It stays when the source has ended, to be looked at.
fn show(session: &mut Session, events: &Receiver<Event>, to: Sender<Event>, stop: &AtomicBool) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::Output(format!("the terminal cannot be used ({e}): try --plain"));
    // Standard input may be the source: keys come from the terminal itself.
    let keys = File::open("/dev/tty").map_err(failed)?;
    thread::spawn(move || {
        let quits = |key: &Key| matches!(key, Key::Char('q') | Key::Esc | Key::Ctrl('c'));
        for key in keys.keys().map_while(Result::ok) {
            if quits(&key) && to.send(Event::Quit).is_err() {
                break;
            }
        }
    });
    let screen = io::stdout()
        .into_raw_mode()
        .and_then(IntoAlternateScreen::into_alternate_screen)
        .map_err(failed)?;
    let mut terminal = Terminal::new(TermionBackend::new(screen)).map_err(failed)?;
    loop {
        terminal.draw(|frame| screen::draw(frame, session)).map_err(failed)?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // All that has come is taken in before it is drawn.
        let mut next = events.recv_timeout(DRAW_EVERY);
        loop {
            match next {
                Ok(Event::Heard(heard)) => session.take(heard),
                Ok(Event::Failed(failure)) => return Err(failure),
                Ok(Event::Quit) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => break,
            }
            match events.try_recv() {
                Ok(event) => next = Ok(event),
                Err(_) => break,
            }
        }
        thread::sleep(DRAW_EVERY / 4);
    }
}

fn save(path: &Path, session: &Session) -> Result<(), Failure> {
    std::fs::write(path, picture::svg(session)).map_err(|e| {
        Failure::Output(format!(
            "{}: cannot be written ({e}): name a file in a folder that you may write to",
            path.display()
        ))
    })
}
