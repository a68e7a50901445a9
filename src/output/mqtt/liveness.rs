//! Whether a device runs. Its retained status does not tell: a broker that crashed restores an old `online` and has lost the will.
//!
//! So the device is asked: `ping` on its command topic. The broker sends the ping back to us, too, which shows that this client may
//! publish and read under the device's topics. If the ping came back and the device was silent, it is gone.

use std::time::Duration;

use super::address::Topic;
use super::message::IncomingMessage;
use super::state;
use super::topics::{BoardId, Topics};

pub const ONLINE: &[u8] = b"online";
pub const OFFLINE: &[u8] = b"offline";
/// The command that a running device answers.
pub const PING: &[u8] = b"ping";
/// A device that runs is heard within this time, even if it cannot read commands: it publishes a state.
pub const ANSWER_TIMEOUT: Duration = state::MAX_INTERVAL.saturating_add(Duration::from_secs(1));

/// What is known of a device.
#[derive(Debug)]
pub struct Liveness {
    topics: Topics,
    /// All topics directly below the base.
    pub filter: String,
    status: Option<Vec<u8>>,
    board: Option<Vec<u8>>,
    ping_came_back: bool,
    was_heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Runs,
    Gone,
    /// The broker passes on nothing, which also happens if this client may not read the device's topics.
    Unknown,
}

impl Liveness {
    /// The device that publishes under `base`.
    pub fn of(base: &Topic) -> Liveness {
        Liveness {
            topics: Topics::under(base),
            filter: format!("{}/+", base.as_str()),
            status: None,
            board: None,
            ping_came_back: false,
            was_heard: false,
        }
    }

    /// The topic for the ping.
    pub fn command_topic(&self) -> &str {
        &self.topics.command
    }

    /// Takes a message into account. Returns whether it is one of the device's topics.
    pub fn add(&mut self, message: &IncomingMessage) -> bool {
        let IncomingMessage { topic, payload, .. } = message;
        let Topics {
            estimate,
            health,
            status,
            state,
            command,
            response,
            board,
        } = &self.topics;
        // An empty message is not from the device: somebody deletes a retained one.
        let is_live = !message.retained && !payload.is_empty();
        if topic == command {
            self.ping_came_back |= is_live && payload == PING;
        } else if topic == status {
            // The broker publishes `offline` for a device that is gone.
            self.was_heard |= is_live && payload == ONLINE;
            self.status = Some(payload.clone()).filter(|status| !status.is_empty());
        } else if topic == board {
            self.was_heard |= is_live;
            self.board = Some(payload.clone()).filter(|board| !board.is_empty());
        } else if [estimate, health, state, response].contains(&topic) {
            self.was_heard |= is_live;
        } else {
            return false;
        }
        true
    }

    /// What is known. It becomes final after [`ANSWER_TIMEOUT`].
    pub fn verdict(&self) -> Verdict {
        match self.status.as_deref() {
            _ if self.was_heard => Verdict::Runs,
            Some(OFFLINE) => Verdict::Gone,
            _ if self.ping_came_back => Verdict::Gone,
            _ => Verdict::Unknown,
        }
    }

    /// Whether no other board publishes under these topics.
    pub fn may_be_of(&self, board: &BoardId) -> bool {
        self.board.as_ref().is_none_or(|id| *id == board.as_str().as_bytes())
    }

    /// Whether the broker keeps a status.
    pub fn has_status(&self) -> bool {
        self.status.is_some()
    }

    /// The retained topics of a device.
    pub fn retained_topics(&self) -> [&str; 3] {
        [&self.topics.status, &self.topics.health, &self.topics.board]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(messages: &[(&str, &str, bool)]) -> Verdict {
        let mut liveness = Liveness::of(&"affectd/hall".parse().unwrap());
        for (name, payload, retained) in messages {
            let known = liveness.add(&IncomingMessage {
                topic: format!("affectd/hall/{name}"),
                payload: payload.as_bytes().into(),
                retained: *retained,
                response_topic: None,
                correlation_data: None,
            });
            assert!(known);
        }
        liveness.verdict()
    }

    const STALE: (&str, &str, bool) = ("status", "online", true);
    const PINGED: (&str, &str, bool) = ("command", "ping", false);

    #[test]
    fn a_device_is_gone_if_it_is_offline_or_does_not_answer() {
        assert_eq!(verdict(&[("status", "offline", true)]), Verdict::Gone);
        assert_eq!(verdict(&[STALE, PINGED]), Verdict::Gone);
        assert_eq!(verdict(&[PINGED]), Verdict::Gone);
        assert_eq!(verdict(&[STALE, PINGED, ("health", "{}", true)]), Verdict::Gone);
        // The will.
        assert_eq!(verdict(&[STALE, PINGED, ("status", "offline", false)]), Verdict::Gone);
        // Another client deletes what the device has left.
        assert_eq!(verdict(&[STALE, PINGED, ("health", "", false)]), Verdict::Gone);
    }

    #[test]
    fn a_device_that_is_heard_runs() {
        for name in ["estimate", "health", "state", "response", "board"] {
            assert_eq!(
                verdict(&[("status", "offline", true), (name, "x", false)]),
                Verdict::Runs
            );
        }
        assert_eq!(verdict(&[("status", "online", false)]), Verdict::Runs);
    }

    #[test]
    fn without_the_own_ping_nothing_is_known() {
        assert_eq!(verdict(&[STALE]), Verdict::Unknown);
        assert_eq!(verdict(&[]), Verdict::Unknown);
        assert_eq!(verdict(&[STALE, ("command", "ping", true)]), Verdict::Unknown);
    }

    #[test]
    fn topics_of_another_board_are_told_apart() {
        let mut liveness = Liveness::of(&"a".parse().unwrap());
        assert!(liveness.may_be_of(&BoardId::sample()));
        let mut claim = |id: &str| {
            liveness.add(&IncomingMessage {
                topic: "a/board".into(),
                payload: id.into(),
                retained: true,
                response_topic: None,
                correlation_data: None,
            });
            liveness.may_be_of(&BoardId::sample())
        };
        assert!(claim(BoardId::sample().as_str()));
        assert!(!claim("affectd0000000000000000"));
    }
}
