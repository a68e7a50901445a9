//! The reader's side: receives the messages of some topics and reconnects whenever the connection breaks. It also tells which
//! devices use the broker, if it may know.

use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::address::Address;
use super::backoff::Backoff;
use super::board_index::{self, ListedDevice};
use super::client::{Client, Event as ClientEvent, Purpose};
use super::error::LinkError;
use super::runtime::runtime;
use super::settings::ConnectionSettings;
use super::topics::ClientRole;
use super::version::Version;
use crate::output::contract::{HostIdentity, OutputError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Connected,
    Message {
        topic: String,
        payload: Vec<u8>,
    },
    /// A device uses this broker, with this base topic.
    Device(String),
    /// The connection could not be made or has broken, with the reason.
    Disconnected(String),
}

/// What a message under a topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexMessage {
    /// A device uses this broker, with this base topic.
    Device(String),
    /// It belongs to the index of devices, and has no entry.
    NoEntry,
    /// It does not belong to the index.
    Other,
}

impl IndexMessage {
    pub fn of(topic: &str, payload: &[u8]) -> IndexMessage {
        if !board_index::contains(topic) {
            return IndexMessage::Other;
        }
        match ListedDevice::from_message(topic, payload) {
            Some(listed) => IndexMessage::Device(listed.entry.base().to_owned()),
            None => IndexMessage::NoEntry,
        }
    }
}

/// Whether a listener wants more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    Continue,
    Stop,
}

pub struct Subscriber {
    settings: ConnectionSettings,
    topics: Vec<String>,
    runtime: Runtime,
}

impl Subscriber {
    /// Reads the files that `address` names. `topics` may contain wildcards.
    pub fn new(address: &Address, topics: &[String], host: &HostIdentity) -> Result<Subscriber, OutputError> {
        let role = ClientRole::Reader {
            process_id: std::process::id(),
        };
        Ok(Subscriber {
            settings: ConnectionSettings::load(address, host, role)?,
            topics: topics.to_vec(),
            runtime: runtime(address)?,
        })
    }

    /// Runs until `listener` returns [`Listening::Stop`].
    pub fn run(&mut self, listener: &mut dyn FnMut(Event) -> Listening) {
        let mut backoff = Backoff::new();
        let mut version = self.settings.address.version.first();
        loop {
            let mut connected = None;
            let run = run_connection(&self.settings, &self.topics, version, &mut connected, listener);
            let Err(error) = self.runtime.block_on(run) else {
                return;
            };
            let connected = connected.map(|since| since.elapsed());
            version = self.settings.next_version(version, &error, connected.is_some());
            let wait = backoff.after(&error, connected);
            if listener(Event::Disconnected(error.to_string())) == Listening::Stop {
                return;
            }
            self.runtime.block_on(async { sleep(wait).await });
        }
    }
}

/// Passes on the messages of one connection. Sets `connected` when the broker has accepted.
async fn run_connection(
    settings: &ConnectionSettings,
    topics: &[String],
    version: Version,
    connected: &mut Option<Instant>,
    listener: &mut dyn FnMut(Event) -> Listening,
) -> Result<(), LinkError> {
    let mut client = Client::<()>::open(settings, version, &Purpose::Read, None).await?;
    *connected = Some(Instant::now());
    let index = board_index::all_topics();
    for topic in topics.iter().chain([&index]) {
        // It fails only if the connection has ended, which the next event tells.
        let _ = client.subscribe(topic);
    }
    let mut subscribed = 0;
    loop {
        let event = match client.next().await? {
            ClientEvent::Message(message) => match IndexMessage::of(&message.topic, &message.payload) {
                IndexMessage::Device(base) => Event::Device(base),
                IndexMessage::NoEntry => continue,
                IndexMessage::Other => Event::Message {
                    topic: message.topic,
                    payload: message.payload,
                },
            },
            // Nice to know, and often not allowed.
            ClientEvent::Subscribed { topic } | ClientEvent::NotSubscribed { topic, .. } if topic == index => continue,
            ClientEvent::Subscribed { .. } => {
                subscribed += 1;
                if subscribed < topics.len() {
                    continue;
                }
                Event::Connected
            }
            ClientEvent::NotSubscribed { topic, why } => return Err(LinkError::SubscriptionDenied { topic, why }),
            ClientEvent::Delivered(()) | ClientEvent::Denied((), _) => continue,
        };
        if listener(event) == Listening::Stop {
            return Ok(());
        }
    }
}
