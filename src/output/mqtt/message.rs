//! The messages that a client sends and receives, in both versions of the protocol.

use std::fmt;
use std::str::FromStr;

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    /// Whether the broker keeps the message for later subscribers.
    pub retain: bool,
    pub qos: Qos,
    /// The correlation data of the request that this message answers. MQTT 3.1.1 cannot carry it.
    pub correlation_data: Option<Vec<u8>>,
}

/// How a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Qos {
    /// QoS 0: the message counts as delivered as soon as it is written to the socket.
    AtMostOnce,
    /// QoS 1: the broker acknowledges the message. It may arrive twice after a reconnect.
    #[default]
    AtLeastOnce,
}

/// A message from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingMessage {
    pub topic: String,
    pub payload: Vec<u8>,
    /// The broker had kept the message. It was not published just now.
    pub retained: bool,
    /// Where the sender expects the answer. Only MQTT 5 has it.
    pub response_topic: Option<String>,
    /// What the answer must repeat. Only MQTT 5 has it.
    pub correlation_data: Option<Vec<u8>>,
}

impl Message {
    /// A message with QoS 1.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.into(),
            retain: false,
            qos: Qos::AtLeastOnce,
            correlation_data: None,
        }
    }

    pub fn retained(self) -> Message {
        Message { retain: true, ..self }
    }

    /// An upper bound of the size of the publish packet, in bytes.
    pub fn packet_bytes(&self) -> usize {
        // The fixed header and the lengths of topic and properties need 12 bytes, the packet identifier 2.
        14 + self.topic.len() + self.payload.len() + self.correlation_data.as_ref().map_or(0, |data| 3 + data.len())
    }
}

impl FromStr for Qos {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "0" => Ok(Qos::AtMostOnce),
            "1" => Ok(Qos::AtLeastOnce),
            _ => Err("must be 0 or 1"),
        }
    }
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Qos::AtMostOnce => "0",
            Qos::AtLeastOnce => "1",
        })
    }
}
