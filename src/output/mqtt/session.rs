//! What a publisher does on one connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use tokio::time::{Instant, sleep_until};

use super::action::Action;
use super::client::{Client, Event, PublishError};
use super::error::LinkError;
use super::liveness::{OFFLINE, ONLINE, PING};
use super::message::Message;
use super::outbox::State;
use super::publisher::Publisher;
use super::spool::EstimateId;

/// After how long an unacknowledged message counts as a broken connection, even if TCP reports none.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(10);
/// After so many connections in a row that ended with the announcement, it is left out.
const MAX_FAILED_ANNOUNCEMENTS: u32 = 3;
/// The time for a clean end of the connection before the next one.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Session<'a> {
    publisher: &'a mut Publisher,
    client: Client<Ticket>,
    /// Messages about this device, which are sent before all others.
    first: VecDeque<(Content, Message)>,
    /// The messages that are sent and not delivered, oldest first.
    in_flight: VecDeque<(u64, Instant)>,
    sent: u64,
    moved: bool,
    /// `offline` is published. The broker sends it back, and the device must not correct it.
    said_goodbye: bool,
}

/// Identifies a message that was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Status,
    Announcement,
    Claim,
    Ping,
    Answer,
    /// The newest value of this topic.
    Present(String),
    Estimate(EstimateId),
}

impl Content {
    fn kind(&self) -> &'static str {
        match self {
            Content::Status => "the status",
            Content::Announcement => "the announcement to Home Assistant",
            Content::Claim => "the claim of the device's name",
            Content::Ping => "the question whether a former device runs",
            Content::Answer => "an answer to a command",
            Content::Present(topic) if topic.ends_with("/health") => "the health report",
            Content::Present(_) => "the present state",
            Content::Estimate(_) => "estimates",
        }
    }
}

/// Why a session ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything is published, and it is time to finish.
    Finished,
    /// Another board has the name. The next session uses other topics.
    Moved,
}

impl<'a> Session<'a> {
    pub fn new(publisher: &'a mut Publisher, client: Client<Ticket>) -> Session<'a> {
        Session {
            publisher,
            client,
            first: VecDeque::new(),
            in_flight: VecDeque::new(),
            sent: 0,
            moved: false,
            said_goodbye: false,
        }
    }

    pub async fn run(mut self) -> Result<Ending, LinkError> {
        let outbox = Arc::clone(&self.publisher.outbox);
        self.first.push_back((Content::Status, self.publisher.status(ONLINE)));
        outbox.state().renew_health(self.publisher.settings.address.retain);
        let actions = self.publisher.device.connected(std::time::Instant::now());
        self.perform(actions);
        loop {
            if self.publisher.reload_if_told() {
                // The broker would publish the will if it were not told.
                self.client.disconnect(Instant::now() + GOODBYE_TIMEOUT).await;
                return Err(LinkError::FilesChanged);
            }
            let finish_by = self.send_due();
            if let Some(finish_by) = finish_by {
                if Instant::now() > finish_by {
                    return Err(LinkError::Timeout);
                }
                let done = self.in_flight.is_empty() && self.first.is_empty();
                match self.said_goodbye {
                    true if done => {
                        self.client.disconnect(finish_by).await;
                        return Ok(Ending::Finished);
                    }
                    false if done && outbox.state().spool.is_empty() => {
                        self.first.push_back((Content::Status, self.publisher.status(OFFLINE)));
                        self.said_goodbye = true;
                        continue;
                    }
                    _ => {}
                }
            }
            if self.moved && self.first.is_empty() && self.in_flight.is_empty() {
                self.client.disconnect(Instant::now() + GOODBYE_TIMEOUT).await;
                return Ok(Ending::Moved);
            }
            let due = self.next_due(finish_by);
            tokio::select! {
                event = self.client.next() => self.handle(event?),
                () = outbox.changed.notified() => {}
                () = sleep_until(due) => self.publisher.log.flush(),
            }
            if self
                .oldest_in_flight()
                .is_some_and(|sent| sent.elapsed() > ACKNOWLEDGE_TIMEOUT)
            {
                return Err(LinkError::Timeout);
            }
        }
    }

    fn oldest_in_flight(&self) -> Option<Instant> {
        self.in_flight.front().map(|(_, sent)| *sent)
    }

    /// The time of the device's next message, of the next timeout, or to finish.
    fn next_due(&self, finish_by: Option<Instant>) -> Instant {
        let now = Instant::now();
        [
            self.publisher.device.due(now.into_std()).map(Into::into),
            self.oldest_in_flight().map(|sent| sent + ACKNOWLEDGE_TIMEOUT),
            finish_by,
        ]
        .into_iter()
        .flatten()
        .fold(now + ACKNOWLEDGE_TIMEOUT, Instant::min)
            // Rounded up: a wait that ends too early must not become a busy loop.
            + Duration::from_millis(1)
    }

    /// Sends as many messages as may be unacknowledged. Returns the time to finish by.
    fn send_due(&mut self) -> Option<Instant> {
        let actions = self.publisher.device.poll(std::time::Instant::now());
        self.perform(actions);
        let outbox = Arc::clone(&self.publisher.outbox);
        let mut state = outbox.state();
        while self.in_flight.len() < self.client.limits.window
            && let Some((content, message)) = self.next_message(&mut state)
        {
            self.send(content, message, &mut state);
        }
        state.finish_by.map(Into::into)
    }

    fn next_message(&mut self, state: &mut State) -> Option<(Content, Message)> {
        if let Some(first) = self.first.pop_front() {
            return Some(first);
        }
        // What follows belongs under the new topics.
        if self.moved {
            return None;
        }
        if let Some(answer) = state.next_answer() {
            return Some((Content::Answer, answer));
        }
        if let Some(present) = state.next_present() {
            return Some((Content::Present(present.topic.clone()), present));
        }
        let (id, estimate) = state.spool.next_to_send()?;
        let message = Message {
            qos: self.publisher.settings.address.qos,
            ..Message::new(&state.topics.estimate, estimate.json.clone())
        };
        Some((Content::Estimate(id), message))
    }

    fn send(&mut self, content: Content, message: Message, state: &mut State) {
        let message = Message {
            // An empty message deletes a retained one.
            retain: message.retain && (self.publisher.settings.address.retain.is_on() || message.payload.is_empty()),
            ..message
        };
        self.sent += 1;
        let ticket = Ticket {
            number: self.sent,
            content: content.clone(),
        };
        match self.client.publish(message, ticket) {
            Ok(()) => {
                self.in_flight.push_back((self.sent, Instant::now()));
                self.publisher.announcing |= content == Content::Announcement;
            }
            // The end of the connection is the next event. The estimate is sent on the next connection.
            Err(PublishError::Disconnected) => {}
            Err(error @ (PublishError::TooLarge { .. } | PublishError::InvalidTopic)) => {
                state.denied += 1;
                settle(&content, state);
                self.publisher.complain(
                    content.kind(),
                    &error.to_string(),
                    "raise the limit on the broker, or do without",
                );
            }
        }
    }

    fn handle(&mut self, event: Event<Ticket>) {
        match event {
            Event::Delivered(ticket) => self.delivered(&ticket),
            Event::Denied(ticket, why) => {
                self.publisher.outbox.state().denied += 1;
                self.delivered(&ticket);
                let mend =
                    "the broker discards these messages: allow the topic in its access list, or raise its limits";
                self.publisher.complain(ticket.content.kind(), &why, mend);
            }
            Event::Message(message) => {
                let actions = self.publisher.device.handle(message);
                self.perform(actions);
            }
            Event::Subscribed { topic } => {
                let actions = self.publisher.device.subscribed(&topic);
                self.perform(actions);
            }
            Event::NotSubscribed { topic, why } => self.complain_about_subscription(&topic, &why),
        }
    }

    fn delivered(&mut self, ticket: &Ticket) {
        self.in_flight.retain(|(number, _)| *number != ticket.number);
        if ticket.content == Content::Announcement {
            self.publisher.announcing = false;
            self.publisher.failed_announcements = 0;
        }
        settle(&ticket.content, &mut self.publisher.outbox.state());
        self.publisher.outbox.room.notify_all();
    }

    fn perform(&mut self, actions: Vec<Action>) {
        if self.said_goodbye {
            return;
        }
        for action in actions {
            match action {
                Action::Subscribe(topics) => {
                    for topic in topics {
                        // It fails only if the connection has ended, which the next event tells.
                        let _ = self.client.subscribe(&topic);
                    }
                }
                Action::Unsubscribe(topic) => {
                    let _ = self.client.unsubscribe(&topic);
                }
                Action::Ping(topic) => self.first.push_back((Content::Ping, Message::new(topic, PING))),
                Action::Retain { topic, payload } => {
                    let content = match topic.ends_with("/config") {
                        true => Content::Announcement,
                        false => Content::Claim,
                    };
                    // An empty message deletes an announcement.
                    let is_large = content == Content::Announcement && !payload.is_empty();
                    if is_large && self.publisher.failed_announcements >= MAX_FAILED_ANNOUNCEMENTS {
                        self.publisher.outbox.state().denied += 1;
                        let why = format!("the connection ends whenever its {} bytes are sent", payload.len());
                        let mend = "raise the broker's limit on the size of messages, or write discovery=off";
                        self.publisher.complain(content.kind(), &why, mend);
                        continue;
                    }
                    self.first.push_back((content, Message::new(topic, payload).retained()));
                }
                Action::Execute(request) => {
                    if let Some(refusal) = request.refused {
                        let mend = "correct the program that sends the command";
                        self.publisher
                            .complain("an answer to a command", &refusal.to_string(), mend);
                    }
                    self.publisher.outbox.state().request(request);
                }
                Action::Move => self.moved = true,
            }
        }
    }

    fn complain_about_subscription(&mut self, topic: &str, why: &str) {
        let name = self.publisher.device.name_of(topic);
        if self.publisher.complaints.insert((name, why.to_owned())) {
            warn!(
                "{}: the broker does not allow subscribing to {name}, {topic} ({why}): allow it in the broker's access list",
                self.publisher.settings.address
            );
        }
    }
}

/// The message was delivered or will never be.
fn settle(content: &Content, state: &mut State) {
    match content {
        Content::Estimate(id) => state.spool.delivered(*id),
        Content::Present(topic) => state.present_delivered(topic),
        Content::Status | Content::Announcement | Content::Claim | Content::Ping | Content::Answer => {}
    }
}
