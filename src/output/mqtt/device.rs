//! What a device tells the broker about itself: the announcement to Home Assistant and the claim of its name. It knows no
//! connection: it turns messages into [`Action`]s.
//!
//! Announcements are retained, so they outlive the device. A board keeps a list of its own on the broker, see
//! [`board_index`](super::board_index), and deletes those under former names, see [`former`](super::former).
//!
//! Two boards with the same name would overwrite each other's messages. So each publishes its identifier on the topic `board`, and
//! the board with the larger identifier moves to another name.

use std::time::{Duration, Instant};

use log::warn;

use super::action::{Action, deletion};
use super::address::{Address, DeviceName, Discovery, Retain};
use super::board_index::{self, Entry, ListedDevice};
use super::former::{FormerDevices, ThisDevice};
use super::home_assistant::{self, Announcement};
use super::liveness::{OFFLINE, ONLINE};
use super::message::IncomingMessage;
use super::request::Request;
use super::topics::{BoardId, ConfigurationId, Topics};
use crate::output::contract::HostIdentity;

/// The shortest time between two repetitions of an announcement, a claim or the status.
const REPEAT_INTERVAL: Duration = Duration::from_secs(3);
/// The entry in the index replaces the former one, which must have been read by then.
const ENTRY_DELAY: Duration = Duration::from_secs(1);

pub struct Device {
    address: Address,
    board: BoardId,
    configuration: ConfigurationId,
    name: DeviceName,
    topics: Topics,
    /// For the announcement.
    has_temperature: bool,
    rate_hz: f64,
    announces: bool,
    former: FormerDevices,
    /// When the entry in the index is to be published.
    entry_due: Option<Instant>,
    /// The board has another name than configured.
    moved: bool,
    repeat: Repeat,
}

/// Messages to publish again, once it is time.
#[derive(Debug, Default)]
struct Repeat {
    announcement: bool,
    claim: bool,
    status: bool,
    last: Option<Instant>,
}

impl Repeat {
    /// The time of the next messages, if there are any.
    fn due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.announcement || self.claim || self.status;
        waiting.then(|| self.last.map_or(now, |last| last + REPEAT_INTERVAL))
    }
}

impl Device {
    /// `rate_hz` is the rate of the estimates. Without `announces`, Home Assistant is not told about the device.
    pub fn new(address: &Address, host: &HostIdentity, rate_hz: f64, has_temperature: bool, announces: bool) -> Device {
        Device {
            board: BoardId::of(host),
            configuration: ConfigurationId::of(host),
            name: address.device.clone(),
            topics: Topics::under(&address.base),
            has_temperature,
            rate_hz,
            announces,
            former: FormerDevices::default(),
            entry_due: None,
            moved: false,
            repeat: Repeat::default(),
            address: address.clone(),
        }
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// What a topic is, for the log.
    pub fn name_of(&self, topic: &str) -> &'static str {
        let prefix = &self.address.discovery_prefix;
        if topic == self.topics.command {
            "commands"
        } else if topic == home_assistant::birth_topic(prefix) {
            "Home Assistant's status"
        } else if topic == board_index::topics_of_board(&self.board) {
            "the list of its own devices"
        } else if self.former.hear(topic) {
            "the topics of a former device"
        } else {
            "the name of the device"
        }
    }

    /// When [`Device::poll`] is due.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        [self.repeat.due(now), self.entry_due, self.former.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// A connection was made, and the status is published.
    pub fn connected(&mut self, now: Instant) -> Vec<Action> {
        self.former.clear();
        let mut topics = vec![self.topics.command.clone()];
        if !self.moved {
            topics.extend([self.topics.board.clone(), self.topics.status.clone()]);
        }
        // A replay leaves the announcement of the real device alone.
        if self.announces {
            topics.push(board_index::topics_of_board(&self.board));
            if self.address.discovery == Discovery::On {
                topics.push(home_assistant::birth_topic(&self.address.discovery_prefix));
            }
        }
        let mut actions = vec![Action::Subscribe(topics)];
        actions.extend(self.announcement());
        self.entry_due = (self.announces && self.address.retain.is_on()).then(|| now + ENTRY_DELAY);
        if !self.moved {
            actions.push(self.claim());
        }
        actions
    }

    /// Messages that were held back and are due.
    pub fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = self.former.poll(now, &self.board, &self.address);
        if self.entry_due.take_if(|due| *due <= now).is_some() {
            actions.push(Action::Retain {
                topic: self.index_topic(),
                payload: self.entry().to_json(),
            });
        }
        if self.repeat.due(now).is_none_or(|due| now < due) {
            return actions;
        }
        let none = Repeat {
            last: Some(now),
            ..Repeat::default()
        };
        let Repeat {
            announcement,
            claim,
            status,
            ..
        } = std::mem::replace(&mut self.repeat, none);
        if status {
            actions.push(Action::Retain {
                topic: self.topics.status.clone(),
                payload: ONLINE.to_vec(),
            });
        }
        if claim {
            actions.push(self.claim());
        }
        if announcement {
            actions.extend(self.announcement());
        }
        actions
    }

    /// The broker has acknowledged a subscription.
    pub fn subscribed(&self, topic: &str) -> Vec<Action> {
        self.former.subscribed(topic)
    }

    /// Handles a message from the broker. Further actions may be due at the next [`Device::poll`].
    pub fn handle(&mut self, received: IncomingMessage) -> Vec<Action> {
        let IncomingMessage { topic, payload, .. } = &received;
        if *topic == self.topics.command {
            let request = Request::from_message(received, &self.topics, &self.address.discovery_prefix);
            return request.map(Action::Execute).into_iter().collect();
        }
        if *topic == home_assistant::birth_topic(&self.address.discovery_prefix) {
            self.repeat.announcement |= payload == ONLINE;
            return Vec::new();
        }
        if *topic == self.topics.board {
            return self.claim_of_board(payload, received.retained);
        }
        if *topic == self.topics.status {
            return self.own_status(payload, received.retained);
        }
        if self.former.add(&received) {
            return Vec::new();
        }
        match ListedDevice::from_message(topic, payload) {
            // Those that are not retained have just been published.
            Some(listed) if received.retained && listed.board == self.board => {
                // Without retain, the former announcement is deleted, so Home Assistant must learn of the device again.
                self.repeat.announcement |= listed.device == self.name && self.address.retain == Retain::Off;
                let this = ThisDevice {
                    address: &self.address,
                    name: &self.name,
                    entry: self.entry(),
                };
                self.former.found(topic, listed, &this)
            }
            _ => Vec::new(),
        }
    }

    fn own_status(&mut self, status: &[u8], retained: bool) -> Vec<Action> {
        if retained && self.address.retain == Retain::Off {
            return [&self.topics.status, &self.topics.health]
                .map(|topic| deletion(topic.clone()))
                .into();
        }
        // A board that has just moved to another name may have published it here.
        self.repeat.status |= status == OFFLINE && !retained;
        Vec::new()
    }

    fn claim(&self) -> Action {
        Action::Retain {
            topic: self.topics.board.clone(),
            payload: self.board.as_str().into(),
        }
    }

    /// Another board publishes its identifier under this device's topics.
    fn claim_of_board(&mut self, id: &[u8], retained: bool) -> Vec<Action> {
        let Some(id) = BoardId::parse(id) else {
            return Vec::new();
        };
        if retained && id == self.board && self.address.retain == Retain::Off {
            return vec![deletion(self.topics.board.clone())];
        }
        // A retained identifier is from a board that may be gone. A board that is there repeats its identifier.
        if self.moved || retained || id == self.board {
            return Vec::new();
        }
        if id > self.board {
            self.repeat.claim = true;
            return Vec::new();
        }
        let (before, base) = (&self.address.base, self.address.base.with_suffix(self.board.suffix()));
        warn!(
            "{}: another board publishes under {}, so this one publishes under {} until it is restarted: set device= to another \
             name on one of them",
            self.address,
            before.as_str(),
            base.as_str()
        );
        let announced = self.entry().discovery.into_iter().chain([self.index_topic()]);
        let announced = announced.filter(|_| self.announces);
        let deleted: Vec<Action> = announced.map(deletion).collect();
        self.topics = Topics::under(&base);
        self.name = self.name.with_suffix(self.board.suffix());
        self.moved = true;
        deleted.into_iter().chain([Action::Move]).collect()
    }

    fn discovery_topic(&self) -> String {
        home_assistant::topic(&self.address.discovery_prefix, &self.board, &self.name)
    }

    fn index_topic(&self) -> String {
        board_index::topic(&self.board, &self.name)
    }

    fn entry(&self) -> Entry {
        Entry {
            status: self.topics.status.clone(),
            discovery: (self.address.discovery == Discovery::On).then(|| self.discovery_topic()),
            configuration: Some(self.configuration.clone()),
        }
    }

    fn announcement(&self) -> Option<Action> {
        let announcement = Announcement {
            board: &self.board,
            device: &self.name,
            topics: &self.topics,
            has_temperature: self.has_temperature,
            rate_hz: self.rate_hz,
        };
        (self.announces && self.address.discovery == Discovery::On).then(|| Action::Retain {
            topic: self.discovery_topic(),
            payload: announcement.payload(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = "affectd8000000000000000";

    fn device(spec: &str) -> Device {
        let host = HostIdentity::default();
        let address = Address::parse(&format!("mqtt://b?{spec}"), &host).unwrap();
        Device {
            board: board(BOARD),
            ..Device::new(&address, &host, 5.0, false, true)
        }
    }

    fn board(id: &str) -> BoardId {
        BoardId::parse(id.as_bytes()).unwrap()
    }

    fn received(topic: &str, payload: &[u8]) -> IncomingMessage {
        IncomingMessage {
            topic: topic.into(),
            payload: payload.into(),
            retained: false,
            response_topic: None,
            correlation_data: None,
        }
    }

    fn discovery(name: &str) -> String {
        format!("homeassistant/device/{BOARD}_{name}/config")
    }

    fn index(name: &str) -> String {
        format!("affectd/boards/{BOARD}/{name}")
    }

    /// The entry of a device with these options, as the broker has kept it.
    fn kept(name: &str, spec: &str) -> IncomingMessage {
        IncomingMessage {
            retained: true,
            ..received(&index(name), &device(spec).entry().to_json())
        }
    }

    fn retained(topic: &str, payload: &str) -> Action {
        Action::Retain {
            topic: topic.into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn a_connected_device_subscribes_claims_its_name_and_announces_itself() {
        let mut hall = device("device=hall");
        let actions = hall.connected(Instant::now());
        let [Action::Subscribe(topics), Action::Retain { topic, .. }, claim] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(
            *topics,
            [
                "affectd/hall/command",
                "affectd/hall/board",
                "affectd/hall/status",
                &index("+"),
                "homeassistant/status"
            ]
        );
        assert_eq!(*claim, retained("affectd/hall/board", BOARD));
        let json = format!(
            r#"{{"status":"affectd/hall/status","discovery":"{}","configuration":"5983c8ae88aba670"}}"#,
            discovery("hall")
        );
        let later = Instant::now() + ENTRY_DELAY;
        assert_eq!(hall.poll(later), [retained(&index("hall"), &json)]);
        assert_eq!(hall.poll(later + ENTRY_DELAY), []);
        assert_eq!(*topic, discovery("hall"));
    }

    #[test]
    fn a_replay_does_not_announce_itself() {
        let address = Address::parse("mqtt://b?device=hall", &HostIdentity::default()).unwrap();
        let mut replay = Device::new(&address, &HostIdentity::default(), 5.0, false, false);
        let text = format!("{:?}", replay.connected(Instant::now()));
        assert!(!text.contains("homeassistant") && !text.contains("boards"), "{text}");
    }

    #[test]
    fn many_births_cause_one_announcement_every_few_seconds() {
        let mut hall = device("device=hall");
        let start = Instant::now();
        let mut announcements = 0;
        for ms in 0..10_000 {
            assert_eq!(hall.handle(received("homeassistant/status", b"online")), []);
            announcements += hall.poll(start + Duration::from_millis(ms)).len();
        }
        assert_eq!(announcements, 4);
        hall.poll(start + Duration::from_secs(20));
        hall.handle(received("homeassistant/status", b"offline"));
        assert_eq!(hall.poll(start + Duration::from_secs(30)), []);
    }

    #[test]
    fn without_retain_what_was_retained_is_deleted() {
        let mut hall = device("device=hall&retain=off");
        let kept_of = |topic: &str, payload: &[u8]| IncomingMessage {
            retained: true,
            ..received(topic, payload)
        };
        let status_and_health = ["affectd/hall/status", "affectd/hall/health"].map(|topic| deletion(topic.into()));
        assert_eq!(hall.handle(kept_of("affectd/hall/status", ONLINE)), status_and_health);
        let board = kept_of("affectd/hall/board", BOARD.as_bytes());
        assert_eq!(hall.handle(board), [deletion("affectd/hall/board".into())]);
        let announcement = [discovery("hall"), index("hall")];
        assert_eq!(hall.handle(kept("hall", "device=hall")), announcement.map(deletion));
        // Home Assistant has forgotten the device and learns of it again.
        let again = hall.poll(Instant::now());
        assert!(
            matches!(&again[..], [Action::Retain { topic, payload }] if *topic == discovery("hall") && !payload.is_empty())
        );
    }

    #[test]
    fn entries_that_were_just_published_or_are_invalid_are_ignored() {
        let mut hall = device("device=hall");
        let echo = IncomingMessage {
            retained: false,
            ..kept("kitchen", "device=kitchen")
        };
        assert_eq!(hall.handle(echo), []);
        let invalid = IncomingMessage {
            retained: true,
            ..received(&index("x"), b"{")
        };
        assert_eq!(hall.handle(invalid), []);
    }

    #[test]
    fn of_two_boards_with_one_name_the_one_with_the_larger_identifier_moves() {
        let mut hall = device("device=hall");
        hall.connected(Instant::now());
        let smaller = b"affectd7fffffffffffffff";
        let gone = IncomingMessage {
            retained: true,
            ..received("affectd/hall/board", smaller)
        };
        assert_eq!(hall.handle(gone), []);
        assert_eq!(hall.handle(received("affectd/hall/board", BOARD.as_bytes())), []);
        let moved = hall.handle(received("affectd/hall/board", smaller));
        assert_eq!(
            moved,
            [deletion(discovery("hall")), deletion(index("hall")), Action::Move]
        );
        assert_eq!(hall.topics().estimate, "affectd/hall-0000/estimate");
        let text = format!("{:?}", hall.connected(Instant::now()));
        assert!(!text.contains("affectd/hall/"), "{text}");
        assert!(text.contains(&discovery("hall-0000")), "{text}");
    }

    #[test]
    fn the_board_with_the_smaller_identifier_repeats_its_claim() {
        let mut hall = device("device=hall");
        hall.connected(Instant::now());
        let larger = received("affectd/hall/board", b"affectd8000000000000001");
        assert_eq!(hall.handle(larger), []);
        assert_eq!(hall.poll(Instant::now()), [retained("affectd/hall/board", BOARD)]);
        assert_eq!(hall.handle(received("affectd/hall/board", b"garbage")), []);
        assert_eq!(hall.topics().estimate, "affectd/hall/estimate");
    }

    #[test]
    fn a_status_that_another_board_set_is_corrected() {
        let mut hall = device("device=hall");
        hall.handle(received("affectd/hall/status", OFFLINE));
        assert_eq!(hall.poll(Instant::now()), [retained("affectd/hall/status", "online")]);
    }
}
