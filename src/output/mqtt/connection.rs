//! One connection to a broker, from the first byte to the last.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::address::Address;
use super::packet::{Hello, Incoming, Refusal, Version};
use super::stream::{self, Stream};

/// From the first packet to the broker's yes.
const OPENED_WITHIN: Duration = Duration::from_secs(10);
/// A write that the network does not take for so long is a broken connection.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no connection, or no longer one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("the host is not known ({0}): check its name and this machine's network")]
    UnknownHost(String),
    #[error("nothing accepts connections there: start the broker, or check host and port")]
    Refused,
    #[error("the network failed ({0})")]
    Network(String),
    #[error("the other side does not answer")]
    Silent,
    #[error("the other side closed the connection")]
    Closed,
    #[error("what answers does not speak MQTT {0}: check the port, or write mqtts:// for one with TLS")]
    Garbage(Version),
    #[error("no secure connection: {0}")]
    Tls(String),
    #[error("the broker does not let us in: check the user, its password and its rights there")]
    NotAllowed,
    #[error("the broker does not speak MQTT {0}: try version=3.1.1 or version=5")]
    OtherVersion(Version),
    #[error("the broker refuses us ({0})")]
    Turned(String),
    #[error("the broker sent us away ({0})")]
    SentAway(String),
}

#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    version: Version,
    inbox: Vec<u8>,
    taken: VecDeque<Incoming>,
    /// The broker gives us up when it hears nothing for half as long again.
    pub keep_alive: Duration,
}

impl Connection {
    /// Connects, introduces us and waits for the broker's yes, `until` at the latest.
    pub fn open(
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
        hello: &Hello,
        until: Option<Instant>,
    ) -> Result<Connection, LinkError> {
        let deadline = Instant::now() + OPENED_WITHIN;
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        let mut stream = Stream::connect(&address.host, address.port, tls, deadline)?;
        let mut packet = Vec::new();
        address.version.connect(hello, &mut packet);
        stream.write(&packet, deadline)?;
        let mut connection = Connection {
            stream,
            version: address.version,
            inbox: Vec::new(),
            taken: VecDeque::new(),
            keep_alive: Duration::from_secs(hello.keep_alive_s.into()),
        };
        loop {
            match connection.receive()? {
                Some(Incoming::Accepted { keep_alive_s }) => {
                    if let Some(seconds) = keep_alive_s.filter(|s| *s > 0) {
                        connection.keep_alive = Duration::from_secs(seconds.into());
                    }
                    return Ok(connection);
                }
                Some(Incoming::Refused(Refusal::NotAllowed)) => return Err(LinkError::NotAllowed),
                Some(Incoming::Refused(Refusal::Version)) => return Err(LinkError::OtherVersion(address.version)),
                Some(Incoming::Refused(Refusal::Other(why))) => return Err(LinkError::Turned(why)),
                // Its first packet must be the answer to ours.
                Some(_) => return Err(LinkError::Garbage(address.version)),
                None => connection.stream.wait_until_readable(deadline)?,
            }
        }
    }

    pub fn send(&mut self, packets: &[u8]) -> Result<(), LinkError> {
        self.stream.write(packets, Instant::now() + WRITTEN_WITHIN)
    }

    /// The next thing the broker has said; `None` if it has said nothing more.
    pub fn receive(&mut self) -> Result<Option<Incoming>, LinkError> {
        if let Some(incoming) = self.taken.pop_front() {
            return Ok(Some(incoming));
        }
        // What came before the end is still good.
        let read = self.stream.read(&mut self.inbox);
        loop {
            match self.version.take(&mut self.inbox) {
                Ok(Some(Incoming::Goodbye(why))) => return Err(LinkError::SentAway(why)),
                Ok(Some(incoming)) => self.taken.push_back(incoming),
                Ok(None) => break,
                Err(_) => return Err(LinkError::Garbage(self.version)),
            }
        }
        match self.taken.pop_front() {
            Some(incoming) => Ok(Some(incoming)),
            None => read.map(|()| None),
        }
    }

    /// Waits until the broker says something or something comes on `wake`, but no longer than `timeout`.
    pub fn wait(&self, wake: BorrowedFd, timeout: Duration) {
        if self.taken.is_empty() {
            self.stream.wait(wake, timeout);
        }
    }
}

pub use stream::wait_for;
