//! What is to be published, shared by the output's thread and the publisher.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::address::Retain;
use super::message::Message;
use super::request::Request;
use super::spool::Spool;
use super::topics::Topics;
use crate::health::{HealthReport, MqttHealth};
use crate::output::commands::Command;

/// Answers that wait. A peer that asks faster loses answers.
const MAX_ANSWERS: usize = 16;
/// Commands that wait for the output's thread.
const MAX_REQUESTS: usize = 4;

/// The state that the output's thread and the publisher share.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    /// Notified when the spool has room again, or the connection has broken.
    pub room: Condvar,
    /// Wakes the publisher when the state has changed.
    pub changed: Notify,
}

#[derive(Debug)]
pub struct State {
    /// The stream of estimates, of which none may be lost.
    pub spool: Spool,
    present: Vec<Present>,
    answers: VecDeque<Message>,
    requests: VecDeque<Request>,
    /// They change if another board has the name.
    pub topics: Topics,
    pub health: Option<HealthReport>,
    pub connected: bool,
    /// Connections since the start.
    pub connections: u64,
    /// Messages that the broker discarded.
    pub denied: u64,
    /// The files with the password and the certificates may have changed.
    pub reload: bool,
    /// Set when no more estimates come. What is in the spool is sent until then.
    pub finish_by: Option<Instant>,
}

/// The newest value of a topic. Older values that were not sent yet are worthless.
#[derive(Debug)]
struct Present {
    message: Message,
    /// The value was not sent on this connection.
    due: bool,
    /// An older value was sent and is not acknowledged.
    in_flight: bool,
}

impl Outbox {
    pub fn new(topics: Topics, span: Duration) -> Outbox {
        Outbox {
            state: Mutex::new(State {
                spool: Spool::new(span),
                present: Vec::new(),
                answers: VecDeque::new(),
                requests: VecDeque::new(),
                topics,
                health: None,
                connected: false,
                connections: 0,
                denied: 0,
                reload: false,
                finish_by: None,
            }),
            room: Condvar::new(),
            changed: Notify::new(),
        }
    }

    /// A poisoned lock is used as it is: no holder leaves the state half changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Sets the newest value of a topic. It replaces an older value of the same topic that was not sent yet. A retained value
    /// is published again on each new connection; others are worthless after an outage, and dropped.
    pub fn set_present(&mut self, message: Message) {
        match self
            .present
            .iter_mut()
            .find(|known| known.message.topic == message.topic)
        {
            Some(known) => {
                known.message = message;
                known.due = true;
            }
            None => self.present.push(Present {
                message,
                due: true,
                in_flight: false,
            }),
        }
    }

    /// Queues an answer to a request. It is lost if the connection breaks, or if too many are waiting.
    pub fn answer(&mut self, message: Message) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back(message);
        }
    }

    /// Queues a command for the output's thread. Further commands are ignored while a peer sends them faster than they are
    /// answered, except for a pause, which takes the place of the newest: somebody wants the devices closed.
    pub fn request(&mut self, request: Request) {
        if self.requests.len() >= MAX_REQUESTS {
            if request.command != Ok(Command::Pause) {
                return;
            }
            self.requests.pop_back();
        }
        self.requests.push_back(request);
    }

    pub fn next_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Publishes under other topics from the next connection on.
    pub fn move_to(&mut self, topics: Topics) {
        self.topics = topics;
        self.present.clear();
    }

    pub fn next_answer(&mut self) -> Option<Message> {
        self.answers.pop_front()
    }

    /// A value that was not sent yet. Marks it as sent.
    pub fn next_present(&mut self) -> Option<Message> {
        let present = self
            .present
            .iter_mut()
            .find(|present| present.due && !present.in_flight)?;
        present.due = false;
        present.in_flight = true;
        Some(present.message.clone())
    }

    /// The value of `topic` that was sent is delivered.
    pub fn present_delivered(&mut self, topic: &str) {
        if let Some(present) = self.present.iter_mut().find(|present| present.message.topic == topic) {
            present.in_flight = false;
        }
    }

    pub fn start_connection(&mut self) {
        self.connected = true;
        self.connections += 1;
        for present in &mut self.present {
            present.due = present.message.retain;
            present.in_flight = false;
        }
    }

    /// Returns whether there was a connection.
    pub fn end_connection(&mut self) -> bool {
        self.spool.rewind();
        self.answers.clear();
        std::mem::take(&mut self.connected)
    }

    /// Publishes the newest health report, with the state of this output as of now.
    pub fn renew_health(&mut self, retain: Retain) {
        let Some(report) = &self.health else { return };
        let report = HealthReport {
            mqtt: Some(MqttHealth {
                estimates_waiting: self.spool.len() as u64,
                estimates_dropped: self.spool.dropped(),
                messages_denied: self.denied,
                connections: self.connections,
            }),
            ..report.clone()
        };
        let json = serde_json::to_vec(&report).expect("plain numbers and strings serialize into memory");
        self.set_present(Message {
            retain: retain.is_on(),
            ..Message::new(&self.topics.health, json)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::mqtt::message::IncomingMessage;

    fn outbox() -> Outbox {
        Outbox::new(Topics::under(&"a".parse().unwrap()), Duration::ZERO)
    }

    #[test]
    fn only_the_newest_value_of_a_topic_is_sent() {
        let outbox = outbox();
        let mut state = outbox.state();
        for value in ["1", "2", "3"] {
            state.set_present(Message::new("a/state", value));
        }
        assert_eq!(state.next_present(), Some(Message::new("a/state", "3")));
        assert_eq!(state.next_present(), None);
        // Not before the previous value is delivered: a slow broker gets fewer values.
        for value in ["4", "5"] {
            state.set_present(Message::new("a/state", value));
        }
        assert_eq!(state.next_present(), None);
        state.present_delivered("a/state");
        assert_eq!(state.next_present(), Some(Message::new("a/state", "5")));
    }

    #[test]
    fn retained_values_are_sent_again_on_the_next_connection_and_others_are_dropped() {
        let outbox = outbox();
        let mut state = outbox.state();
        let retained = Message::new("a/health", "1").retained();
        state.start_connection();
        state.set_present(retained.clone());
        state.set_present(Message::new("a/state", "1"));
        assert_eq!(state.next_present(), Some(retained.clone()));
        state.end_connection();
        state.set_present(Message::new("a/state", "2"));
        state.start_connection();
        assert_eq!(state.next_present(), Some(retained));
        assert_eq!(state.next_present(), None);
    }

    #[test]
    fn commands_are_bounded() {
        let outbox = outbox();
        let mut state = outbox.state();
        let message = IncomingMessage {
            topic: "a/command".into(),
            payload: b"ping".into(),
            retained: false,
            response_topic: None,
            correlation_data: None,
        };
        let request = Request::from_message(message, &state.topics, &"ha".parse().unwrap()).unwrap();
        (0..1000).for_each(|_| state.request(request.clone()));
        let pause = Request {
            command: Ok(Command::Pause),
            ..request
        };
        (0..1000).for_each(|_| state.request(pause.clone()));
        let all: Vec<_> = std::iter::from_fn(|| state.next_request()).collect();
        assert_eq!(all.len(), MAX_REQUESTS);
        // A pause is never ignored.
        assert_eq!(all[MAX_REQUESTS - 1].command, Ok(Command::Pause));
    }

    #[test]
    fn answers_are_bounded_and_end_with_the_connection() {
        let outbox = outbox();
        let mut state = outbox.state();
        (0..1000).for_each(|_| state.answer(Message::new("a/response", "ok")));
        assert_eq!(std::iter::from_fn(|| state.next_answer()).count(), MAX_ANSWERS);
        state.answer(Message::new("a/response", "ok"));
        state.end_connection();
        assert_eq!(state.next_answer(), None);
    }
}
