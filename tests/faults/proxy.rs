//! A proxy in front of the broker that can be slow, or silent where the system permits no network namespace.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes a second of a slow proxy, in each direction.
const SLOW_BYTES: usize = 300;
const TICK: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Forward,
    Slow,
    /// Accepts connections and bytes, and forwards none.
    Silent,
    /// The proxy ends.
    Ended,
}

pub struct Proxy {
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// Listens on `listen`, and connects to `broker` for each connection.
    pub fn start(listen: &str, broker: u16) -> Proxy {
        let listener = TcpListener::bind(listen).unwrap_or_else(|e| panic!("{listen}: {e}"));
        listener.set_nonblocking(true).unwrap();
        let mode = Arc::new(AtomicU8::new(Mode::Forward as u8));
        let seen = Arc::clone(&mode);
        // Ends with the proxy.
        thread::spawn(move || {
            while !is(&seen, Mode::Ended) {
                match listener.accept() {
                    Ok((client, _)) => forward(client, broker, &seen),
                    Err(_) => thread::sleep(TICK),
                }
            }
        });
        Proxy { mode }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::Ended);
    }
}

fn is(mode: &AtomicU8, wanted: Mode) -> bool {
    mode.load(Ordering::Relaxed) == wanted as u8
}

/// Forwards both directions, each on a thread. Without a broker, the connection is closed.
fn forward(client: TcpStream, broker: u16, mode: &Arc<AtomicU8>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else {
        return;
    };
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (from, to, mode) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(mode));
        from.set_nonblocking(false).unwrap();
        from.set_read_timeout(Some(TICK)).unwrap();
        thread::spawn(move || {
            copy(&from, &to, &mode);
            // The peers see the end at once.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, mode: &AtomicU8) {
    let mut bytes = [0; 4096];
    while !is(mode, Mode::Ended) {
        if is(mode, Mode::Silent) {
            thread::sleep(TICK);
            continue;
        }
        let (limit, pause) = match is(mode, Mode::Slow) {
            true => (SLOW_BYTES / 50, TICK),
            false => (bytes.len(), Duration::ZERO),
        };
        match from.read(&mut bytes[..limit]) {
            Ok(0) => return,
            Ok(length) => {
                if to.write_all(&bytes[..length]).is_err() {
                    return;
                }
                thread::sleep(pause);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}
