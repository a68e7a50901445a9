//! What a device wants its connection to do.

use super::request::Request;

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Subscribe(Vec<String>),
    Unsubscribe(String),
    /// Ask the device with this command topic whether it runs.
    Ping(String),
    /// Publish a retained message. An empty payload deletes it from the broker.
    Retain {
        topic: String,
        payload: Vec<u8>,
    },
    Execute(Request),
    /// Another board has the name. Connect again under the new topics.
    Move,
}

/// Deletes a retained message.
pub fn deletion(topic: String) -> Action {
    Action::Retain {
        topic,
        payload: Vec::new(),
    }
}
