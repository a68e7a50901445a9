//! The TCP connection to a broker, and the errors of TCP and TLS.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::error::LinkError;
use super::tls;
use super::version::Version;

/// How long one of several addresses of a host is tried before the next.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// After this time without an answer from the name server, the last known addresses are used.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// A broker's host and port. Clones share the addresses that were found last.
#[derive(Debug, Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    known: Arc<Mutex<Vec<SocketAddr>>>,
    reached: Arc<AtomicBool>,
}

impl Endpoint {
    pub fn new(host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: host.into(),
            port,
            known: Arc::default(),
            reached: Arc::default(),
        }
    }

    /// Whether the last attempt reached a program at the other end. Forgets it.
    pub fn take_reached(&self) -> bool {
        self.reached.swap(false, Ordering::Relaxed)
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, LinkError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match timeout(LOOKUP_TIMEOUT, lookup_host((self.host.as_str(), self.port))).await {
            Ok(Ok(found)) => {
                let found: Vec<_> = found.collect();
                known().clone_from(&found);
                Ok(found)
            }
            // The name server often is out of reach for longer than the broker.
            _ if !known().is_empty() => Ok(known().clone()),
            Ok(Err(error)) => Err(LinkError::UnknownHost(error.to_string())),
            Err(_) => Err(LinkError::UnknownHost("the name server does not answer".into())),
        }
    }
}

/// Connects. The error contains a [`LinkError`].
pub async fn connect(endpoint: Endpoint) -> io::Result<TcpStream> {
    let mut last = LinkError::UnknownHost("it has no address".into());
    for address in endpoint.addresses().await.map_err(io::Error::other)? {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Estimates are small and must not wait to be sent together.
                tcp.set_nodelay(true)?;
                endpoint.reached.store(true, Ordering::Relaxed);
                return Ok(tcp);
            }
            Ok(Err(error)) => last = link_error(error),
            Err(_) => last = LinkError::Timeout,
        }
    }
    Err(io::Error::other(last))
}

pub fn link_error(error: io::Error) -> LinkError {
    if let Some(inner) = error.get_ref() {
        if let Some(error) = inner.downcast_ref::<LinkError>() {
            return error.clone();
        }
        if let Some(error) = inner.downcast_ref::<rustls::Error>() {
            return LinkError::Tls(tls::problem(error));
        }
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => LinkError::ConnectionRefused,
        ErrorKind::TimedOut => LinkError::Timeout,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => LinkError::Closed,
        _ => LinkError::Network(error.to_string()),
    }
}

/// An error while packets were read or written. The stream of packets has errors of its own for an incomplete packet.
pub fn stream_error(error: io::Error, version: Version) -> LinkError {
    match link_error(error) {
        LinkError::Network(_) => LinkError::NotMqtt(version),
        other => other,
    }
}

/// An error of the TLS handshake.
pub fn tls_link_error(error: rumqttc_v5::TlsError) -> LinkError {
    match error {
        rumqttc_v5::TlsError::Io(error) => match link_error(error) {
            LinkError::Closed => LinkError::Tls(
                "the broker closed the connection during the handshake: check the port, write mqtt:// if it does not use \
                 TLS, and see the broker's log"
                    .into(),
            ),
            other => other,
        },
        rumqttc_v5::TlsError::TLS(error) => LinkError::Tls(tls::problem(&error)),
        rumqttc_v5::TlsError::DNSName(_) => {
            LinkError::Tls("the host is neither a host name nor an IP address: correct it".into())
        }
        other => LinkError::Tls(other.to_string()),
    }
}
