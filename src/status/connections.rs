//! Limits on connections. Those beyond them are asked only whether affectd lives and is ready, in a few slots of their own.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 48;
/// Connections from one address, so that one client cannot keep the others out.
const MAX_PER_ADDRESS: usize = 16;
/// Connections beyond these limits, of which the oldest makes room for the next. A client that sends its request at once is served
/// even if others open as many connections as they can: it takes `RESERVED / MAX_RATE_HZ` to push it out.
const RESERVED: usize = 8;
/// Streams of events at the same time.
pub const MAX_STREAMS: usize = 12;
/// Connections a second. More wait in the kernel: even refusing them takes time that the pipeline may need.
const MAX_RATE_HZ: u32 = 40;

/// The open connections.
#[derive(Debug, Default, Clone)]
pub struct Connections(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    by_address: HashMap<IpAddr, usize>,
    total: usize,
    streams: usize,
    /// The connections in reserved slots, oldest first. If its sender is dropped, a connection ends.
    reserved: VecDeque<(u64, oneshot::Sender<()>)>,
    /// The number of connections in reserved slots so far.
    last_reserved: u64,
}

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    open: Connections,
    slot: Slot,
}

#[derive(Debug)]
enum Slot {
    Usual(IpAddr),
    Reserved { id: u64, ended: oneshot::Receiver<()> },
}

/// What a connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    All,
    /// Only whether affectd lives and is ready.
    HealthOnly,
}

/// One open stream of events.
#[derive(Debug)]
pub struct Stream(Connections);

impl Connections {
    /// Takes a usual slot if one is free for this address, and a reserved one otherwise.
    pub fn admit(&self, address: IpAddr) -> Connection {
        let address = address.to_canonical();
        let mut open = self.lock();
        let of_address = open.by_address.get(&address).copied().unwrap_or_default();
        let slot = if open.total < MAX_CONNECTIONS && of_address < MAX_PER_ADDRESS {
            open.total += 1;
            open.by_address.insert(address, of_address + 1);
            Slot::Usual(address)
        } else {
            open.reserve()
        };
        Connection {
            open: self.clone(),
            slot,
        }
    }

    /// `None` if there are too many.
    pub fn admit_stream(&self) -> Option<Stream> {
        let mut open = self.lock();
        (open.streams < MAX_STREAMS).then(|| open.streams += 1)?;
        Some(Stream(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn reserve(&mut self) -> Slot {
        if self.reserved.len() >= RESERVED {
            self.reserved.pop_front();
        }
        self.last_reserved += 1;
        let (end, ended) = oneshot::channel();
        self.reserved.push_back((self.last_reserved, end));
        Slot::Reserved {
            id: self.last_reserved,
            ended,
        }
    }
}

impl Connection {
    pub fn service(&self) -> Service {
        match self.slot {
            Slot::Usual(_) => Service::All,
            Slot::Reserved { .. } => Service::HealthOnly,
        }
    }

    /// Returns when this connection must make room for another.
    pub async fn pushed_out(&mut self) {
        match &mut self.slot {
            Slot::Usual(_) => pending().await,
            // Nothing is ever sent: the sender is dropped.
            Slot::Reserved { ended, .. } => drop(ended.await),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        match self.slot {
            Slot::Usual(address) => {
                open.total -= 1;
                if let Some(count) = open.by_address.get_mut(&address) {
                    *count -= 1;
                    if *count == 0 {
                        open.by_address.remove(&address);
                    }
                }
            }
            Slot::Reserved { id, .. } => open.reserved.retain(|(other, _)| *other != id),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.lock().streams -= 1;
    }
}

/// Spaces connections out.
#[derive(Debug)]
pub struct AcceptRate {
    /// When the connections so far would have come at the greatest rate.
    paid_until: Instant,
}

impl AcceptRate {
    const INTERVAL: Duration = Duration::from_millis(1000 / MAX_RATE_HZ as u64);
    /// So many may come at once.
    const BURST: Duration = Duration::from_secs(1);

    pub fn new(now: Instant) -> AcceptRate {
        AcceptRate { paid_until: now }
    }

    /// How long to wait after a connection before the next is accepted.
    pub fn pause(&mut self, now: Instant) -> Duration {
        self.paid_until = self.paid_until.max(now) + AcceptRate::INTERVAL;
        (self.paid_until - now).saturating_sub(AcceptRate::BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn one_address_cannot_take_all_connections() {
        let connections = Connections::default();
        let address = |n: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let admit = |address| {
            let connection = connections.admit(address);
            (connection.service() == Service::All).then_some(connection)
        };
        let mut open: Vec<Connection> = (0..100).filter_map(|_| admit(address(1))).collect();
        assert_eq!(open.len(), MAX_PER_ADDRESS);
        assert!(admit(IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped())).is_none());
        open.extend((2..100).filter_map(|n| admit(address(n))));
        assert_eq!(open.len(), MAX_CONNECTIONS);
        open.pop();
        assert!(admit(address(1)).is_none());
        assert!(admit(address(200)).is_some());
        drop(open);
        assert_eq!(connections.lock().total, 0);
        assert!(connections.lock().by_address.is_empty());
        assert!(connections.lock().reserved.is_empty());
    }

    #[test]
    fn the_oldest_reserved_connection_makes_room_for_the_next() {
        let connections = Connections::default();
        let admit = || connections.admit(Ipv4Addr::LOCALHOST.into());
        let usual: Vec<Connection> = (0..MAX_PER_ADDRESS).map(|_| admit()).collect();
        let mut reserved: Vec<Connection> = (0..RESERVED).map(|_| admit()).collect();
        let mut is_pushed_out = |n: usize| {
            let mut context = Context::from_waker(Waker::noop());
            pin!(reserved[n].pushed_out()).poll(&mut context).is_ready()
        };
        assert!((0..RESERVED).all(|n| !is_pushed_out(n)));
        let next = admit();
        assert_eq!(next.service(), Service::HealthOnly);
        assert!(is_pushed_out(0) && (1..RESERVED).all(|n| !is_pushed_out(n)));
        // One that is served and closed makes room, too.
        drop(reserved.remove(1));
        let last = admit();
        assert_eq!(connections.lock().reserved.len(), RESERVED);
        drop((usual, reserved, next, last));
        let open = connections.lock();
        assert_eq!((open.total, open.reserved.len()), (0, 0));
    }

    #[test]
    fn a_closed_stream_makes_room_for_another() {
        let connections = Connections::default();
        let mut open: Vec<Stream> = (0..100).filter_map(|_| connections.admit_stream()).collect();
        assert_eq!(open.len(), MAX_STREAMS);
        open.pop();
        assert!(connections.admit_stream().is_some());
    }

    #[test]
    fn a_burst_is_accepted_and_a_flood_is_spaced_out() {
        let now = Instant::now();
        let mut rate = AcceptRate::new(now);
        assert!((0..MAX_RATE_HZ).all(|_| rate.pause(now).is_zero()));
        for n in 1..=3 {
            assert_eq!(rate.pause(now), AcceptRate::INTERVAL * n);
        }
        assert!(rate.pause(now + Duration::from_secs(5)).is_zero());
    }
}
