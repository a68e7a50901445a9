//! The reader's side: receives the messages of some topics and reconnects whenever the connection breaks.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::address::Address;
use super::connection::Connection;
use super::error::LinkError;
use super::packet::Incoming;
use super::settings::ConnectionSettings;
use super::topics::ClientRole;
use crate::output::contract::{HostIdentity, OutputError};
use crate::retry::{Retry, RetryPolicy};

const KEEP_ALIVE_S: u16 = 20;
/// After how long an unanswered ping counts as a broken connection.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const RECONNECT: RetryPolicy = RetryPolicy::Exponential {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Connected,
    Message {
        topic: String,
        payload: Vec<u8>,
    },
    /// The connection could not be made or has broken, with the reason.
    Disconnected(String),
}

/// Whether a listener wants further events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    Continue,
    Stop,
}

pub struct Subscriber {
    settings: ConnectionSettings,
    topics: Vec<String>,
}

impl Subscriber {
    /// Reads the files that `address` names. `topics` may contain wildcards.
    pub fn new(address: &Address, topics: &[String], host: &HostIdentity) -> Result<Subscriber, OutputError> {
        let role = ClientRole::Reader {
            process_id: std::process::id(),
        };
        Ok(Subscriber {
            settings: ConnectionSettings::load(address, host, role)?,
            topics: topics.to_vec(),
        })
    }

    /// Runs until `listener` returns [`Listening::Stop`].
    pub fn run(&mut self, listener: &mut dyn FnMut(Event) -> Listening) {
        let mut retry = Retry::new(RECONNECT);
        loop {
            let Err(error) = self.run_connection(&mut retry, listener) else {
                return;
            };
            if listener(Event::Disconnected(error.to_string())) == Listening::Stop {
                return;
            }
            thread::sleep(retry.failed(Instant::now()));
        }
    }

    fn run_connection(&self, retry: &mut Retry, listener: &mut dyn FnMut(Event) -> Listening) -> Result<(), LinkError> {
        let mut link = Connection::open(&self.settings, KEEP_ALIVE_S, None, None)?;
        let version = self.settings.address.version;
        let mut out = Vec::new();
        version.subscribe(&self.topics, &mut out);
        link.send(&out)?;
        // `Connection::wait` also waits for a wake-up. Nothing wakes a subscriber: this end of the pair stays silent.
        let (no_wake, _other_end) = UnixStream::pair().map_err(|e| LinkError::Network(e.to_string()))?;
        let (mut last_sent, mut ping) = (Instant::now(), None::<Instant>);
        loop {
            while let Some(incoming) = link.receive()? {
                let listening = match incoming {
                    Incoming::Message { topic, payload } => listener(Event::Message { topic, payload }),
                    Incoming::Subscribed => {
                        retry.succeeded();
                        listener(Event::Connected)
                    }
                    Incoming::NotSubscribed(why) => return Err(LinkError::Rejected(why)),
                    Incoming::PingResponse => {
                        ping = None;
                        Listening::Continue
                    }
                    _ => Listening::Continue,
                };
                if listening == Listening::Stop {
                    return Ok(());
                }
            }
            if ping.is_some_and(|ping| ping.elapsed() > PING_TIMEOUT) {
                return Err(LinkError::Timeout);
            }
            if last_sent.elapsed() >= link.keep_alive / 2 {
                out.clear();
                version.ping(&mut out);
                link.send(&out)?;
                last_sent = Instant::now();
                ping = ping.or(Some(last_sent));
            }
            let due = (last_sent + link.keep_alive / 2).saturating_duration_since(Instant::now());
            link.wait(no_wake.as_fd(), due.min(PING_TIMEOUT));
        }
    }
}
