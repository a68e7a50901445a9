//! Messages and packets of a broker. Others may publish there, too, so a device must not be led to publish or delete what is not its own.

use std::collections::HashSet;

use affectd::output::mqtt::fuzzing::{self, Hall, Incoming, Reaction, index_entry, is_topic};

/// The most former devices that are looked up.
const MAX_FORMER: usize = 16;

pub fn check(data: &[u8]) {
    check_entry(data);
    let (mut hall, first) = Hall::connected();
    let announced: Vec<String> = first.into_iter().filter_map(retained).collect();
    let own = hall.topics();
    let mut lookups = HashSet::new();
    let mut input = Input(data);
    while let Some(message) = input.message(&own) {
        let is_own_topic = own.contains(&message.topic);
        let from = message.clone();
        for reaction in hall.handle(message) {
            match reaction {
                Reaction::Subscribe(topic) => {
                    let base = topic.strip_suffix("/+");
                    assert!(base.is_some_and(is_topic), "{from:?} subscribes to {topic}");
                    lookups.insert(topic);
                }
                Reaction::Ping(topic) => assert!(is_topic(&topic) && !own.contains(&topic), "{from:?} asks {topic}"),
                Reaction::Retain { topic, payload } => {
                    assert!(is_topic(&topic), "{from:?} publishes to {topic:?}");
                    assert!(payload.is_empty(), "{from:?} publishes to {topic}");
                    // The status of a former device has said that it is off, or another board takes the name over.
                    let is_lookup = |filter: &String| from.topic.starts_with(filter.trim_end_matches('+'));
                    let told = lookups.iter().any(is_lookup) || from.retained || from.topic == own[6];
                    assert!(told, "{from:?} deletes {topic}");
                    assert!(!own[..6].contains(&topic), "{from:?} deletes {topic}");
                }
                Reaction::Answer {
                    topic,
                    payload,
                    correlation_data,
                } => {
                    assert!(from.topic == own[4] && !from.retained, "{from:?} is answered");
                    assert!(is_topic(&topic), "the answer to {from:?} goes to {topic:?}");
                    let others = own[..5].iter().chain([&own[6]]).chain(&announced);
                    assert!(
                        others.into_iter().all(|other| *other != topic),
                        "{from:?} is answered on {topic}"
                    );
                    let text = String::from_utf8(payload).expect("an answer is JSON");
                    assert!(text.len() <= 512 && !text.contains(char::is_control), "{text:?}");
                    assert!(correlation_data.is_none_or(|data| data.len() <= 256));
                }
                Reaction::Move => assert_eq!(from.topic, own[6], "{from:?} moves the device"),
            }
        }
        assert!(is_own_topic || lookups.len() <= MAX_FORMER, "{} lookups", lookups.len());
        for reaction in hall.wait() {
            if let Some(topic) = retained(reaction) {
                assert!(is_topic(&topic));
            }
        }
        // It publishes under other topics from here on, of which the checks above know nothing.
        if hall.topics() != own {
            return;
        }
    }
}

fn retained(reaction: Reaction) -> Option<String> {
    match reaction {
        Reaction::Retain { topic, .. } => Some(topic),
        _ => None,
    }
}

fn check_entry(data: &[u8]) {
    let Some(entry) = index_entry(data) else { return };
    assert_eq!(index_entry(&entry.json).as_ref(), Some(&entry));
    assert_eq!(format!("{}/status", entry.base), entry.status);
    assert!(is_topic(&entry.status) && entry.discovery.is_none_or(|topic| is_topic(&topic)));
}

/// Messages, one after the other: a byte for topic and flags, then texts of a byte for the length each.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn message(&mut self, own: &[String]) -> Option<Incoming> {
        let flags = self.byte()?;
        let topic = match own.get(usize::from(flags & 0xF)) {
            Some(topic) => topic.clone(),
            None => self.text()?,
        };
        Some(Incoming {
            topic,
            payload: self.bytes()?,
            retained: flags & 0x10 != 0,
            response_topic: if flags & 0x20 != 0 { Some(self.text()?) } else { None },
            correlation_data: if flags & 0x40 != 0 {
                Some(self.bytes()?.repeat(2))
            } else {
                None
            },
        })
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(self.byte()?).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The first byte chooses the version of MQTT. The rest is all that the broker sends.
pub fn check_packets(data: &[u8]) {
    let Some((choice, packets)) = data.split_first() else {
        return;
    };
    let received = match choice & 1 {
        0 => fuzzing::connection_v3(packets),
        _ => fuzzing::connection_v5(packets),
    };
    let bytes: usize = received
        .messages
        .iter()
        .map(|(topic, payload)| topic.len() + payload.len())
        .sum();
    // A topic that is not UTF-8 takes three bytes for each of its own.
    assert!(bytes <= 3 * packets.len(), "{bytes} bytes from {}", packets.len());
    assert!(
        !received.end.is_empty() && !received.end.contains('\n'),
        "{:?}",
        received.end
    );
}
