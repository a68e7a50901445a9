//! The queue of estimates that wait for a connection, or were sent and are not confirmed yet.
//!
//! MQTT does not confirm messages with QoS 0. But a broker processes the packets of a connection in order. When it answers a
//! ping, it has received everything sent before that ping. Until then an estimate stays in the spool. If the connection
//! breaks first, the estimate is sent again on the next connection.

use std::collections::VecDeque;
use std::time::Duration;

/// An estimate, encoded when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedEstimate {
    /// Time on the source's clock.
    pub at: Duration,
    pub json: Vec<u8>,
}

/// A queue in order of time, with a limited time span.
#[derive(Debug)]
pub struct Spool {
    estimates: VecDeque<QueuedEstimate>,
    /// The largest time between the oldest and the newest estimate.
    span: Duration,
    /// How many estimates at the front were sent on this connection.
    sent: usize,
    /// For each unanswered ping, oldest first: how many estimates at the front were sent before it.
    pings: VecDeque<usize>,
    dropped: u64,
}

impl Spool {
    pub fn new(span: Duration) -> Spool {
        Spool {
            estimates: VecDeque::new(),
            span,
            sent: 0,
            pings: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Whether an estimate of time `at` would displace the oldest one.
    pub fn is_full(&self, at: Duration) -> bool {
        self.estimates
            .front()
            .is_some_and(|oldest| at.saturating_sub(oldest.at) > self.span)
    }

    /// Adds the newest estimate. Estimates that are now too old are dropped and counted.
    pub fn push(&mut self, estimate: QueuedEstimate) {
        while self.is_full(estimate.at) {
            self.estimates.pop_front();
            // Counted even if it was sent, because its arrival can no longer be confirmed.
            self.dropped += 1;
            self.sent = self.sent.saturating_sub(1);
            self.pings.iter_mut().for_each(|sent| *sent = sent.saturating_sub(1));
        }
        self.estimates.push_back(estimate);
    }

    /// The estimates to send now, oldest first, so that at most `window` are unconfirmed. Marks them as sent.
    pub fn send(&mut self, window: usize) -> impl Iterator<Item = &QueuedEstimate> {
        let first = self.sent;
        self.sent = self.estimates.len().min(window).max(first);
        self.estimates.range(first..self.sent)
    }

    /// A ping was sent after the estimates.
    pub fn pinged(&mut self) {
        self.pings.push_back(self.sent);
    }

    /// The oldest ping was answered: the estimates sent before it have arrived.
    pub fn confirm(&mut self) {
        let Some(arrived) = self.pings.pop_front() else { return };
        self.estimates.drain(..arrived);
        self.sent -= arrived;
        self.pings.iter_mut().for_each(|sent| *sent -= arrived);
    }

    /// The connection broke: all unconfirmed estimates must be sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
        self.pings.clear();
    }

    /// How many estimates are not confirmed yet.
    pub fn len(&self) -> usize {
        self.estimates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.estimates.is_empty()
    }

    /// How many estimates were not sent on this connection.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.estimates.len() - self.sent
    }

    /// How many estimates were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn estimate(tick: u64) -> QueuedEstimate {
        QueuedEstimate {
            at: Duration::from_millis(200 * tick),
            json: tick.to_string().into_bytes(),
        }
    }

    fn number(estimate: &QueuedEstimate) -> u64 {
        String::from_utf8_lossy(&estimate.json).parse().unwrap()
    }

    #[test]
    fn a_span_of_ten_minutes_keeps_3001_estimates_at_5_hz() {
        let mut spool = Spool::new(Duration::from_secs(600));
        (0..3100).for_each(|tick| spool.push(estimate(tick)));
        assert_eq!((spool.len(), spool.dropped()), (3001, 99));
        assert_eq!(spool.send(1).map(number).collect::<Vec<_>>(), [99]);
    }

    #[test]
    fn unconfirmed_estimates_are_sent_again() {
        let mut spool = Spool::new(Duration::from_secs(600));
        (0..4).for_each(|tick| spool.push(estimate(tick)));
        assert_eq!(spool.send(2).map(number).collect::<Vec<_>>(), [0, 1]);
        spool.pinged();
        assert_eq!(spool.send(3).map(number).collect::<Vec<_>>(), [2]);
        spool.pinged();
        spool.confirm();
        spool.rewind();
        assert_eq!(spool.send(9).map(number).collect::<Vec<_>>(), [2, 3]);
    }

    /// An event of a connection.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Make,
        Send(usize),
        Ping,
        Answer,
        Break,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Make),
            3 => (1usize..5).prop_map(Step::Send),
            2 => Just(Step::Ping),
            2 => Just(Step::Answer),
            1 => Just(Step::Break),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// A broker receives a part of what was sent, in order, and answers pings in order. The connection may break at any
        /// time. Every estimate that was not dropped must be sent at least once.
        #[test]
        fn only_dropped_estimates_are_lost(steps in steps()) {
            // Two seconds: ten estimates and the newest.
            let mut spool = Spool::new(Duration::from_secs(2));
            let mut made = 0;
            let mut seen = Vec::new();
            for step in steps {
                match step {
                    Step::Make => {
                        spool.push(estimate(made));
                        made += 1;
                    }
                    Step::Send(window) => seen.extend(spool.send(window).map(number)),
                    Step::Ping => spool.pinged(),
                    Step::Answer => spool.confirm(),
                    Step::Break => spool.rewind(),
                }
                prop_assert!(spool.len() <= 11 && spool.waiting() <= spool.len());
            }
            spool.rewind();
            seen.extend(spool.send(usize::MAX).map(number));
            let missing = (0..made).filter(|tick| !seen.contains(tick)).count() as u64;
            prop_assert!(missing <= spool.dropped());
            seen.sort_unstable();
            seen.dedup();
            prop_assert!(seen.iter().all(|tick| *tick < made));
        }
    }
}
