//! A TCP connection to a broker, with or without TLS. Every wait has a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, StreamOwned};

use super::error::LinkError;

/// How long one of several addresses of a host is tried before the next.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest single poll.
const MAX_POLL_MS: libc::c_int = 60_000;

#[derive(Debug)]
pub struct Stream(Transport);

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Connects. With `tls`, also completes the TLS handshake.
    pub fn connect(
        host: &str,
        port: u16,
        tls: Option<&Arc<ClientConfig>>,
        deadline: Instant,
    ) -> Result<Stream, LinkError> {
        let addresses: Vec<SocketAddr> = (host, port)
            .to_socket_addrs()
            .map_err(|e| LinkError::UnknownHost(e.to_string()))?
            .collect();
        let mut last = LinkError::UnknownHost("it has no address".into());
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now()).min(ADDRESS_TIMEOUT);
            if left.is_zero() {
                return Err(LinkError::Timeout);
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(tcp) => return Stream::over(tcp, host, tls, deadline),
                Err(e) => last = link_error(e),
            }
        }
        Err(last)
    }

    fn over(
        tcp: TcpStream,
        host: &str,
        tls: Option<&Arc<ClientConfig>>,
        deadline: Instant,
    ) -> Result<Stream, LinkError> {
        // Estimates are small and must not wait to be sent together.
        tcp.set_nodelay(true).map_err(link_error)?;
        tcp.set_nonblocking(true).map_err(link_error)?;
        let Some(config) = tls else {
            return Ok(Stream(Transport::Plain(tcp)));
        };
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| LinkError::Tls("the host is neither a host name nor an IP address: correct it".into()))?;
        let connection =
            ClientConnection::new(Arc::clone(config), name).map_err(|e| LinkError::Tls(tls_problem(&e)))?;
        let mut tls = Box::new(StreamOwned::new(connection, tcp));
        while tls.conn.is_handshaking() {
            match tls.conn.complete_io(&mut tls.sock) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let events = if tls.conn.wants_write() {
                        libc::POLLOUT
                    } else {
                        libc::POLLIN
                    };
                    wait_until(&tls.sock, events, deadline)?;
                }
                Err(e) => return Err(link_error(e)),
            }
        }
        Ok(Stream(Transport::Tls(tls)))
    }

    /// Appends the bytes that have arrived to `inbox`. Does not wait for any.
    pub fn read(&mut self, inbox: &mut Vec<u8>) -> Result<(), LinkError> {
        let mut buffer = [0; 4096];
        loop {
            let read = match &mut self.0 {
                Transport::Plain(tcp) => tcp.read(&mut buffer),
                Transport::Tls(tls) => tls.read(&mut buffer),
            };
            match read {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => inbox.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(link_error(e)),
            }
        }
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), LinkError> {
        loop {
            let written = match &mut self.0 {
                Transport::Plain(tcp) if bytes.is_empty() => tcp.flush().map(|()| 0),
                Transport::Plain(tcp) => tcp.write(bytes),
                // The TLS layer may still hold bytes that the socket had no room for.
                Transport::Tls(tls) if bytes.is_empty() => tls.flush().map(|()| 0),
                Transport::Tls(tls) => tls.write(bytes),
            };
            match written {
                Ok(0) if bytes.is_empty() => return Ok(()),
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => wait_until(self.socket(), libc::POLLOUT, deadline)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(link_error(e)),
            }
        }
    }

    /// Waits until bytes have arrived, here or on `wake`, or until `timeout` is over.
    pub fn wait(&self, wake: BorrowedFd, timeout: Duration) {
        let (socket, wake) = (self.socket().as_raw_fd(), wake.as_raw_fd());
        poll(
            &mut [interest(socket, libc::POLLIN), interest(wake, libc::POLLIN)],
            timeout,
        );
    }

    /// Waits until bytes have arrived. After `deadline` it is an error.
    pub fn wait_until_readable(&self, deadline: Instant) -> Result<(), LinkError> {
        wait_until(self.socket(), libc::POLLIN, deadline)
    }

    fn socket(&self) -> &TcpStream {
        match &self.0 {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => &tls.sock,
        }
    }
}

/// Waits until bytes have arrived on `wake`, or until `timeout` is over.
pub fn wait_for(wake: BorrowedFd, timeout: Duration) {
    poll(&mut [interest(wake.as_raw_fd(), libc::POLLIN)], timeout);
}

fn wait_until(socket: &TcpStream, events: libc::c_short, deadline: Instant) -> Result<(), LinkError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(LinkError::Timeout);
    }
    poll(&mut [interest(socket.as_raw_fd(), events)], left);
    Ok(())
}

fn interest(fd: libc::c_int, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// Returns when a descriptor is ready, at the timeout, or early at a signal. Callers must check what is ready.
fn poll(fds: &mut [libc::pollfd], timeout: Duration) {
    // Rounded up: a wait of less than a millisecond must not become a busy loop.
    let timeout_ms = libc::c_int::try_from(timeout.as_millis() + 1).map_or(MAX_POLL_MS, |ms| ms.min(MAX_POLL_MS));
    let count = libc::nfds_t::try_from(fds.len()).expect("two descriptors at most");
    // SAFETY: pointer and count describe one live, exclusively borrowed slice of plain data, into which the kernel
    // writes `revents`.
    unsafe { libc::poll(fds.as_mut_ptr(), count, timeout_ms) };
}

fn link_error(error: io::Error) -> LinkError {
    if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return LinkError::Tls(tls_problem(tls));
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => LinkError::ConnectionRefused,
        ErrorKind::TimedOut => LinkError::Timeout,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => LinkError::Closed,
        _ => LinkError::Network(error.to_string()),
    }
}

/// A TLS error and its correction.
fn tls_problem(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error else {
        return match error {
            rustls::Error::InvalidMessage(_) => {
                "the broker does not use TLS on this port: check the port, or write mqtt://".into()
            }
            rustls::Error::AlertReceived(alert) => {
                format!(
                    "the broker ended the handshake ({alert:?}): if it requires a client certificate, add cert and key"
                )
            }
            other => other.to_string(),
        };
    };
    match bad {
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "the broker's certificate has expired: renew it, and check this machine's clock".into()
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet: check this machine's clock".into()
        }
        Bad::UnknownIssuer => {
            "the broker's certificate is signed by an unknown authority: add ca=/path/to/ca.pem".into()
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "the broker's certificate is for another host name: use the host name in the certificate".into()
        }
        other => format!("the broker's certificate is invalid ({other:?}): replace it"),
    }
}
