//! The queue of estimates that are not delivered yet: those that wait, and those that were sent and are not acknowledged.
//!
//! An estimate leaves the queue when the broker has acknowledged it. If the connection breaks first, it is sent again on the
//! next connection, so it may arrive twice, and never gets lost.

use std::collections::VecDeque;
use std::time::Duration;

use crate::output::contract::QueuedEstimate;

/// Identifies an estimate in a [`Spool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EstimateId(u64);

/// A queue in order of time, with a limited time span.
#[derive(Debug)]
pub struct Spool {
    entries: VecDeque<Entry>,
    /// The identifier of the first entry. The next ones follow in steps of one.
    first: u64,
    /// The entries before this were sent on this connection.
    sent: usize,
    /// The largest time between the oldest and the newest estimate.
    span: Duration,
    undelivered: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    estimate: QueuedEstimate,
    /// It stays in the queue until those before it are delivered, too.
    delivered: bool,
}

impl Spool {
    pub fn new(span: Duration) -> Spool {
        Spool {
            entries: VecDeque::new(),
            first: 0,
            sent: 0,
            span,
            undelivered: 0,
            dropped: 0,
        }
    }

    /// Whether an estimate of time `at` would displace the oldest one.
    pub fn is_full(&self, at: Duration) -> bool {
        self.entries
            .front()
            .is_some_and(|oldest| at.saturating_sub(oldest.estimate.at) > self.span)
    }

    /// Adds the newest estimate. Estimates that are now too old are dropped and counted.
    pub fn push(&mut self, estimate: QueuedEstimate) {
        while self.is_full(estimate.at) {
            // Counted even if it was sent, because its arrival can no longer be confirmed.
            if self.pop_front() {
                self.dropped += 1;
            }
        }
        self.entries.push_back(Entry {
            estimate,
            delivered: false,
        });
        self.undelivered += 1;
    }

    /// The oldest estimate that was not sent on this connection. Marks it as sent.
    pub fn next_to_send(&mut self) -> Option<(EstimateId, &QueuedEstimate)> {
        while self.entries.get(self.sent)?.delivered {
            self.sent += 1;
        }
        let id = EstimateId(self.first + self.sent as u64);
        self.sent += 1;
        Some((id, &self.entries[self.sent - 1].estimate))
    }

    /// The broker has the estimate, or will never accept it. Ignores one that was dropped meanwhile.
    pub fn delivered(&mut self, id: EstimateId) {
        let entry =
            id.0.checked_sub(self.first)
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| self.entries.get_mut(at));
        if let Some(entry) = entry.filter(|entry| !entry.delivered) {
            entry.delivered = true;
            self.undelivered -= 1;
        }
        while self.entries.front().is_some_and(|entry| entry.delivered) {
            self.pop_front();
        }
    }

    /// The connection broke: all undelivered estimates must be sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Takes all estimates that are not delivered.
    pub fn take(&mut self) -> Vec<QueuedEstimate> {
        self.first += self.entries.len() as u64;
        (self.sent, self.undelivered) = (0, 0);
        let undelivered = self.entries.drain(..).filter(|entry| !entry.delivered);
        undelivered.map(|entry| entry.estimate).collect()
    }

    /// How many estimates are not delivered yet.
    pub fn len(&self) -> usize {
        self.undelivered
    }

    pub fn is_empty(&self) -> bool {
        self.undelivered == 0
    }

    /// How many estimates were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Removes the first entry. Returns whether it was undelivered.
    fn pop_front(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else {
            return false;
        };
        self.first += 1;
        self.sent = self.sent.saturating_sub(1);
        if !entry.delivered {
            self.undelivered -= 1;
        }
        !entry.delivered
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

    fn send(spool: &mut Spool, count: usize) -> Vec<(EstimateId, u64)> {
        let mut sent = Vec::new();
        while sent.len() < count
            && let Some((id, estimate)) = spool.next_to_send()
        {
            sent.push((id, String::from_utf8_lossy(&estimate.json).parse().unwrap()));
        }
        sent
    }

    fn numbers(sent: &[(EstimateId, u64)]) -> Vec<u64> {
        sent.iter().map(|(_, number)| *number).collect()
    }

    #[test]
    fn a_span_of_ten_minutes_keeps_3001_estimates_at_5_hz() {
        let mut spool = Spool::new(Duration::from_secs(600));
        (0..3100).for_each(|tick| spool.push(estimate(tick)));
        assert_eq!((spool.len(), spool.dropped()), (3001, 99));
        assert_eq!(numbers(&send(&mut spool, 1)), [99]);
    }

    #[test]
    fn unacknowledged_estimates_are_sent_again() {
        let mut spool = Spool::new(Duration::from_secs(600));
        (0..4).for_each(|tick| spool.push(estimate(tick)));
        let sent = send(&mut spool, 3);
        assert_eq!(numbers(&sent), [0, 1, 2]);
        spool.delivered(sent[0].0);
        spool.delivered(sent[2].0);
        assert_eq!(spool.len(), 2);
        spool.rewind();
        assert_eq!(numbers(&send(&mut spool, 9)), [1, 3]);
    }

    #[test]
    fn what_is_taken_is_undelivered_and_an_acknowledgement_comes_too_late() {
        let mut spool = Spool::new(Duration::from_secs(600));
        (0..4).for_each(|tick| spool.push(estimate(tick)));
        let sent = send(&mut spool, 3);
        spool.delivered(sent[1].0);
        assert_eq!(spool.take(), [estimate(0), estimate(2), estimate(3)]);
        assert!(spool.is_empty());
        spool.push(estimate(4));
        spool.delivered(sent[0].0);
        assert_eq!(spool.len(), 1);
        assert_eq!(numbers(&send(&mut spool, 9)), [4]);
    }

    /// An event of a connection.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Make,
        Send(usize),
        /// The estimate at this place among those sent is acknowledged.
        Acknowledge(usize),
        Break,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Make),
            3 => (1usize..5).prop_map(Step::Send),
            4 => (0usize..3).prop_map(Step::Acknowledge),
            1 => Just(Step::Break),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// The connection may break at any time. Every estimate that was not dropped is sent until it is acknowledged, and
        /// those sent on one connection are in order.
        #[test]
        fn only_dropped_estimates_are_lost(steps in steps()) {
            // Two seconds: ten estimates and the newest.
            let mut spool = Spool::new(Duration::from_secs(2));
            let (mut made, mut acknowledged) = (0, 0);
            let mut in_flight: Vec<(EstimateId, u64)> = Vec::new();
            let mut last = None;
            let mut seen = Vec::new();
            for step in steps {
                match step {
                    Step::Make => {
                        spool.push(estimate(made));
                        made += 1;
                    }
                    Step::Send(window) => {
                        for (id, number) in send(&mut spool, window) {
                            prop_assert!(last.is_none_or(|last| last < number));
                            last = Some(number);
                            in_flight.push((id, number));
                        }
                    }
                    Step::Acknowledge(at) if at < in_flight.len() => {
                        let (id, number) = in_flight.remove(at);
                        spool.delivered(id);
                        if !seen.contains(&number) {
                            seen.push(number);
                            acknowledged += 1;
                        }
                    }
                    Step::Acknowledge(_) => {}
                    Step::Break => {
                        spool.rewind();
                        in_flight.clear();
                        last = None;
                    }
                }
                prop_assert!(spool.len() <= 11);
            }
            prop_assert!(spool.len() as u64 + spool.dropped() + acknowledged >= made);
            spool.rewind();
            let rest = numbers(&send(&mut spool, usize::MAX));
            prop_assert_eq!(rest.len(), spool.len());
            let missing = (0..made).filter(|tick| !seen.contains(tick) && !rest.contains(tick)).count() as u64;
            prop_assert!(missing <= spool.dropped());
        }
    }
}
