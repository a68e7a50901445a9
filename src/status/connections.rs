//! Limits on connections. What is beyond them is closed at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 48;
/// Connections from one address, so that one client cannot keep the others out.
const MAX_PER_ADDRESS: usize = 16;
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
}

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    open: Connections,
    address: IpAddr,
}

/// One open stream of events.
#[derive(Debug)]
pub struct Stream(Connections);

impl Connections {
    /// `None` if there are too many.
    pub fn admit(&self, address: IpAddr) -> Option<Connection> {
        let address = address.to_canonical();
        let mut open = self.lock();
        let of_address = open.by_address.get(&address).copied().unwrap_or_default();
        if open.total >= MAX_CONNECTIONS || of_address >= MAX_PER_ADDRESS {
            return None;
        }
        open.total += 1;
        open.by_address.insert(address, of_address + 1);
        Some(Connection {
            open: self.clone(),
            address,
        })
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

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
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

    #[test]
    fn one_address_cannot_take_all_connections() {
        let connections = Connections::default();
        let address = |n: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let mut open: Vec<Connection> = (0..100).filter_map(|_| connections.admit(address(1))).collect();
        assert_eq!(open.len(), MAX_PER_ADDRESS);
        assert!(
            connections
                .admit(IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped()))
                .is_none()
        );
        open.extend((2..100).filter_map(|n| connections.admit(address(n))));
        assert_eq!(open.len(), MAX_CONNECTIONS);
        open.pop();
        assert!(connections.admit(address(1)).is_none());
        assert!(connections.admit(address(200)).is_some());
        drop(open);
        assert_eq!(connections.lock().total, 0);
        assert!(connections.lock().by_address.is_empty());
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
