//! A Unix socket that sends the health record to `affectd health`. It does not depend on the status page.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use log::{debug, warn};

use crate::health::LiveHealth;
use crate::named_thread;

/// The record fits into the buffer of a connection, so only a suspended system makes a write wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failed `accept`, which would fail again at once.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The file of a socket that is served. Removed when this is dropped.
#[derive(Debug)]
pub struct HealthSocket {
    path: PathBuf,
}

impl HealthSocket {
    /// Serves `path` until the process ends. Estimates do not depend on it, so a failure is a warning.
    pub fn start(path: &Path, health: LiveHealth) -> Option<HealthSocket> {
        let result = bind(path).map_err(|why| reason(&why)).and_then(|listener| {
            named_thread::spawn("health-socket", move || serve(&listener, &health)).map_err(|why| why.to_string())
        });
        match result {
            Ok(_) => Some(HealthSocket { path: path.to_owned() }),
            Err(why) => {
                warn!("{}: `affectd health` cannot ask this process: {why}", path.display());
                None
            }
        }
    }
}

impl Drop for HealthSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            debug!("{}: {error}", self.path.display());
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "another affectd uses it, or it is a file: give each its own RUNTIME_DIRECTORY".into(),
        _ => error.to_string(),
    }
}

/// Opens the socket. Takes the place of a socket that a killed process has left, and of nothing else.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn serve(listener: &UnixListener, health: &LiveHealth) {
    for connection in listener.incoming() {
        match connection {
            Ok(connection) => {
                if let Err(error) = send(connection, health) {
                    debug!("health socket: the client has left: {error}");
                }
            }
            Err(error) => {
                debug!("health socket: {error}");
                thread::sleep(RETRY_INTERVAL);
            }
        }
    }
}

fn send(mut connection: UnixStream, health: &LiveHealth) -> io::Result<()> {
    connection.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut line = serde_json::to_vec(&health.report())?;
    line.push(b'\n');
    connection.write_all(&line)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(path: &Path) -> String {
        let mut text = String::new();
        UnixStream::connect(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn every_connection_gets_one_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        let socket = HealthSocket::start(&path, LiveHealth::default()).unwrap();
        // A client that reads nothing delays nobody.
        let _silent = UnixStream::connect(&path).unwrap();
        for _ in 0..2 {
            assert!(read(&path).starts_with(r#"{"schema":1,"#));
        }
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn only_an_abandoned_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        drop(UnixListener::bind(&path).unwrap());
        let socket = HealthSocket::start(&path, LiveHealth::default()).unwrap();
        assert!(HealthSocket::start(&path, LiveHealth::default()).is_none());
        assert!(read(&path).ends_with("}\n"));
        drop(socket);

        fs::write(&path, "of the user").unwrap();
        assert!(HealthSocket::start(&path, LiveHealth::default()).is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "of the user");
    }
}
