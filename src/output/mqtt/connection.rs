//! One connection to a broker: packets in and out.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::error::LinkError;
use super::packet::{ConnectRequest, Incoming, Message, Rejection};
use super::settings::ConnectionSettings;
use super::stream::Stream;
use super::version::Version;

/// From the start of the connection to the broker's acceptance.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After how long a blocked write counts as a broken connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    version: Version,
    inbox: Vec<u8>,
    received: VecDeque<Incoming>,
    /// The broker closes the connection if it receives nothing for one and a half times this.
    pub keep_alive: Duration,
}

impl Connection {
    /// Connects and waits until the broker accepts, at most until `deadline`.
    pub fn open(
        settings: &ConnectionSettings,
        keep_alive_s: u16,
        will: Option<Message<'_>>,
        deadline: Option<Instant>,
    ) -> Result<Connection, LinkError> {
        let timeout = Instant::now() + CONNECT_TIMEOUT;
        let deadline = deadline.map_or(timeout, |deadline| deadline.min(timeout));
        let (address, version) = (&settings.address, settings.address.version);
        let mut stream = Stream::connect(&address.host, address.port, settings.tls.as_ref(), deadline)?;
        let request = ConnectRequest {
            client_id: &settings.client_id,
            keep_alive_s,
            credentials: settings.credentials.as_ref(),
            will,
        };
        let mut packet = Vec::new();
        version.connect(&request, &mut packet);
        stream.write(&packet, deadline)?;
        let mut connection = Connection {
            stream,
            version,
            inbox: Vec::new(),
            received: VecDeque::new(),
            keep_alive: Duration::from_secs(keep_alive_s.into()),
        };
        loop {
            match connection.receive()? {
                Some(Incoming::Accepted { keep_alive_s }) => {
                    if let Some(seconds) = keep_alive_s.filter(|s| *s > 0) {
                        connection.keep_alive = Duration::from_secs(seconds.into());
                    }
                    return Ok(connection);
                }
                Some(Incoming::Rejected(Rejection::NotAuthorized)) => return Err(LinkError::NotAuthorized),
                Some(Incoming::Rejected(Rejection::UnsupportedVersion)) => {
                    return Err(LinkError::UnsupportedVersion(version));
                }
                Some(Incoming::Rejected(Rejection::Other(why))) => return Err(LinkError::Rejected(why)),
                // The first packet of a broker must be the answer to the connect packet.
                Some(_) => return Err(LinkError::NotMqtt(version)),
                None => connection.stream.wait_until_readable(deadline)?,
            }
        }
    }

    pub fn send(&mut self, packets: &[u8]) -> Result<(), LinkError> {
        self.stream.write(packets, Instant::now() + WRITE_TIMEOUT)
    }

    /// The next packet; `None` if no whole packet has arrived. Does not wait.
    pub fn receive(&mut self) -> Result<Option<Incoming>, LinkError> {
        if let Some(incoming) = self.received.pop_front() {
            return Ok(Some(incoming));
        }
        // Packets that arrived before the connection broke are still valid.
        let read = self.stream.read(&mut self.inbox);
        loop {
            match self.version.take(&mut self.inbox) {
                Ok(Some(Incoming::Disconnect(why))) => return Err(LinkError::DisconnectedByBroker(why)),
                Ok(Some(incoming)) => self.received.push_back(incoming),
                Ok(None) => break,
                Err(_) => return Err(LinkError::NotMqtt(self.version)),
            }
        }
        match self.received.pop_front() {
            Some(incoming) => Ok(Some(incoming)),
            None => read.map(|()| None),
        }
    }

    /// Waits until a packet or a byte on `wake` arrives, or until `timeout` is over.
    pub fn wait(&self, wake: BorrowedFd, timeout: Duration) {
        if self.received.is_empty() {
            self.stream.wait(wake, timeout);
        }
    }
}
