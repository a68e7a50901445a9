//! The few packets that affectd sends and receives, in both versions of the protocol.

use std::fmt;

use mqtt_proto::{Pid, QoS, QosPid, TopicFilter, TopicName, v3, v5};

use super::credentials::Credentials;
use super::version::Version;

/// The largest packet that is accepted, in bytes. All expected packets are smaller.
const MAX_PACKET_BYTES: usize = 1 << 20;
/// The packet identifier of the only subscription.
const SUBSCRIPTION_ID: u16 = 1;

/// The content of the first packet that a client sends.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest<'a> {
    pub client_id: &'a str,
    pub keep_alive_s: u16,
    pub credentials: Option<&'a Credentials>,
    /// What the broker publishes when the connection is lost.
    pub will: Option<Message<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub retain: bool,
}

/// A packet from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Accepted {
        /// The keep-alive interval that the broker demands instead of the requested one.
        keep_alive_s: Option<u16>,
    },
    Rejected(Rejection),
    Message {
        topic: String,
        payload: Vec<u8>,
    },
    PingResponse,
    Subscribed,
    NotSubscribed(String),
    /// The broker ends the connection, with the reason.
    Disconnect(String),
    /// A packet that needs no reaction.
    Other,
}

/// Why a broker rejects a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// Wrong user, password or rights.
    NotAuthorized,
    UnsupportedVersion,
    Other(String),
}

/// The bytes are not a valid MQTT packet.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidPacket;

impl Version {
    pub fn connect(self, request: &ConnectRequest, out: &mut Vec<u8>) {
        let client_id = request.client_id.into();
        let user = request.credentials.map(|c| c.user.as_str().into());
        let password = request.credentials.and_then(|c| c.password.as_ref());
        let password = password.map(|p| p.as_bytes().to_vec().into());
        match self {
            Version::V3 => {
                let mut connect = v3::Connect::new(client_id, request.keep_alive_s);
                connect.username = user;
                connect.password = password;
                connect.last_will = request.will.map(|will| {
                    let mut w = v3::LastWill::new(QoS::Level1, topic(will.topic), will.payload.to_vec().into());
                    w.retain = will.retain;
                    w
                });
                put3(v3::Packet::Connect(connect), out);
            }
            Version::V5 => {
                let mut connect = v5::Connect::new(client_id, request.keep_alive_s);
                connect.username = user;
                connect.password = password;
                connect.last_will = request.will.map(|will| {
                    let mut w = v5::LastWill::new(QoS::Level1, topic(will.topic), will.payload.to_vec().into());
                    w.retain = will.retain;
                    w
                });
                put5(v5::Packet::Connect(connect), out);
            }
        }
    }

    /// Encodes a publish packet with QoS 0.
    pub fn publish(self, message: &Message, out: &mut Vec<u8>) {
        let payload = message.payload.to_vec().into();
        match self {
            Version::V3 => {
                let mut publish = v3::Publish::new(QosPid::Level0, topic(message.topic), payload);
                publish.retain = message.retain;
                put3(v3::Packet::Publish(publish), out);
            }
            Version::V5 => {
                let mut publish = v5::Publish::new(QosPid::Level0, topic(message.topic), payload);
                publish.retain = message.retain;
                put5(v5::Packet::Publish(publish), out);
            }
        }
    }

    /// Encodes a subscribe packet for one or more topics, with QoS 0.
    pub fn subscribe(self, topics: &[String], out: &mut Vec<u8>) {
        let pid = Pid::try_from(SUBSCRIPTION_ID).expect("not zero");
        let filters = topics
            .iter()
            .map(|t| TopicFilter::try_from(t.as_str()).expect("addresses contain only valid topics"));
        match self {
            Version::V3 => {
                let filters = filters.map(|filter| (filter, QoS::Level0)).collect();
                put3(v3::Packet::Subscribe(v3::Subscribe::new(pid, filters)), out);
            }
            Version::V5 => {
                let options = v5::SubscriptionOptions::new(QoS::Level0);
                let filters = filters.map(|filter| (filter, options)).collect();
                put5(v5::Packet::Subscribe(v5::Subscribe::new(pid, filters)), out);
            }
        }
    }

    pub fn ping(self, out: &mut Vec<u8>) {
        match self {
            Version::V3 => put3(v3::Packet::Pingreq, out),
            Version::V5 => put5(v5::Packet::Pingreq, out),
        }
    }

    /// Encodes a disconnect packet, after which the broker does not publish the last will.
    pub fn disconnect(self, out: &mut Vec<u8>) {
        match self {
            Version::V3 => put3(v3::Packet::Disconnect, out),
            Version::V5 => {
                let disconnect = v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnect);
                put5(v5::Packet::Disconnect(disconnect), out);
            }
        }
    }

    /// Removes the next whole packet from the front of `bytes`; `None` if it is not complete yet.
    pub fn take(self, bytes: &mut Vec<u8>) -> Result<Option<Incoming>, InvalidPacket> {
        let Some(first) = bytes.first() else {
            return Ok(None);
        };
        // The first byte often shows that this is not MQTT. Waiting for the whole packet could take forever.
        match self {
            Version::V3 => v3::Header::new_with(*first, 0, 0)
                .map(|_| ())
                .map_err(|_| InvalidPacket)?,
            Version::V5 => v5::Header::new_with(*first, 0, 0)
                .map(|_| ())
                .map_err(|_| InvalidPacket)?,
        }
        let Some(length) = packet_length(bytes)? else {
            return Ok(None);
        };
        if bytes.len() < length {
            return Ok(None);
        }
        let packet: Vec<u8> = bytes.drain(..length).collect();
        // The packet is whole. A decoder that asks for more bytes has found a wrong length inside.
        let incoming = match self {
            Version::V3 => from_v3(v3::Packet::decode(&packet).ok().flatten().ok_or(InvalidPacket)?),
            Version::V5 => from_v5(v5::Packet::decode(&packet).ok().flatten().ok_or(InvalidPacket)?),
        };
        Ok(Some(incoming))
    }
}

/// The length in bytes of the packet at the front: one byte, then the length of the rest in up to four bytes of seven bits
/// each, least significant first. `None` if these bytes are not complete yet.
fn packet_length(bytes: &[u8]) -> Result<Option<usize>, InvalidPacket> {
    let mut rest = 0;
    for (i, byte) in bytes.iter().skip(1).take(4).enumerate() {
        rest |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let length = 2 + i + rest;
            return if length <= MAX_PACKET_BYTES {
                Ok(Some(length))
            } else {
                Err(InvalidPacket)
            };
        }
    }
    if bytes.len() > 4 { Err(InvalidPacket) } else { Ok(None) }
}

fn from_v3(packet: v3::Packet) -> Incoming {
    use v3::ConnectReturnCode as Code;
    match packet {
        v3::Packet::Connack(ack) => match ack.code {
            Code::Accepted => Incoming::Accepted { keep_alive_s: None },
            Code::BadUserNameOrPassword | Code::NotAuthorized => Incoming::Rejected(Rejection::NotAuthorized),
            Code::UnacceptableProtocolVersion => Incoming::Rejected(Rejection::UnsupportedVersion),
            other => Incoming::Rejected(Rejection::Other(words(&other))),
        },
        v3::Packet::Publish(publish) => message(&publish.topic_name, &publish.payload),
        v3::Packet::Suback(ack) => match ack.topics.iter().find(|t| **t == v3::SubscribeReturnCode::Failure) {
            Some(_) => Incoming::NotSubscribed("not allowed".into()),
            None => Incoming::Subscribed,
        },
        v3::Packet::Pingresp => Incoming::PingResponse,
        v3::Packet::Disconnect => Incoming::Disconnect("no reason given".into()),
        _ => Incoming::Other,
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    use v5::ConnectReasonCode as Code;
    match packet {
        v5::Packet::Connack(ack) => match ack.reason_code {
            Code::Success => Incoming::Accepted {
                keep_alive_s: ack.properties.server_keep_alive,
            },
            Code::BadUserNameOrPassword | Code::NotAuthorized | Code::Banned => {
                Incoming::Rejected(Rejection::NotAuthorized)
            }
            Code::UnsupportedProtocolVersion => Incoming::Rejected(Rejection::UnsupportedVersion),
            other => Incoming::Rejected(Rejection::Other(words(&other))),
        },
        v5::Packet::Publish(publish) => message(&publish.topic_name, &publish.payload),
        v5::Packet::Suback(ack) => match ack.topics.iter().find(|code| **code as u8 >= 0x80) {
            Some(code) => Incoming::NotSubscribed(words(code)),
            None => Incoming::Subscribed,
        },
        v5::Packet::Pingresp => Incoming::PingResponse,
        v5::Packet::Disconnect(disconnect) => Incoming::Disconnect(words(&disconnect.reason_code)),
        _ => Incoming::Other,
    }
}

fn message(topic: &str, payload: &[u8]) -> Incoming {
    Incoming::Message {
        topic: topic.to_string(),
        payload: payload.to_vec(),
    }
}

/// The name of a reason code in words: "session taken over" for `SessionTakenOver`.
fn words(code: &impl fmt::Debug) -> String {
    let mut text = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn topic(name: &str) -> TopicName {
    TopicName::try_from(name).expect("addresses contain only valid topics")
}

fn put3(packet: v3::Packet, out: &mut Vec<u8>) {
    out.extend_from_slice(
        packet
            .encode()
            .expect("the fields are shorter than MQTT's limits")
            .as_ref(),
    );
}

fn put5(packet: v5::Packet, out: &mut Vec<u8>) {
    out.extend_from_slice(
        packet
            .encode()
            .expect("the fields are shorter than MQTT's limits")
            .as_ref(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Version; 2] = [Version::V3, Version::V5];

    fn accepted(version: Version) -> Vec<u8> {
        match version {
            Version::V3 => vec![0x20, 2, 0, 0],
            Version::V5 => vec![0x20, 3, 0, 0, 0],
        }
    }

    #[test]
    fn publish_packets_match_the_standard() {
        let message = Message {
            topic: "a/b",
            payload: b"on",
            retain: true,
        };
        let mut v3 = Vec::new();
        Version::V3.publish(&message, &mut v3);
        assert_eq!(v3, [0x31, 7, 0, 3, b'a', b'/', b'b', b'o', b'n']);
        let mut v5 = Vec::new();
        Version::V5.publish(&message, &mut v5);
        assert_eq!(v5, [0x31, 8, 0, 3, b'a', b'/', b'b', 0, b'o', b'n']);
    }

    #[test]
    fn rejections_tell_the_reason() {
        for (version, packet, rejection) in [
            (Version::V3, vec![0x20, 2, 0, 5], Rejection::NotAuthorized),
            (Version::V3, vec![0x20, 2, 0, 1], Rejection::UnsupportedVersion),
            (Version::V5, vec![0x20, 3, 0, 0x86, 0], Rejection::NotAuthorized),
            (
                Version::V5,
                vec![0x20, 3, 0, 0x89, 0],
                Rejection::Other("server busy".into()),
            ),
        ] {
            let mut bytes = packet;
            assert_eq!(version.take(&mut bytes), Ok(Some(Incoming::Rejected(rejection))));
        }
    }

    #[test]
    fn bytes_that_are_not_mqtt_are_invalid() {
        for version in BOTH {
            for garbage in [
                &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
                b"SSH-2.0-OpenSSH_9.2p1\r\n",
                &[0xff; 16],
            ] {
                let mut bytes = garbage.to_vec();
                let mut taken = version.take(&mut bytes);
                while let Ok(Some(_)) = taken {
                    taken = version.take(&mut bytes);
                }
                assert_eq!(taken, Err(InvalidPacket), "{garbage:?}");
            }
        }
    }

    #[test]
    fn too_large_packets_are_invalid() {
        assert_eq!(
            Version::V3.take(&mut vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
            Err(InvalidPacket)
        );
    }

    proptest! {
        #[test]
        fn a_stream_in_pieces_yields_the_same_packets(cuts in proptest::collection::vec(1usize..7, 1..40)) {
            for version in BOTH {
                let mut stream = accepted(version);
                let message = Message { topic: "homeassistant/status", payload: b"online", retain: true };
                version.publish(&message, &mut stream);
                stream.extend([0xd0, 0]);
                let mut inbox = Vec::new();
                let mut taken = Vec::new();
                let mut rest = &stream[..];
                for cut in cuts.iter().copied().chain(std::iter::repeat(3)) {
                    if rest.is_empty() { break }
                    let (piece, after) = rest.split_at(cut.min(rest.len()));
                    inbox.extend_from_slice(piece);
                    rest = after;
                    while let Some(incoming) = version.take(&mut inbox).unwrap() {
                        taken.push(incoming);
                    }
                }
                let message = Incoming::Message { topic: "homeassistant/status".into(), payload: b"online".to_vec() };
                prop_assert_eq!(taken, [Incoming::Accepted { keep_alive_s: None }, message, Incoming::PingResponse]);
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for version in BOTH {
                let mut bytes = bytes.clone();
                while let Ok(Some(_)) = version.take(&mut bytes) {}
            }
        }
    }
}
