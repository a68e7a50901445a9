//! Estimates on their way: those that wait for a connection, and those that were sent and not yet confirmed.
//!
//! MQTT's QoS 0 says nothing about arrival. But a broker works through what a connection brings in its order, so when it
//! answers a ping, it has taken in all that was sent before the ping. Until then an estimate stays here, and if the
//! connection breaks first it is sent again on the next one.

use std::collections::VecDeque;
use std::time::Duration;

/// One estimate, rendered when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// On the source's clock.
    pub at: Duration,
    pub json: Vec<u8>,
}

/// A queue in order of time, bounded in time.
#[derive(Debug)]
pub struct Spool {
    lines: VecDeque<Line>,
    /// The oldest and the newest line are at most this far apart.
    span: Duration,
    /// So many lines at the front were sent on this connection.
    sent: usize,
    /// For each ping under way, oldest first: so many lines at the front were sent before it.
    pings: VecDeque<usize>,
    dropped: u64,
}

impl Spool {
    pub fn new(span: Duration) -> Spool {
        Spool {
            lines: VecDeque::new(),
            span,
            sent: 0,
            pings: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Would a line of this time push out the oldest?
    pub fn is_full(&self, at: Duration) -> bool {
        self.lines
            .front()
            .is_some_and(|oldest| at.saturating_sub(oldest.at) > self.span)
    }

    /// Adds the newest line; what is now too old is dropped and counted.
    pub fn push(&mut self, line: Line) {
        while self.is_full(line.at) {
            self.lines.pop_front();
            // One that was sent counts too: nobody can say any more that it arrived.
            self.dropped += 1;
            self.sent = self.sent.saturating_sub(1);
            self.pings.iter_mut().for_each(|sent| *sent = sent.saturating_sub(1));
        }
        self.lines.push_back(line);
    }

    /// Takes up to `window` lines under way: gives those to send now, oldest first.
    pub fn send(&mut self, window: usize) -> impl Iterator<Item = &Line> {
        let first = self.sent;
        self.sent = self.lines.len().min(window).max(first);
        self.lines.range(first..self.sent)
    }

    /// A ping was sent after them.
    pub fn pinged(&mut self) {
        self.pings.push_back(self.sent);
    }

    /// The oldest ping was answered: what was sent before it has arrived.
    pub fn confirm(&mut self) {
        let Some(arrived) = self.pings.pop_front() else { return };
        self.lines.drain(..arrived);
        self.sent -= arrived;
        self.pings.iter_mut().for_each(|sent| *sent -= arrived);
    }

    /// The connection broke: all that was not confirmed is sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
        self.pings.clear();
    }

    /// Lines not yet confirmed.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Lines not sent on this connection.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.lines.len() - self.sent
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(tick: u64) -> Line {
        Line {
            at: Duration::from_millis(200 * tick),
            json: tick.to_string().into_bytes(),
        }
    }

    fn number(line: &Line) -> u64 {
        String::from_utf8_lossy(&line.json).parse().unwrap()
    }

    #[test]
    fn ten_minutes_at_five_hertz_are_three_thousand_estimates() {
        let mut spool = Spool::new(Duration::from_secs(600));
        (0..3100).for_each(|tick| spool.push(line(tick)));
        assert_eq!((spool.len(), spool.dropped()), (3001, 99));
        assert_eq!(spool.send(1).map(number).collect::<Vec<_>>(), [99]);
    }

    #[test]
    fn what_was_not_confirmed_is_sent_again() {
        let mut spool = Spool::new(Duration::from_secs(600));
        (0..4).for_each(|tick| spool.push(line(tick)));
        assert_eq!(spool.send(2).map(number).collect::<Vec<_>>(), [0, 1]);
        spool.pinged();
        assert_eq!(spool.send(3).map(number).collect::<Vec<_>>(), [2]);
        spool.pinged();
        spool.confirm();
        spool.rewind();
        assert_eq!(spool.send(9).map(number).collect::<Vec<_>>(), [2, 3]);
    }

    /// A step of a connection's life.
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
        /// A broker takes in a part of what was sent, in order, and answers pings in order; the connection may break any
        /// time. Whatever happens, of the estimates it saw none is missing among those that were not dropped.
        #[test]
        fn nothing_is_lost_but_what_is_counted(steps in steps()) {
            // Two seconds: ten lines and the newest.
            let mut spool = Spool::new(Duration::from_secs(2));
            let mut made = 0;
            let mut seen = Vec::new();
            for step in steps {
                match step {
                    Step::Make => {
                        spool.push(line(made));
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
