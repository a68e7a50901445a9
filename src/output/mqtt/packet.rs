//! The few packets a publisher sends and gets, in both versions of the protocol.

use std::fmt;

use mqtt_proto::{Pid, QoS, QosPid, TopicFilter, TopicName, v3, v5};

use super::credentials::Credentials;

/// Larger packets than any that we ask for.
const LARGEST: usize = 1 << 20;
/// The only packet identifier in use: that of the one subscription.
const SUBSCRIPTION: u16 = 1;

/// The version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// 3.1.1, which every broker speaks.
    #[default]
    V3,
    V5,
}

/// How a client introduces itself.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    pub client_id: &'a str,
    pub keep_alive_s: u16,
    pub credentials: Option<&'a Credentials>,
    /// What the broker publishes, retained, when it loses us.
    pub will: Option<Message<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub retain: bool,
}

/// What a broker says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Accepted {
        /// The broker wants this instead of what we asked for.
        keep_alive_s: Option<u16>,
    },
    Refused(Refusal),
    Message {
        topic: String,
        payload: Vec<u8>,
    },
    PingResponse,
    Subscribed,
    NotSubscribed(String),
    Goodbye(String),
    /// Something that is allowed and needs no answer.
    Other,
}

/// Why a broker does not let us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// User, password or rights.
    NotAllowed,
    /// The version of the protocol.
    Version,
    Other(String),
}

/// Not MQTT, or broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage;

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V3 => "3.1.1",
            Version::V5 => "5",
        })
    }
}

impl Version {
    pub fn connect(self, hello: &Hello, out: &mut Vec<u8>) {
        let client_id = hello.client_id.into();
        let user = hello.credentials.map(|c| c.user.as_str().into());
        let password = hello.credentials.and_then(|c| c.password.as_ref());
        let password = password.map(|p| p.as_bytes().to_vec().into());
        match self {
            Version::V3 => {
                let mut connect = v3::Connect::new(client_id, hello.keep_alive_s);
                connect.username = user;
                connect.password = password;
                connect.last_will = hello.will.map(|will| {
                    let mut w = v3::LastWill::new(QoS::Level1, topic(will.topic), will.payload.to_vec().into());
                    w.retain = will.retain;
                    w
                });
                put3(v3::Packet::Connect(connect), out);
            }
            Version::V5 => {
                let mut connect = v5::Connect::new(client_id, hello.keep_alive_s);
                connect.username = user;
                connect.password = password;
                connect.last_will = hello.will.map(|will| {
                    let mut w = v5::LastWill::new(QoS::Level1, topic(will.topic), will.payload.to_vec().into());
                    w.retain = will.retain;
                    w
                });
                put5(v5::Packet::Connect(connect), out);
            }
        }
    }

    /// At QoS 0.
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

    /// To one or more topics, at QoS 0.
    pub fn subscribe(self, topics: &[String], out: &mut Vec<u8>) {
        let pid = Pid::try_from(SUBSCRIPTION).expect("not zero");
        let filters = topics
            .iter()
            .map(|t| TopicFilter::try_from(t.as_str()).expect("topics are checked where they are read"));
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

    /// A goodbye, upon which the broker forgets the will.
    pub fn disconnect(self, out: &mut Vec<u8>) {
        match self {
            Version::V3 => put3(v3::Packet::Disconnect, out),
            Version::V5 => {
                let goodbye = v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnect);
                put5(v5::Packet::Disconnect(goodbye), out);
            }
        }
    }

    /// Takes the next whole packet off the front of `bytes`; `None` until there is one.
    pub fn take(self, bytes: &mut Vec<u8>) -> Result<Option<Incoming>, Garbage> {
        let Some(first) = bytes.first() else {
            return Ok(None);
        };
        // What is no MQTT shows itself by its first byte, and must not be waited for to its end.
        match self {
            Version::V3 => v3::Header::new_with(*first, 0, 0).map(|_| ()).map_err(|_| Garbage)?,
            Version::V5 => v5::Header::new_with(*first, 0, 0).map(|_| ()).map_err(|_| Garbage)?,
        }
        let Some(length) = packet_length(bytes)? else {
            return Ok(None);
        };
        if bytes.len() < length {
            return Ok(None);
        }
        let packet: Vec<u8> = bytes.drain(..length).collect();
        // The packet is whole: a decoder that wants more of it has found a wrong length inside.
        let incoming = match self {
            Version::V3 => of3(v3::Packet::decode(&packet).ok().flatten().ok_or(Garbage)?),
            Version::V5 => of5(v5::Packet::decode(&packet).ok().flatten().ok_or(Garbage)?),
        };
        Ok(Some(incoming))
    }
}

/// The length of the packet at the front: a byte, then the rest's length in up to four bytes of seven bits, least first.
fn packet_length(bytes: &[u8]) -> Result<Option<usize>, Garbage> {
    let mut rest = 0;
    for (i, byte) in bytes.iter().skip(1).take(4).enumerate() {
        rest |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let length = 2 + i + rest;
            return if length <= LARGEST {
                Ok(Some(length))
            } else {
                Err(Garbage)
            };
        }
    }
    if bytes.len() > 4 { Err(Garbage) } else { Ok(None) }
}

fn of3(packet: v3::Packet) -> Incoming {
    use v3::ConnectReturnCode as Code;
    match packet {
        v3::Packet::Connack(ack) => match ack.code {
            Code::Accepted => Incoming::Accepted { keep_alive_s: None },
            Code::BadUserNameOrPassword | Code::NotAuthorized => Incoming::Refused(Refusal::NotAllowed),
            Code::UnacceptableProtocolVersion => Incoming::Refused(Refusal::Version),
            other => Incoming::Refused(Refusal::Other(words(&other))),
        },
        v3::Packet::Publish(publish) => message(&publish.topic_name, &publish.payload),
        v3::Packet::Suback(ack) => match ack.topics.iter().find(|t| **t == v3::SubscribeReturnCode::Failure) {
            Some(_) => Incoming::NotSubscribed("not allowed".into()),
            None => Incoming::Subscribed,
        },
        v3::Packet::Pingresp => Incoming::PingResponse,
        v3::Packet::Disconnect => Incoming::Goodbye("no reason given".into()),
        _ => Incoming::Other,
    }
}

fn of5(packet: v5::Packet) -> Incoming {
    use v5::ConnectReasonCode as Code;
    match packet {
        v5::Packet::Connack(ack) => match ack.reason_code {
            Code::Success => Incoming::Accepted {
                keep_alive_s: ack.properties.server_keep_alive,
            },
            Code::BadUserNameOrPassword | Code::NotAuthorized | Code::Banned => Incoming::Refused(Refusal::NotAllowed),
            Code::UnsupportedProtocolVersion => Incoming::Refused(Refusal::Version),
            other => Incoming::Refused(Refusal::Other(words(&other))),
        },
        v5::Packet::Publish(publish) => message(&publish.topic_name, &publish.payload),
        v5::Packet::Suback(ack) => match ack.topics.iter().find(|code| **code as u8 >= 0x80) {
            Some(code) => Incoming::NotSubscribed(words(code)),
            None => Incoming::Subscribed,
        },
        v5::Packet::Pingresp => Incoming::PingResponse,
        v5::Packet::Disconnect(goodbye) => Incoming::Goodbye(words(&goodbye.reason_code)),
        _ => Incoming::Other,
    }
}

fn message(topic: &str, payload: &[u8]) -> Incoming {
    Incoming::Message {
        topic: topic.to_string(),
        payload: payload.to_vec(),
    }
}

/// `SessionTakenOver` as "session taken over".
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
    TopicName::try_from(name).expect("topics are checked where they are read")
}

fn put3(packet: v3::Packet, out: &mut Vec<u8>) {
    out.extend_from_slice(packet.encode().expect("within MQTT's lengths").as_ref());
}

fn put5(packet: v5::Packet, out: &mut Vec<u8>) {
    out.extend_from_slice(packet.encode().expect("within MQTT's lengths").as_ref());
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
    fn a_publish_is_encoded_as_the_standard_says() {
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
    fn refusals_say_what_to_look_at() {
        for (version, packet, refusal) in [
            (Version::V3, vec![0x20, 2, 0, 5], Refusal::NotAllowed),
            (Version::V3, vec![0x20, 2, 0, 1], Refusal::Version),
            (Version::V5, vec![0x20, 3, 0, 0x86, 0], Refusal::NotAllowed),
            (
                Version::V5,
                vec![0x20, 3, 0, 0x89, 0],
                Refusal::Other("server busy".into()),
            ),
        ] {
            let mut bytes = packet;
            assert_eq!(version.take(&mut bytes), Ok(Some(Incoming::Refused(refusal))));
        }
    }

    #[test]
    fn what_is_no_mqtt_is_garbage() {
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
                assert_eq!(taken, Err(Garbage), "{garbage:?}");
            }
        }
    }

    #[test]
    fn a_packet_that_is_larger_than_any_we_ask_for_is_garbage() {
        assert_eq!(Version::V3.take(&mut vec![0x30, 0xff, 0xff, 0xff, 0x7f]), Err(Garbage));
    }

    proptest! {
        #[test]
        fn a_stream_in_pieces_gives_the_packets_of_the_whole(cuts in proptest::collection::vec(1usize..7, 1..40)) {
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
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for version in BOTH {
                let mut bytes = bytes.clone();
                while let Ok(Some(_)) = version.take(&mut bytes) {}
            }
        }
    }
}
