//! One connection to a broker.
//!
//! The protocol is that of the rumqttc family, which has a crate for each version of MQTT. This module gives both the same
//! interface. It never reconnects: the caller makes a new client for each connection, so that its own backoff and spool decide.
//!
//! A task reads from the broker. It passes messages through a short channel, so a sender that is faster than the caller is
//! slowed down by TCP. Packets that the caller has no use for are limited in number.

mod protocol;
mod v3;
mod v5;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::error::LinkError;
use super::message::{IncomingMessage, Message, Qos};
use super::settings::ConnectionSettings;
use super::version::Version;
use protocol::{FromBroker, Gate, Outcome};

pub use protocol::{Limits, PublishError, Purpose};

/// From the start of the connection to the broker's acceptance.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages from the broker that wait for the caller.
const INCOMING_QUEUE: usize = 16;

/// What a caller of [`Client::next`] learns. `T` identifies a message of the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<T> {
    Message(IncomingMessage),
    /// QoS 1: the broker has acknowledged the message. QoS 0: it has been written to the socket.
    Delivered(T),
    /// The broker has received the message and discarded it, with the reason.
    Denied(T, String),
    Subscribed {
        topic: String,
    },
    NotSubscribed {
        topic: String,
        why: String,
    },
}

enum Requests {
    V3(v3::Requests),
    V5(v5::Requests),
}

enum Completed<T> {
    Publish(T, Outcome),
    Subscribe(String, Outcome),
}

pub struct Client<T> {
    pub version: Version,
    requests: Requests,
    from_broker: mpsc::Receiver<FromBroker>,
    completed: JoinSet<Completed<T>>,
    pub limits: Limits,
    _reader: AbortOnDrop,
}

impl<T: Send + 'static> Client<T> {
    /// Connects and waits until the broker accepts, at most until `deadline`. Must run in a tokio runtime.
    pub async fn open(
        settings: &ConnectionSettings,
        version: Version,
        purpose: &Purpose,
        deadline: Option<Instant>,
    ) -> Result<Client<T>, LinkError> {
        let timeout = Instant::now() + CONNECT_TIMEOUT;
        let deadline = deadline.map_or(timeout, |deadline| deadline.min(timeout));
        let (to_caller, mut from_broker) = mpsc::channel(INCOMING_QUEUE);
        let gate = Gate::new(purpose);
        settings.endpoint().take_reached();
        let (requests, reader) = match version {
            Version::V3 => {
                let (requests, events) = v3::start(settings, purpose);
                let reader = tokio::spawn(v3::read(events, gate, to_caller, settings.client_id.clone()));
                (Requests::V3(requests), reader.abort_handle())
            }
            Version::V5 => {
                let (requests, events) = v5::start(settings, purpose);
                let reader = tokio::spawn(v5::read(events, gate, to_caller, settings.client_id.clone()));
                (Requests::V5(requests), reader.abort_handle())
            }
        };
        let reader = AbortOnDrop(reader);
        match timeout_at(deadline, from_broker.recv()).await {
            Ok(Some(FromBroker::Connected(limits))) => Ok(Client {
                version,
                requests,
                from_broker,
                completed: JoinSet::new(),
                limits,
                _reader: reader,
            }),
            Ok(Some(FromBroker::Ended(error))) => {
                Err(error.before_acceptance(settings.login(), settings.address.version))
            }
            Ok(Some(FromBroker::Message(_))) => Err(LinkError::NotMqtt(version)),
            Ok(None) => Err(LinkError::Closed),
            Err(_) if settings.endpoint().take_reached() => {
                Err(LinkError::NoAnswer.before_acceptance(settings.login(), settings.address.version))
            }
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// Sends a message. [`Client::next`] returns `ticket` when it is delivered. The caller keeps at most
    /// [`Limits::window`] messages undelivered.
    pub fn publish(&mut self, message: Message, ticket: T) -> Result<(), PublishError> {
        if let Some(limit) = self.limits.packet_bytes
            && message.packet_bytes() > limit
        {
            return Err(PublishError::TooLarge {
                bytes: message.packet_bytes(),
                limit,
            });
        }
        if message.topic.is_empty() || message.topic.contains(['+', '#', '\0']) || message.topic.len() > 0xffff {
            return Err(PublishError::InvalidTopic);
        }
        let message = Message {
            retain: message.retain && self.limits.retain,
            qos: match self.limits.qos {
                Qos::AtMostOnce => Qos::AtMostOnce,
                Qos::AtLeastOnce => message.qos,
            },
            ..message
        };
        match &self.requests {
            Requests::V3(requests) => {
                let outcome = requests.publish(message)?;
                self.completed
                    .spawn(async move { Completed::Publish(ticket, outcome.await) });
            }
            Requests::V5(requests) => {
                let outcome = requests.publish(message)?;
                self.completed
                    .spawn(async move { Completed::Publish(ticket, outcome.await) });
            }
        }
        Ok(())
    }

    /// Subscribes to a topic, which may have wildcards.
    pub fn subscribe(&mut self, topic: &str) -> Result<(), PublishError> {
        let name = topic.to_owned();
        match &self.requests {
            Requests::V3(requests) => {
                let outcome = requests.subscribe(topic)?;
                self.completed
                    .spawn(async move { Completed::Subscribe(name, outcome.await) });
            }
            Requests::V5(requests) => {
                let outcome = requests.subscribe(topic)?;
                self.completed
                    .spawn(async move { Completed::Subscribe(name, outcome.await) });
            }
        }
        Ok(())
    }

    /// Ends the subscription to a topic.
    pub fn unsubscribe(&mut self, topic: &str) -> Result<(), PublishError> {
        match &self.requests {
            Requests::V3(requests) => requests.unsubscribe(topic),
            Requests::V5(requests) => requests.unsubscribe(topic),
        }
    }

    /// The next event. The error is the end of the connection. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Event<T>, LinkError> {
        loop {
            tokio::select! {
                biased;
                Some(completed) = self.completed.join_next() => {
                    // The tasks only wait, so they neither panic nor are they cancelled.
                    let Ok(completed) = completed else { continue };
                    match completed {
                        Completed::Publish(ticket, Outcome::Done) => return Ok(Event::Delivered(ticket)),
                        Completed::Publish(ticket, Outcome::Refused(why)) => return Ok(Event::Denied(ticket, why)),
                        Completed::Subscribe(topic, Outcome::Done) => return Ok(Event::Subscribed { topic }),
                        Completed::Subscribe(topic, Outcome::Refused(why)) => {
                            return Ok(Event::NotSubscribed { topic, why });
                        }
                        // The end of the connection comes next.
                        Completed::Publish(_, Outcome::Unknown) | Completed::Subscribe(_, Outcome::Unknown) => {}
                    }
                }
                from_broker = self.from_broker.recv() => match from_broker {
                    Some(FromBroker::Message(message)) => return Ok(Event::Message(message)),
                    Some(FromBroker::Connected(_)) => {}
                    Some(FromBroker::Ended(error)) => return Err(error),
                    None => return Err(LinkError::Closed),
                },
            }
        }
    }

    /// Sends the disconnect packet, after which the broker does not publish the will, and waits until the connection ends.
    pub async fn disconnect(mut self, deadline: Instant) {
        let requested = match &self.requests {
            Requests::V3(requests) => requests.disconnect(),
            Requests::V5(requests) => requests.disconnect(),
        };
        if requested {
            let ended = async { while self.next().await.is_ok() {} };
            // After the deadline, the end of the process ends the connection.
            let _ = timeout_at(deadline, ended).await;
        }
    }
}

/// Ends the task, and with it the connection.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
