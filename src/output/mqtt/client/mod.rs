//! One connection to a broker.
//!
//! The protocol is that of the rumqttc family, which has a crate for each version of MQTT. This module gives both the same
//! interface. It never reconnects: the caller makes a new client for each connection, so that its own backoff and spool decide.
//!
//! A task reads from the broker. It passes messages through a short channel, so a sender that is faster than the caller is
//! slowed down by TCP. Packets that the caller has no use for are limited in number.

mod v3;
mod v5;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::LinkError;
use super::message::{IncomingMessage, Message, Qos};
use super::settings::ConnectionSettings;
use super::version::Version;

/// From the start of the connection to the broker's acceptance.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages from the broker that wait for the caller.
const INCOMING_QUEUE: usize = 16;
/// Requests that wait for the client's task. Callers send no more than [`WINDOW`] messages and a few subscriptions at once.
const REQUEST_QUEUE: usize = 2 * WINDOW;
/// How many messages may be sent and not acknowledged.
pub const WINDOW: usize = 64;

/// What the connection is for.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// Publishes. Few messages come in, and the broker publishes `will` if the connection is lost.
    Publish { will: Option<Message> },
    /// Reads many messages.
    Read,
}

impl Purpose {
    /// The broker ends the connection if it receives nothing for one and a half times this.
    fn keep_alive_s(&self) -> u16 {
        match self {
            Purpose::Publish { .. } => 10,
            Purpose::Read => 20,
        }
    }

    /// The largest packet that is accepted, in bytes. A broker of MQTT 5 is told, and leaves larger messages out.
    fn max_packet_bytes(&self) -> u32 {
        match self {
            Purpose::Publish { .. } => 1 << 16,
            Purpose::Read => 1 << 18,
        }
    }

    fn will(&self) -> Option<&Message> {
        match self {
            Purpose::Publish { will } => will.as_ref(),
            Purpose::Read => None,
        }
    }
}

/// What the broker permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest packet, in bytes.
    pub packet_bytes: Option<usize>,
    /// How many messages may be unacknowledged.
    pub window: usize,
    pub qos: Qos,
    pub retain: bool,
}

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

/// Why a message cannot be sent on this connection. The connection is not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("it has {bytes} bytes and the broker accepts {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("its topic is invalid")]
    InvalidTopic,
    #[error("the connection has ended")]
    Disconnected,
}

/// What the task that reads from the broker passes on.
enum FromBroker {
    Connected(Limits),
    Message(IncomingMessage),
    Ended(LinkError),
}

enum Requests {
    V3(v3::Requests),
    V5(v5::Requests),
}

/// The fate of a message or a subscription.
enum Outcome {
    Done,
    Refused(String),
    /// The connection ended first.
    Unknown,
}

enum Completed<T> {
    Publish(T, Outcome),
    Subscribe(String, Outcome),
}

pub struct Client<T> {
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
                requests,
                from_broker,
                completed: JoinSet::new(),
                limits,
                _reader: reader,
            }),
            Ok(Some(FromBroker::Ended(error))) => Err(error.before_acceptance()),
            Ok(Some(FromBroker::Message(_))) => Err(LinkError::NotMqtt(version)),
            Ok(None) => Err(LinkError::Closed),
            Err(_) if settings.endpoint().take_reached() => Err(LinkError::NoAnswer),
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

/// Limits how many packets of a broker are processed, apart from answers to requests, of which there are no more than
/// requests.
struct Gate {
    /// A reader's messages are slowed down by the reader instead.
    limits_messages: bool,
    interval_ends: Instant,
    packets: u32,
}

impl Gate {
    const INTERVAL: Duration = Duration::from_millis(100);
    /// 1000 packets per second: much more than any broker needs, and much less than the processor can do.
    const PACKETS: u32 = 100;

    fn new(purpose: &Purpose) -> Gate {
        Gate {
            limits_messages: matches!(purpose, Purpose::Publish { .. }),
            interval_ends: Instant::now() + Gate::INTERVAL,
            packets: 0,
        }
    }

    /// Waits if there have been too many packets.
    async fn pass(&mut self) {
        let now = Instant::now();
        if now >= self.interval_ends {
            self.interval_ends = now + Gate::INTERVAL;
            self.packets = 0;
        }
        self.packets += 1;
        if self.packets > Gate::PACKETS {
            sleep_until(self.interval_ends).await;
        }
    }

    async fn pass_message(&mut self) {
        if self.limits_messages {
            self.pass().await;
        }
    }
}

/// The name of a reason code in words: "session taken over" for `SessionTakenOver`.
fn words(code: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
