//! `affectd forget`: deletes what a device has left on the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::address::{Address, DeviceName, Topic};
use super::board_index::{self, ListedDevice};
use super::client::{Client, Event};
use super::error::LinkError;
use super::liveness::{ANSWER_TIMEOUT, Liveness, PING, Verdict};
use super::message::{IncomingMessage, Message};
use super::probe::connect;
use super::runtime::runtime;
use super::settings::ConnectionSettings;
use super::topics::{BoardId, ClientRole};
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
    #[error(
        "{0} may be online, because the broker passes on no messages under it: allow this user to read and write {0}/+ in the \
         broker's access list"
    )]
    NotHeard(String),
    #[error("the broker does not allow affectd to {action} {topic} ({why}): allow it in the broker's access list")]
    Denied {
        action: &'static str,
        topic: String,
        why: String,
    },
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

/// Topics under which the device may publish.
struct Candidate {
    base: Topic,
    liveness: Liveness,
    /// The board whose list names the base; `None` if the user names it.
    board: Option<BoardId>,
}

async fn remove(settings: &mut ConnectionSettings, device: &DeviceName) -> Result<Vec<String>, ForgetError> {
    let mut client = connect(settings).await?;
    let address = &settings.address;
    let (mut announcements, mut found) = (BTreeSet::new(), BTreeSet::new());
    let mut bases = BTreeMap::from([(Topic::of_device(device), None)]);
    if address.device == *device {
        bases.insert(address.base.clone(), None);
    }
    for message in retained(&mut client, [board_index::topics_of_name(device)]).await? {
        if let Some(listed) = ListedDevice::from_message(&message.topic, &message.payload) {
            if let Ok(base) = listed.entry.base().parse() {
                bases.entry(base).or_insert(Some(listed.board));
            }
            announcements.extend(listed.entry.discovery);
        }
        found.insert(message.topic);
    }
    let candidate = |(base, board)| Candidate {
        liveness: Liveness::of(&base),
        base,
        board,
    };
    let mut candidates: Vec<Candidate> = bases.into_iter().map(candidate).collect();
    let filters: Vec<String> = candidates.iter().map(|one| one.liveness.filter.clone()).collect();
    for message in retained(&mut client, filters).await? {
        for candidate in &mut candidates {
            candidate.liveness.add(&message);
            if candidate.liveness.retained_topics().contains(&message.topic.as_str()) {
                found.insert(message.topic.clone());
            }
        }
    }
    // The list of a board, which anybody may write, names topics of another board.
    candidates.retain(|one| {
        let is_own = one.board.as_ref().is_none_or(|board| one.liveness.may_be_of(board));
        if !is_own {
            let foreign = one.liveness.retained_topics();
            found.retain(|topic| !foreign.contains(&topic.as_str()));
        }
        is_own
    });
    // Nothing is known of the other bases.
    candidates.retain(|one| one.board.is_some() || one.liveness.has_status());
    if !candidates.is_empty() {
        assert_gone(&mut client, &mut candidates).await?;
    }
    // The announcements first: Home Assistant must not read the others while they are deleted.
    let all: Vec<String> = announcements.into_iter().chain(found).collect();
    for topic in &all {
        publish(&mut client, Message::new(topic, "").retained(), "delete").await?;
    }
    client.disconnect(Instant::now() + QUIET).await;
    Ok(all)
}

/// Asks the devices whether they run.
async fn assert_gone(client: &mut Client<()>, candidates: &mut [Candidate]) -> Result<(), ForgetError> {
    let pings: Vec<Message> = candidates
        .iter()
        .map(|candidate| Message::new(candidate.liveness.command_topic(), PING))
        .collect();
    for ping in pings {
        // The broker may pass on the ping, and the answer, before it acknowledges the ping.
        for message in publish(client, ping, "publish").await? {
            hear(candidates, &message)?;
        }
    }
    let end = Instant::now() + ANSWER_TIMEOUT;
    while let Ok(event) = timeout_at(end, client.next()).await {
        if let Event::Message(message) = event? {
            hear(candidates, &message)?;
        }
    }
    match candidates.iter().find(|one| one.liveness.verdict() == Verdict::Unknown) {
        Some(candidate) => Err(ForgetError::NotHeard(candidate.base.as_str().to_owned())),
        None => Ok(()),
    }
}

/// Fails if `message` shows that a device runs.
fn hear(candidates: &mut [Candidate], message: &IncomingMessage) -> Result<(), ForgetError> {
    for candidate in candidates {
        candidate.liveness.add(message);
        if candidate.liveness.verdict() == Verdict::Runs {
            return Err(ForgetError::Online(candidate.base.as_str().to_owned()));
        }
    }
    Ok(())
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
    let mut quiet_at = Instant::now() + QUIET;
    let mut messages = Vec::new();
    while let Ok(event) = timeout_at(end.min(quiet_at), client.next()).await {
        match event? {
            Event::Message(message) if message.retained && !message.payload.is_empty() => messages.push(message),
            Event::NotSubscribed { topic, why } => return Err(LinkError::SubscriptionDenied { topic, why }),
            Event::Subscribed { .. } => {}
            // A device that runs never falls silent.
            _ => continue,
        }
        quiet_at = Instant::now() + QUIET;
    }
    Ok(messages)
}

/// Publishes a message and waits until the broker has it. Returns the messages that arrive meanwhile.
async fn publish(
    client: &mut Client<()>,
    message: Message,
    action: &'static str,
) -> Result<Vec<IncomingMessage>, ForgetError> {
    let topic = message.topic.clone();
    let denied = |why: String| ForgetError::Denied { action, topic, why };
    if let Err(error) = client.publish(message, ()) {
        return Err(denied(error.to_string()));
    }
    let end = Instant::now() + STEP_TIMEOUT;
    let mut messages = Vec::new();
    loop {
        match timeout_at(end, client.next()).await.map_err(|_| LinkError::Timeout)?? {
            Event::Delivered(()) => return Ok(messages),
            Event::Denied((), why) => return Err(denied(why)),
            Event::Message(message) => messages.push(message),
            Event::Subscribed { .. } | Event::NotSubscribed { .. } => {}
        }
    }
}
