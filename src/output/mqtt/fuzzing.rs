//! Entries for `tests/fuzz`: what a device does with the messages of a broker, and what a client makes of its bytes.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::action::Action;
use super::address::{Address, Topic};
use super::board_index::{self, ListedDevice};
use super::client::{Client, Event, Purpose};
use super::device::Device;
use super::error::LinkError;
use super::message::IncomingMessage;
use super::request::{ReplyTo, Request};
use super::runtime::runtime;
use super::settings::ConnectionSettings;
use super::topics::{BoardId, ClientRole, Topics};
use super::version::Version;
use crate::health::LiveHealth;
use crate::output::HostIdentity;
use crate::output::commands::CommandProcessor;
use crate::output::estimate_rate::EstimateRate;

/// A message of the broker.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retained: bool,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Vec<u8>>,
}

/// What a device does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    Subscribe(String),
    /// Asks the device with this command topic whether it runs.
    Ping(String),
    Retain {
        topic: String,
        payload: Vec<u8>,
    },
    /// The answer to a command.
    Answer {
        topic: String,
        payload: Vec<u8>,
        correlation_data: Option<Vec<u8>>,
    },
    Move,
}

/// A device called `hall`, which has just connected, and whose broker sends messages.
pub struct Hall {
    device: Device,
    commands: CommandProcessor<ReplyTo>,
    rate: EstimateRate,
    now: Instant,
}

impl Hall {
    pub fn connected() -> (Hall, Vec<Reaction>) {
        let (host, now) = (HostIdentity::default(), Instant::now());
        let address = Address::parse("mqtt://broker?device=hall", &host).expect("a valid address");
        let mut hall = Hall {
            device: Device::new(&address, &host, 5.0, true, true),
            commands: CommandProcessor::new(bounded(1).0, LiveHealth::default(), Default::default()),
            rate: EstimateRate::default(),
            now,
        };
        let actions = hall.device.connected(now);
        let reactions = hall.carry_out(actions);
        (hall, reactions)
    }

    /// Its own topics, and the topic of Home Assistant's birth message.
    pub fn topics(&self) -> [String; 8] {
        let Topics {
            estimate,
            health,
            status,
            state,
            command,
            response,
            board,
        } = self.device.topics().clone();
        let birth = "homeassistant/status".into();
        [estimate, health, status, state, command, response, board, birth]
    }

    pub fn handle(&mut self, message: Incoming) -> Vec<Reaction> {
        let actions = self.device.handle(IncomingMessage {
            topic: message.topic,
            payload: message.payload,
            retained: message.retained,
            response_topic: message.response_topic,
            correlation_data: message.correlation_data,
        });
        self.carry_out(actions)
    }

    /// What it does by itself, as long as something is due.
    pub fn wait(&mut self) -> Vec<Reaction> {
        let Some(due) = self.device.due(self.now) else {
            return Vec::new();
        };
        self.now = self.now.max(due);
        let actions = self.device.poll(self.now);
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Vec<Reaction> {
        let mut reactions = Vec::new();
        for action in actions {
            match action {
                Action::Subscribe(topics) => reactions.extend(topics.into_iter().map(Reaction::Subscribe)),
                Action::Retain { topic, payload } => reactions.push(Reaction::Retain { topic, payload }),
                Action::Ping(topic) => reactions.push(Reaction::Ping(topic)),
                // Less is never wrong.
                Action::Unsubscribe(_) => {}
                Action::Move => reactions.push(Reaction::Move),
                Action::Execute(Request { command, reply_to, .. }) => {
                    let answer = self.commands.execute(command, reply_to, &mut self.rate);
                    reactions.extend(answer.map(|answer| {
                        let message = ReplyTo::message(answer);
                        Reaction::Answer {
                            topic: message.topic,
                            payload: message.payload,
                            correlation_data: message.correlation_data,
                        }
                    }));
                }
            }
        }
        reactions
    }
}

/// Whether a message can be published under a topic.
pub fn is_topic(text: &str) -> bool {
    text.parse::<Topic>().is_ok()
}

/// An entry of a board in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub status: String,
    pub base: String,
    pub discovery: Option<String>,
    /// The entry as it is written.
    pub json: Vec<u8>,
}

/// An entry of the device `hall`.
pub fn index_entry(json: &[u8]) -> Option<IndexEntry> {
    let host = HostIdentity::default();
    let topic = board_index::topic(&BoardId::of(&host), &"hall".parse().expect("a valid name"));
    let ListedDevice { entry, .. } = ListedDevice::from_message(&topic, json)?;
    Some(IndexEntry {
        base: entry.base().to_owned(),
        json: entry.to_json(),
        status: entry.status,
        discovery: entry.discovery,
    })
}

/// What a client received before its connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Topic and payload of each message.
    pub messages: Vec<(String, Vec<u8>)>,
    /// Why the connection ended.
    pub end: String,
}

/// A connection with MQTT 3.1.1 to a broker that sends `packets` and closes the connection.
pub fn connection_v3(packets: &[u8]) -> Received {
    connection(Version::V3, packets)
}

/// The same with MQTT 5.
pub fn connection_v5(packets: &[u8]) -> Received {
    connection(Version::V5, packets)
}

/// The broker closes first. Then the client does not wait for anything.
const LONGEST_CONNECTION: Duration = Duration::from_secs(5);

/// A runtime with brokers on many addresses. A closed connection occupies its pair of addresses for a minute.
struct Brokers {
    runtime: Runtime,
    listeners: Vec<TcpListener>,
    connections: usize,
}

thread_local! {
    static BROKERS: RefCell<Brokers> = RefCell::new(Brokers::new());
}

impl Brokers {
    fn new() -> Brokers {
        let address = Address::parse("mqtt://broker", &HostIdentity::default()).expect("a valid address");
        let runtime = runtime(&address).expect("a runtime");
        let listen = |last| async move {
            let address = Ipv4Addr::new(127, 0, 0, last);
            TcpListener::bind((address, 0)).await.expect("a free port")
        };
        let listeners = (1..=64).map(|last| runtime.block_on(listen(last)));
        Brokers {
            listeners: listeners.collect(),
            runtime,
            connections: 0,
        }
    }
}

fn connection(version: Version, packets: &[u8]) -> Received {
    BROKERS.with_borrow_mut(|brokers| {
        brokers.connections += 1;
        let listener = &brokers.listeners[brokers.connections % brokers.listeners.len()];
        let place = listener.local_addr().expect("a bound address");
        let host = HostIdentity::default();
        let address = Address::parse(&format!("mqtt://{place}"), &host).expect("a valid address");
        let role = ClientRole::Reader { process_id: 1 };
        let settings = ConnectionSettings::load(&address, &host, role).expect("the address names no files");
        let serve = async {
            let (mut tcp, _) = listener.accept().await.expect("a connection");
            // Both fail if the client has closed the connection already.
            let _ = tcp.write_all(packets).await;
            let _ = tcp.shutdown().await;
            // Unread bytes would reset the connection before the client has read its own.
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        };
        let mut messages = Vec::new();
        let read = async {
            let mut client = Client::<()>::open(&settings, version, &Purpose::Read, None).await?;
            // It fails only if the connection has ended, which the next event tells.
            let _ = client.subscribe("affectd/#");
            loop {
                if let Event::Message(message) = client.next().await? {
                    messages.push((message.topic, message.payload));
                }
            }
        };
        let read = async {
            let ended: Result<(), LinkError> = read.await;
            ended
        };
        let both = async { tokio::join!(serve, read) };
        // The timeout needs the runtime as soon as it is made.
        let ended = brokers
            .runtime
            .block_on(async { timeout(LONGEST_CONNECTION, both).await });
        let ((), ended) = ended.expect("the connection ends");
        let end = ended.expect_err("only an error ends it").to_string();
        Received { messages, end }
    })
}
