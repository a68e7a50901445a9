//! The other end: reads topics from a broker for as long as somebody listens, and comes back when the broker does.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::address::Address;
use super::backoff::Backoff;
use super::connection::{Connection, LinkError};
use super::packet::{Hello, Incoming};
use super::{Files, topics};
use crate::output::OutputError;

const KEEP_ALIVE_S: u16 = 20;
/// A ping that is not answered for so long will not be.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Connected,
    Message { topic: String, payload: Vec<u8> },
    Broken(String),
}

pub struct Subscriber {
    address: Address,
    topics: Vec<String>,
    files: Files,
    identity: String,
}

impl Subscriber {
    /// Reads the files that `address` names. `topics` may hold wildcards.
    pub fn new(address: &Address, topics: &[String]) -> Result<Subscriber, OutputError> {
        // Its own name for each process: two clients of the same name would throw each other out.
        let reader = Address {
            base: format!("reader {}", std::process::id()),
            ..address.clone()
        };
        Ok(Subscriber {
            address: address.clone(),
            topics: topics.to_vec(),
            files: Files::read(address)?,
            identity: topics::identity(&reader),
        })
    }

    /// Until `to` answers false.
    pub fn run(&mut self, to: &mut dyn FnMut(Event) -> bool) {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.connection(&mut backoff, to) {
                Ok(()) => return,
                Err(error) => error,
            };
            if !to(Event::Broken(error.to_string())) {
                return;
            }
            thread::sleep(backoff.next());
        }
    }

    fn connection(&self, backoff: &mut Backoff, to: &mut dyn FnMut(Event) -> bool) -> Result<(), LinkError> {
        let hello = Hello {
            client_id: &self.identity,
            keep_alive_s: KEEP_ALIVE_S,
            credentials: self.files.credentials.as_ref(),
            will: None,
        };
        let mut link = Connection::open(&self.address, self.files.tls.as_ref(), &hello, None)?;
        let version = self.address.version;
        let mut out = Vec::new();
        version.subscribe(&self.topics, &mut out);
        link.send(&out)?;
        // Nobody writes to it: it makes the wait one for the broker alone.
        let (silent, _other_end) = UnixStream::pair().map_err(|e| LinkError::Network(e.to_string()))?;
        let (mut sent, mut ping) = (Instant::now(), None::<Instant>);
        loop {
            while let Some(incoming) = link.receive()? {
                let go_on = match incoming {
                    Incoming::Message { topic, payload } => to(Event::Message { topic, payload }),
                    Incoming::Subscribed => {
                        backoff.reset();
                        to(Event::Connected)
                    }
                    Incoming::NotSubscribed(why) => return Err(LinkError::Turned(why)),
                    Incoming::PingResponse => {
                        ping = None;
                        true
                    }
                    _ => true,
                };
                if !go_on {
                    return Ok(());
                }
            }
            if ping.is_some_and(|ping| ping.elapsed() > PATIENCE) {
                return Err(LinkError::Silent);
            }
            if sent.elapsed() >= link.keep_alive / 2 {
                out.clear();
                version.ping(&mut out);
                link.send(&out)?;
                sent = Instant::now();
                ping = ping.or(Some(sent));
            }
            let due = (sent + link.keep_alive / 2).saturating_duration_since(Instant::now());
            link.wait(silent.as_fd(), due.min(PATIENCE));
        }
    }
}
