//! `affectd forget`: deletes what a device has left on the broker.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::address::{Address, DeviceName, Topic};
use super::board_index::{self, Entry};
use super::client::{Client, Event};
use super::device::ONLINE;
use super::error::LinkError;
use super::message::{IncomingMessage, Message};
use super::probe::connect;
use super::runtime::runtime;
use super::settings::ConnectionSettings;
use super::topics::{ClientRole, Topics};
use crate::output::contract::{HostIdentity, OutputError};

/// Retained messages follow a subscription at once. After this time without one, all have come.
const QUIET: Duration = Duration::from_secs(1);
/// The longest time for each step, if the broker never falls silent.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum ForgetError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{0} is online: stop it first, or it publishes everything again")]
    Online(String),
    #[error("the broker does not allow affectd to delete {topic} ({why}): allow it in the broker's access list")]
    Denied { topic: String, why: String },
}

/// Deletes the retained messages of `device`: its announcement to Home Assistant, status, health and board. Returns their topics.
/// Fails if the device is online.
pub fn forget(address: &Address, device: &DeviceName, host: &HostIdentity) -> Result<Vec<String>, OutputError> {
    let role = ClientRole::Reader {
        process_id: std::process::id(),
    };
    let mut settings = ConnectionSettings::load(address, host, role)?;
    let runtime = runtime(address)?;
    let result = runtime.block_on(remove(&mut settings, device));
    runtime.shutdown_background();
    result.map_err(|why| OutputError::Failed(format!("{address}: {why}")))
}

async fn remove(settings: &mut ConnectionSettings, device: &DeviceName) -> Result<Vec<String>, ForgetError> {
    let mut client = connect(settings).await?;
    let address = &settings.address;
    // The announcements first: Home Assistant must not read the others while they are deleted.
    let (mut announcements, mut found) = (BTreeSet::new(), BTreeSet::new());
    let mut bases = BTreeSet::from([Topic::of_device(device)]);
    if address.device == *device {
        bases.insert(address.base.clone());
    }
    for message in retained(&mut client, [board_index::topics_of_name(device)]).await? {
        if let Some(entry) = Entry::from_json(&message.payload) {
            bases.extend(entry.base().parse());
            announcements.extend(entry.discovery);
        }
        found.insert(message.topic);
    }
    let topics: Vec<Topics> = bases.iter().map(Topics::under).collect();
    let kept = |topics: &Topics| [topics.status.clone(), topics.health.clone(), topics.board.clone()];
    for message in retained(&mut client, topics.iter().flat_map(kept)).await? {
        let is_status = topics.iter().any(|topics| topics.status == message.topic);
        if is_status && message.payload == ONLINE {
            let base = message.topic.trim_end_matches("/status");
            return Err(ForgetError::Online(base.to_owned()));
        }
        found.insert(message.topic);
    }
    let all: Vec<String> = announcements.into_iter().chain(found).collect();
    for topic in &all {
        delete(&mut client, topic).await?;
    }
    client.disconnect(Instant::now() + QUIET).await;
    Ok(all)
}

/// The messages that the broker has stored for these topics.
async fn retained(
    client: &mut Client<()>,
    topics: impl IntoIterator<Item = String>,
) -> Result<Vec<IncomingMessage>, LinkError> {
    for topic in topics {
        // It fails only if the connection has ended, which the next event tells.
        let _ = client.subscribe(&topic);
    }
    let end = Instant::now() + STEP_TIMEOUT;
    let mut messages = Vec::new();
    while let Ok(event) = timeout_at(end.min(Instant::now() + QUIET), client.next()).await {
        match event? {
            Event::Message(message) if message.retained && !message.payload.is_empty() => messages.push(message),
            Event::NotSubscribed { topic, why } => return Err(LinkError::SubscriptionDenied { topic, why }),
            _ => {}
        }
    }
    Ok(messages)
}

async fn delete(client: &mut Client<()>, topic: &str) -> Result<(), ForgetError> {
    let denied = |why: String| ForgetError::Denied {
        topic: topic.to_owned(),
        why,
    };
    let message = Message::new(topic, "").retained();
    client.publish(message, ()).map_err(|e| denied(e.to_string()))?;
    let end = Instant::now() + STEP_TIMEOUT;
    loop {
        match timeout_at(end, client.next()).await.map_err(|_| LinkError::Timeout)?? {
            Event::Delivered(()) => return Ok(()),
            Event::Denied((), why) => return Err(denied(why)),
            _ => {}
        }
    }
}
