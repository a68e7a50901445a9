//! Bytes to and from a broker, plain or through TLS, never waiting longer than told.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, StreamOwned};

use super::connection::LinkError;

/// One of several addresses of a host gets at most this long: the others must have their turn.
const PER_ADDRESS: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Connects and, with `tls`, shakes hands.
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
        let mut last = LinkError::UnknownHost("no address".into());
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now()).min(PER_ADDRESS);
            if left.is_zero() {
                return Err(LinkError::Silent);
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(tcp) => return Stream::over(tcp, host, tls, deadline),
                Err(e) => last = broken(e),
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
        // An estimate is small and wanted at once.
        tcp.set_nodelay(true).map_err(broken)?;
        tcp.set_nonblocking(true).map_err(broken)?;
        let Some(config) = tls else {
            return Ok(Stream(Kind::Plain(tcp)));
        };
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| LinkError::Tls("the host is neither a name nor an address".into()))?;
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(|e| LinkError::Tls(explained(&e)))?;
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
                Err(e) => return Err(broken(e)),
            }
        }
        Ok(Stream(Kind::Tls(tls)))
    }

    /// Adds to `inbox` what has come; nothing if nothing has.
    pub fn read(&mut self, inbox: &mut Vec<u8>) -> Result<(), LinkError> {
        let mut buffer = [0; 4096];
        loop {
            let read = match &mut self.0 {
                Kind::Plain(tcp) => tcp.read(&mut buffer),
                Kind::Tls(tls) => tls.read(&mut buffer),
            };
            match read {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => inbox.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(e)),
            }
        }
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), LinkError> {
        loop {
            let written = match &mut self.0 {
                Kind::Plain(tcp) if bytes.is_empty() => tcp.flush().map(|()| 0),
                Kind::Plain(tcp) => tcp.write(bytes),
                // Empty: what TLS has taken and the socket has not.
                Kind::Tls(tls) if bytes.is_empty() => tls.flush().map(|()| 0),
                Kind::Tls(tls) => tls.write(bytes),
            };
            match written {
                Ok(0) if bytes.is_empty() => return Ok(()),
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => wait_until(self.socket(), libc::POLLOUT, deadline)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(e)),
            }
        }
    }

    /// Waits until something has come, here or on `wake`, but no longer than `timeout`.
    pub fn wait(&self, wake: BorrowedFd, timeout: Duration) {
        let (socket, wake) = (self.socket().as_raw_fd(), wake.as_raw_fd());
        poll(
            &mut [interest(socket, libc::POLLIN), interest(wake, libc::POLLIN)],
            timeout,
        );
    }

    /// The same, with a time at which waiting is in vain.
    pub fn wait_until_readable(&self, deadline: Instant) -> Result<(), LinkError> {
        wait_until(self.socket(), libc::POLLIN, deadline)
    }

    fn socket(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(tcp) => tcp,
            Kind::Tls(tls) => &tls.sock,
        }
    }
}

/// Waits until something has come on `wake`, but no longer than `timeout`.
pub fn wait_for(wake: BorrowedFd, timeout: Duration) {
    poll(&mut [interest(wake.as_raw_fd(), libc::POLLIN)], timeout);
}

fn wait_until(socket: &TcpStream, events: libc::c_short, deadline: Instant) -> Result<(), LinkError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(LinkError::Silent);
    }
    poll(&mut [interest(socket.as_raw_fd(), events)], left);
    Ok(())
}

fn interest(fd: libc::c_int, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// Returns when one is ready, at the timeout, or early at a signal: callers look again in any case.
fn poll(fds: &mut [libc::pollfd], timeout: Duration) {
    // Up, so that a wait that is nearly over does not become a busy loop.
    let timeout_ms = (timeout.as_millis() + 1).min(60_000) as libc::c_int;
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice of plain data, which the
    // kernel writes `revents` into.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
}

fn broken(error: io::Error) -> LinkError {
    if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return LinkError::Tls(explained(tls));
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => LinkError::Refused,
        ErrorKind::TimedOut => LinkError::Silent,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => LinkError::Closed,
        _ => LinkError::Network(error.to_string()),
    }
}

/// What is wrong with TLS, and what would mend it.
fn explained(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error else {
        return match error {
            rustls::Error::InvalidMessage(_) => {
                "what answers does not speak TLS: check the port, or write mqtt://".into()
            }
            rustls::Error::AlertReceived(alert) => {
                format!("the broker ended it ({alert:?}): does it ask for a client certificate? give cert and key")
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
            "the broker's certificate is signed by nobody trusted here: give ca=/path/to/ca.pem".into()
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "the broker's certificate is for another name: use the host name that stands in it".into()
        }
        other => format!("the broker's certificate is not accepted ({other:?})"),
    }
}
