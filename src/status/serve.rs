//! The thread of the page: accepts connections and serves them, within limits.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{debug, info, warn};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::connections::{AcceptRate, Connection, Service};
use super::feed::Estimates;
use super::impatient::Impatient;
use super::routes;
use super::state::State;
use crate::output::wall_clock::WallClock;

const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// A client must send the head of its request in this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is answered in this time, or not at all. A pause waits until the devices are closed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a connection that may only ask whether affectd lives and is ready.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// The head of a request.
const MAX_HEAD_BYTES: usize = 8192;
const MAX_HEADERS: usize = 64;
/// Memory of the kernel for what a slow client does not take, for each direction.
const SOCKET_BUFFER: usize = 16 << 10;
/// Time between two attempts to use an address that this machine does not have yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// If the system refuses a connection, for example because too many files are open.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// `None` if this machine does not have the address yet.
pub fn open(listen: SocketAddr) -> io::Result<Option<TcpListener>> {
    match TcpListener::bind(listen) {
        Ok(listener) => {
            listener.set_nonblocking(true)?;
            Ok(Some(listener))
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) => Err(error),
    }
}

/// Serves until `stopped` says so.
pub fn run(
    state: &Arc<State>,
    listen: SocketAddr,
    listener: Option<TcpListener>,
    estimates: &Estimates,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            // Both a message and a closed channel mean the end.
            _ = stopped => Ok(()),
            result = accept_all(state, listen, listener) => result,
            () = receive(state, estimates) => Ok(()),
            () = report_health(state) => Ok(()),
        }
    })
}

async fn receive(state: &State, estimates: &Estimates) {
    let mut wall = WallClock::default();
    loop {
        state.add(estimates.next().await, &mut wall);
    }
}

async fn report_health(state: &State) {
    let mut ticks = interval(HEALTH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.send_health();
    }
}

/// Opens the address if it is not open yet, and serves all connections.
async fn accept_all(state: &Arc<State>, listen: SocketAddr, listener: Option<TcpListener>) -> io::Result<()> {
    let listener = match listener {
        Some(listener) => listener,
        None => wait_for_address(listen).await?,
    };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let token = if state.guard.has_token() { ", with a token" } else { "" };
    info!("status page: http://{}/{token}", listener.local_addr()?);
    let mut rate = AcceptRate::new(Instant::now());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection = state.connections.admit(peer.ip());
                if connection.service() == Service::HealthOnly {
                    debug!("status page: too many connections: {peer} may only ask for /healthz and /readyz");
                }
                tokio::spawn(serve(Arc::clone(state), stream, connection));
                // If many come at once, each is served before later ones can push it out.
                yield_now().await;
                let pause = rate.pause(Instant::now());
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
            Err(error) => {
                debug!("status page: no connection ({error})");
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

async fn wait_for_address(listen: SocketAddr) -> io::Result<TcpListener> {
    warn!("status page: {listen} is not an address of this machine yet; affectd tries it until it is");
    loop {
        sleep(RETRY_INTERVAL).await;
        if let Some(listener) = open(listen)? {
            return Ok(listener);
        }
    }
}

/// Serves one connection, which carries one request: then every limit on connections is one on requests.
async fn serve(state: Arc<State>, stream: TcpStream, mut open: Connection) {
    let socket = SockRef::from(&stream);
    // Without the limit, the kernel would keep megabytes for each slow client.
    let limited = socket
        .set_send_buffer_size(SOCKET_BUFFER)
        .and_then(|()| socket.set_recv_buffer_size(SOCKET_BUFFER))
        .and_then(|()| stream.set_nodelay(true));
    if let Err(error) = limited {
        debug!("status page: {error}");
        return;
    }
    let is_stream = Arc::<AtomicBool>::default();
    let allowed = open.service();
    let request_timeout = match allowed {
        Service::All => REQUEST_TIMEOUT,
        Service::HealthOnly => HEALTH_TIMEOUT,
    };
    let service = service_fn(|request| routes::answer(Arc::clone(&state), request, allowed, Arc::clone(&is_stream)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Impatient::new(stream)), service);
    let mut connection = pin!(connection);
    let answered = tokio::select! {
        answered = timeout(request_timeout, connection.as_mut()) => answered,
        () = open.pushed_out() => return,
    };
    let served = match answered {
        Ok(served) => served,
        Err(_) if is_stream.load(Ordering::Relaxed) => connection.await,
        Err(_) => return,
    };
    if let Err(error) = served {
        debug!("status page: {error}");
    }
}
