//! A command that arrived as a message, and where its answer goes.

use super::address::Topic;
use super::board_index;
use super::message::{IncomingMessage, Message};
use super::topics::Topics;
use crate::output::commands::{self, Answer, Command};

/// The longest response topic of a command, in bytes.
const MAX_RESPONSE_TOPIC_BYTES: usize = 256;
/// The longest correlation data of a command, in bytes.
const MAX_CORRELATION_BYTES: usize = 256;

/// A command, valid or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub command: Result<Command, String>,
    pub reply_to: ReplyTo,
    /// Why the answer does not go where the sender expects it.
    pub refused: Option<Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the response topic must have 1 to {MAX_RESPONSE_TOPIC_BYTES} bytes, without + and #, must not end like a topic of a device, \
         as in …/command or …/status, and must not belong to Home Assistant's discovery, to affectd/boards or to the broker ($…)"
    )]
    ResponseTopic,
    #[error("the correlation data must have at most {MAX_CORRELATION_BYTES} bytes")]
    CorrelationData,
}

/// Where the answer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    topic: String,
    correlation_data: Option<Vec<u8>>,
}

impl Request {
    /// The command in a message to the device with these topics; `None` for a message that gets no answer.
    pub fn from_message(message: IncomingMessage, topics: &Topics, discovery_prefix: &Topic) -> Option<Request> {
        // A retained command is old. It would be executed at every start: a restart for ever.
        if message.retained {
            return None;
        }
        let command = commands::parse(&message.payload)?;
        let default = ReplyTo {
            topic: topics.response.clone(),
            correlation_data: None,
        };
        Some(match reply_to(message, topics, discovery_prefix) {
            Ok(reply_to) => Request {
                command,
                reply_to,
                refused: None,
            },
            Err(why) => Request {
                command: Err(why.to_string()),
                reply_to: default,
                refused: Some(why),
            },
        })
    }
}

impl ReplyTo {
    pub fn message(answer: Answer<ReplyTo>) -> Message {
        Message {
            correlation_data: answer.to.correlation_data,
            ..Message::new(answer.to.topic, answer.body.to_string())
        }
    }
}

fn reply_to(message: IncomingMessage, topics: &Topics, discovery_prefix: &Topic) -> Result<ReplyTo, Refusal> {
    let topic = message.response_topic.unwrap_or_else(|| topics.response.clone());
    if !may_answer_on(&topic, discovery_prefix) {
        return Err(Refusal::ResponseTopic);
    }
    let correlation_data = message.correlation_data;
    if correlation_data
        .as_ref()
        .is_some_and(|data| data.len() > MAX_CORRELATION_BYTES)
    {
        return Err(Refusal::CorrelationData);
    }
    Ok(ReplyTo {
        topic,
        correlation_data,
    })
}

/// Anybody who may send commands chooses the topic, but the device publishes the answer with its own rights. On a topic of this or
/// another device it would be taken for a command, a status or an estimate.
fn may_answer_on(topic: &str, discovery_prefix: &Topic) -> bool {
    let Ok(valid) = topic.parse::<Topic>() else {
        return false;
    };
    topic.len() <= MAX_RESPONSE_TOPIC_BYTES
        && !ends_like_a_device(&valid)
        && !valid.is_under(discovery_prefix)
        && !board_index::contains(topic)
}

/// Whether `topic` ends like one of a device, other than the one for answers.
fn ends_like_a_device(topic: &Topic) -> bool {
    // The last levels are the same under every base topic.
    let Topics {
        estimate,
        health,
        status,
        state,
        command,
        response: _,
        board,
    } = Topics::under(topic);
    [estimate, health, status, state, command, board]
        .iter()
        .filter_map(|own| own.strip_prefix(topic.as_str()))
        .any(|end| topic.as_str().ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> IncomingMessage {
        IncomingMessage {
            topic: "affectd/hall/command".into(),
            payload: payload.into(),
            retained: false,
            response_topic: None,
            correlation_data: None,
        }
    }

    fn request(message: IncomingMessage) -> Option<Request> {
        let topics = Topics::under(&"affectd/hall".parse().unwrap());
        Request::from_message(message, &topics, &"homeassistant".parse().unwrap())
    }

    #[test]
    fn commands_are_answered_on_the_response_topic() {
        let plain = request(message(b"ping\n")).unwrap();
        assert_eq!(plain.command, Ok(Command::Ping));
        assert_eq!(plain.reply_to.topic, "affectd/hall/response");
        let with_topic = request(IncomingMessage {
            response_topic: Some("app/7".into()),
            correlation_data: Some(vec![1, 2]),
            ..message(b"rate 2")
        });
        let with_topic = with_topic.unwrap();
        assert_eq!(with_topic.command, Ok(Command::Rate(2.0)));
        let answer = ReplyTo::message(Answer {
            to: with_topic.reply_to,
            body: serde_json::json!({ "ok": 1 }),
        });
        assert_eq!(
            (answer.topic.as_str(), answer.payload),
            ("app/7", b"{\"ok\":1}".to_vec())
        );
        assert_eq!(answer.correlation_data, Some(vec![1, 2]));
    }

    #[test]
    fn invalid_response_topics_and_large_correlation_data_get_an_error() {
        let long = "x".repeat(257);
        for topic in [
            "",
            "a/#",
            "$SYS/x",
            "affectd/hall/status",
            "affectd/hall/command",
            "affectd/attic/command",
            "zigbee/lamp/command",
            "/command",
            "zigbee//command",
            "affectd/attic/estimate",
            "homeassistant",
            "homeassistant/light/x/config",
            "affectd/boards/affectd0123456789abcdef/hall",
            &long,
        ] {
            let request = request(IncomingMessage {
                response_topic: Some(topic.into()),
                ..message(b"ping")
            });
            let request = request.unwrap();
            assert!(request.command.unwrap_err().contains("response topic"), "{topic}");
            assert_eq!(request.refused, Some(Refusal::ResponseTopic));
            assert_eq!(request.reply_to.topic, "affectd/hall/response");
        }
        let request = request(IncomingMessage {
            correlation_data: Some(vec![0; 257]),
            ..message(b"ping")
        });
        let request = request.unwrap();
        assert!(request.command.unwrap_err().contains("correlation data"));
        assert_eq!(request.reply_to.correlation_data, None);
    }

    #[test]
    fn retained_commands_answers_and_noise_are_ignored() {
        let old = IncomingMessage {
            retained: true,
            ..message(b"restart")
        };
        assert_eq!(request(old), None);
        for payload in [&b"{\"ok\":\"pong\"}"[..], b"", b"\xff", &[b'x'; 65]] {
            assert_eq!(request(message(payload)), None);
        }
    }
}
