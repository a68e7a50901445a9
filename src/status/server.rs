//! The start and the change of the page.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use log::error;
use tokio::sync::oneshot;

use super::context::StatusContext;
use super::error::StatusError;
use super::guard::Guard;
use super::serve::{open, run};
use super::settings::StatusSettings;
use super::state::State;
use super::token::Token;
use crate::named_thread;
use crate::output::HostIdentity;

/// Settings whose token is read and whose address is open.
pub struct PreparedPage(Plan);

enum Plan {
    Off,
    Unchanged,
    Serve {
        settings: StatusSettings,
        token: Option<Token>,
        listener: Option<TcpListener>,
    },
}

impl PreparedPage {
    /// Reads the token and opens the address, unless `running` already has it. An address that this machine does not have yet
    /// is no error: the network may come up later.
    pub fn new(
        settings: Option<&StatusSettings>,
        host: &HostIdentity,
        running: Option<&StatusPage>,
    ) -> Result<PreparedPage, StatusError> {
        let running = running.map(|page| &page.running);
        let Some(settings) = settings else {
            return Ok(PreparedPage(match running {
                Some(running) if running.is_some() => Plan::Off,
                _ => Plan::Unchanged,
            }));
        };
        settings.check_image()?;
        let token = Token::load(settings, host)?;
        let running = running.and_then(Option::as_ref);
        if running.is_some_and(|running| running.settings == *settings && running.token == token) {
            return Ok(PreparedPage(Plan::Unchanged));
        }
        let same_address = running.filter(|running| running.settings.listen == settings.listen);
        let opened = match same_address.and_then(|running| running.listener.as_ref()) {
            Some(listener) => listener.try_clone().map(Some),
            None => open(settings.listen),
        };
        let listener = opened.map_err(|error| StatusError::Address {
            listen: settings.listen,
            reason: reason(&error),
        })?;
        Ok(PreparedPage(Plan::Serve {
            settings: settings.clone(),
            token,
            listener,
        }))
    }

    /// Whether [`StatusPage::change`] would do nothing.
    pub fn is_unchanged(&self) -> bool {
        matches!(self.0, Plan::Unchanged)
    }

    /// Reads the token. The address may be in use by the service, so it is not opened.
    pub fn check(settings: &StatusSettings, host: &HostIdentity) -> Result<String, StatusError> {
        settings.check_image()?;
        let token = Token::load(settings, host)?;
        let protection = if token.is_some() {
            "with a token"
        } else {
            "without a token"
        };
        Ok(format!("http://{}/, {protection}", settings.listen))
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "another program uses this port: choose another one".into(),
        ErrorKind::PermissionDenied => "not allowed: choose a port from 1024 on".into(),
        _ => format!("cannot be opened ({error}): choose another address"),
    }
}

/// The page, if there is one. When this is dropped, it ends.
pub struct StatusPage {
    context: StatusContext,
    running: Option<Running>,
}

struct Running {
    settings: StatusSettings,
    token: Option<Token>,
    listener: Option<TcpListener>,
    /// Its drop ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StatusPage {
    pub fn start(prepared: PreparedPage, context: StatusContext) -> Result<StatusPage, StatusError> {
        let mut page = StatusPage { context, running: None };
        page.change(prepared)?;
        Ok(page)
    }

    /// Ends the page or serves it with other settings.
    pub fn change(&mut self, prepared: PreparedPage) -> Result<(), StatusError> {
        match prepared.0 {
            Plan::Unchanged => {}
            Plan::Off => self.end(),
            Plan::Serve {
                settings,
                token,
                listener,
            } => {
                self.end();
                self.running = Some(self.serve(settings, token, listener)?);
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.running.take().is_some() {
            self.context.feed.disconnect();
        }
    }

    fn serve(
        &self,
        settings: StatusSettings,
        token: Option<Token>,
        listener: Option<TcpListener>,
    ) -> Result<Running, StatusError> {
        let guard = Guard::new(&settings.hosts, token.clone(), &self.context.host);
        let listen = settings.listen;
        let own_listener = listener.as_ref().and_then(|listener| listener.try_clone().ok());
        let state = Arc::new(State::new(self.context.clone(), settings.preview, guard));
        let estimates = self.context.feed.connect();
        let (stop, stopped) = oneshot::channel();
        let thread = named_thread::spawn("status", move || {
            if let Err(error) = run(&state, listen, own_listener, &estimates, stopped) {
                error!("status page: ends ({error}): restart affectd");
            }
        })?;
        Ok(Running {
            settings,
            token,
            listener,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for StatusPage {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop = None;
        // It never waits for a client, so it ends at once.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("status page: its thread panicked: this is a bug in affectd: please report it with the log above");
        }
    }
}
