//! What the clients of both versions share: limits, results, and the brake on packets from the broker.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::output::mqtt::error::LinkError;
use crate::output::mqtt::message::{IncomingMessage, Message, Qos};

/// Requests that wait for the client's task. Callers send no more than [`WINDOW`] messages and a few subscriptions at once.
pub const REQUEST_QUEUE: usize = 2 * WINDOW;

/// Packets that the client decodes at once. With properties, a decoded packet takes fifteen times its size in memory.
pub const READ_BATCH: usize = 4;

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
    pub fn keep_alive_s(&self) -> u16 {
        match self {
            Purpose::Publish { .. } => 10,
            Purpose::Read => 20,
        }
    }

    /// The largest packet that is accepted, in bytes. A broker of MQTT 5 is told, and leaves larger messages out.
    pub fn max_packet_bytes(&self) -> u32 {
        match self {
            Purpose::Publish { .. } => 1 << 16,
            Purpose::Read => 1 << 18,
        }
    }

    pub fn will(&self) -> Option<&Message> {
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

/// Why a message cannot be sent on this connection. The connection is not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Rounded up, because the size of a kind of message varies, and each text is logged once.
    #[error("packets of {} bytes are needed, and the broker accepts {limit}", .bytes.next_power_of_two())]
    TooLarge { bytes: usize, limit: usize },
    #[error("its topic is invalid")]
    InvalidTopic,
    #[error("the connection has ended")]
    Disconnected,
}

/// What the task that reads from the broker passes on.
pub enum FromBroker {
    Connected(Limits),
    Message(IncomingMessage),
    Ended(LinkError),
}

/// The fate of a message or a subscription.
pub enum Outcome {
    Done,
    Refused(String),
    /// The connection ended first.
    Unknown,
}

/// Limits how many packets of a broker are processed, apart from answers to requests, of which there are no more than
/// requests.
pub struct Gate {
    /// A reader's messages are slowed down by the reader instead.
    limits_messages: bool,
    interval_ends: Instant,
    packets: u32,
    bytes: usize,
}

impl Gate {
    const INTERVAL: Duration = Duration::from_millis(100);
    /// 1000 packets per second: much more than any broker needs, and much less than the processor can do.
    const PACKETS: u32 = 100;
    /// 640 kB per second. A message may consist of thousands of properties, each of which costs two allocations.
    const BYTES: usize = 1 << 16;

    pub fn new(purpose: &Purpose) -> Gate {
        Gate {
            limits_messages: matches!(purpose, Purpose::Publish { .. }),
            interval_ends: Instant::now() + Gate::INTERVAL,
            packets: 0,
            bytes: 0,
        }
    }

    /// Waits if there have been too many packets.
    pub async fn pass(&mut self) {
        self.pass_bytes(0).await;
    }

    async fn pass_bytes(&mut self, bytes: usize) {
        let now = Instant::now();
        if now >= self.interval_ends {
            self.interval_ends = now + Gate::INTERVAL;
            self.packets = 0;
            self.bytes = 0;
        }
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.packets > Gate::PACKETS || self.bytes > Gate::BYTES {
            sleep_until(self.interval_ends).await;
        }
    }

    /// The same for a message, whose packet has about so many bytes.
    pub async fn pass_message(&mut self, bytes: usize) {
        if self.limits_messages {
            self.pass_bytes(bytes).await;
        }
    }
}

/// The name of a reason code in words: "session taken over" for `SessionTakenOver`.
pub fn words(code: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
