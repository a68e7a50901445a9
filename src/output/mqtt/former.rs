//! The devices that a board has left on the broker under former names, or under a former base topic.
//!
//! A device that still runs is another output of this service, and stays.

use std::time::Instant;

use log::info;

use super::action::{Action, deletion};
use super::address::{Address, DeviceName, Topic};
use super::board_index::{Entry, ListedDevice};
use super::liveness::{ANSWER_TIMEOUT, Liveness, Verdict};
use super::message::IncomingMessage;
use super::topics::BoardId;

/// How many former devices are looked up.
const MAX_DEVICES: usize = 16;

/// The device that has the list read.
pub struct ThisDevice<'a> {
    pub address: &'a Address,
    pub name: &'a DeviceName,
    pub entry: Entry,
}

/// The devices that are looked up.
#[derive(Debug, Default)]
pub struct FormerDevices(Vec<FormerDevice>);

#[derive(Debug)]
struct FormerDevice {
    entry: Entry,
    /// The entry's own topic; `None` if the entry is still needed.
    index_topic: Option<String>,
    liveness: Liveness,
    /// When the verdict is final; `None` until the next [`FormerDevices::poll`].
    due: Option<Instant>,
}

impl FormerDevices {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Handles a device in the list of this board: this one from before, or one of another name.
    pub fn found(&mut self, index_topic: &str, listed: ListedDevice, this: &ThisDevice) -> Vec<Action> {
        let ListedDevice { device, entry, .. } = listed;
        if device == *this.name {
            return self.found_itself(index_topic, entry, this);
        }
        // Another service on this board may be stopped, and comes back.
        if entry.configuration != this.entry.configuration {
            return Vec::new();
        }
        if entry.status == this.entry.status {
            let name = device.as_str();
            info!(
                "{}: deletes the announcement under the former name {name}",
                this.address
            );
            let topics = entry.discovery.into_iter().chain([index_topic.to_owned()]);
            return topics.map(deletion).collect();
        }
        self.look_up(entry, Some(index_topic.to_owned()))
    }

    fn found_itself(&mut self, index_topic: &str, entry: Entry, this: &ThisDevice) -> Vec<Action> {
        let retains = this.address.retain.is_on();
        let mut actions = Vec::new();
        if let Some(discovery) = entry.discovery.clone()
            && (!retains || this.entry.discovery.as_ref() != Some(&discovery))
        {
            info!("{}: deletes the former announcement to Home Assistant", this.address);
            actions.push(deletion(discovery));
        }
        if !retains {
            actions.push(deletion(index_topic.to_owned()));
        }
        if entry.status != this.entry.status {
            let moved = Entry {
                discovery: None,
                ..entry
            };
            actions.extend(self.look_up(moved, None));
        }
        actions
    }

    /// Asks whether the device of `entry` runs.
    fn look_up(&mut self, entry: Entry, index_topic: Option<String>) -> Vec<Action> {
        let known = self.0.iter().any(|former| former.entry.status == entry.status);
        let Ok(base) = entry.base().parse::<Topic>() else {
            return Vec::new();
        };
        if known || self.0.len() >= MAX_DEVICES {
            return Vec::new();
        }
        let liveness = Liveness::of(&base);
        let actions = vec![Action::Subscribe(vec![liveness.filter.clone()])];
        self.0.push(FormerDevice {
            entry,
            index_topic,
            liveness,
            due: None,
        });
        actions
    }

    /// A subscription is acknowledged. Asks the device whether it runs. Not before, because its own ping must come back.
    pub fn subscribed(&self, filter: &str) -> Vec<Action> {
        let asked = self.0.iter().filter(|former| former.liveness.filter == filter);
        asked
            .map(|former| Action::Ping(former.liveness.command_topic().to_owned()))
            .collect()
    }

    /// Takes a message into account. Returns whether it is from a former device.
    pub fn add(&mut self, message: &IncomingMessage) -> bool {
        // All, because two of them may share topics.
        let mut known = false;
        for former in &mut self.0 {
            known |= former.liveness.add(message);
        }
        known
    }

    /// Whether `topic` is subscribed to hear former devices.
    pub fn hear(&self, topic: &str) -> bool {
        self.0.iter().any(|former| former.liveness.filter == topic)
    }

    /// When [`FormerDevices::poll`] is due.
    pub fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|former| former.due).min()
    }

    /// Deletes the devices that are gone.
    pub fn poll(&mut self, now: Instant, board: &BoardId, address: &Address) -> Vec<Action> {
        for former in &mut self.0 {
            former.due.get_or_insert(now + ANSWER_TIMEOUT);
        }
        let decided = self.0.extract_if(.., |former| former.due.is_some_and(|due| due <= now));
        decided.flat_map(|former| former.settle(board, address)).collect()
    }
}

impl FormerDevice {
    fn settle(self, board: &BoardId, address: &Address) -> Vec<Action> {
        let base = self.entry.base();
        let mut actions = vec![Action::Unsubscribe(self.liveness.filter.clone())];
        match self.liveness.verdict() {
            Verdict::Runs => return actions,
            Verdict::Unknown => {
                info!(
                    "{address}: the former device {base} stays on the broker, which passes on no messages under {}: allow this user \
                     to read and write there, or run affectd forget as a user who may",
                    self.liveness.filter
                );
                return actions;
            }
            Verdict::Gone => info!("{address}: deletes the former device {base} from the broker"),
        }
        // The announcement first: Home Assistant must not read the others while they are deleted.
        actions.extend(self.entry.discovery.clone().map(deletion));
        if self.liveness.may_be_of(board) {
            let topics = self.liveness.retained_topics();
            actions.extend(topics.map(|topic| deletion(topic.to_owned())));
        }
        actions.extend(self.index_topic.map(deletion));
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::HostIdentity;
    use crate::output::mqtt::address::Discovery;
    use crate::output::mqtt::board_index;
    use crate::output::mqtt::home_assistant;
    use crate::output::mqtt::liveness::{OFFLINE, ONLINE, PING};
    use crate::output::mqtt::topics::{ConfigurationId, Topics};

    /// A device of a board, and the former devices that it has found.
    struct Board {
        address: Address,
        entry: Entry,
        former: FormerDevices,
    }

    fn message(topic: &str, payload: &[u8], retained: bool) -> IncomingMessage {
        IncomingMessage {
            topic: topic.into(),
            payload: payload.into(),
            retained,
            response_topic: None,
            correlation_data: None,
        }
    }

    fn discovery(name: &str) -> String {
        format!(
            "homeassistant{}",
            home_assistant::end_of_topic(&BoardId::sample(), &name.parse().unwrap())
        )
    }

    fn index(name: &str) -> String {
        board_index::topic(&BoardId::sample(), &name.parse().unwrap())
    }

    impl Board {
        fn with(spec: &str, configuration: &str) -> Board {
            let host = HostIdentity {
                configuration: Some(configuration.into()),
                ..HostIdentity::default()
            };
            let address = Address::parse(spec, &host).unwrap();
            let announced = home_assistant::topic(&address.discovery_prefix, &BoardId::sample(), &address.device);
            let entry = Entry {
                status: Topics::under(&address.base).status,
                discovery: (address.discovery == Discovery::On).then_some(announced),
                configuration: Some(ConfigurationId::of(&host)),
            };
            Board {
                address,
                entry,
                former: FormerDevices::default(),
            }
        }

        fn of(spec: &str) -> Board {
            Board::with(spec, "/etc/affectd/affectd.toml")
        }

        /// Finds the entry that `other` has left.
        fn finds(&mut self, other: &Board) -> Vec<Action> {
            let topic = board_index::topic(&BoardId::sample(), &other.address.device);
            let listed = ListedDevice::from_message(&topic, &other.entry.to_json()).unwrap();
            let this = ThisDevice {
                address: &self.address,
                name: &self.address.device,
                entry: self.entry.clone(),
            };
            self.former.found(&topic, listed, &this)
        }

        fn hears(&mut self, topic: &str, payload: &[u8]) {
            assert!(self.former.add(&message(topic, payload, false)));
        }

        /// What it does when the time for an answer is over.
        fn decides(&mut self) -> Vec<Action> {
            let now = Instant::now();
            assert_eq!(self.former.poll(now, &BoardId::sample(), &self.address), []);
            let due = now + ANSWER_TIMEOUT;
            assert_eq!(self.former.due(), Some(due));
            self.former.poll(due, &BoardId::sample(), &self.address)
        }
    }

    fn looked_up(base: &str) -> [Action; 1] {
        [Action::Subscribe(vec![format!("{base}/+")])]
    }

    fn deleted<const N: usize>(base: &str, topics: [String; N]) -> Vec<Action> {
        let unsubscribe = Action::Unsubscribe(format!("{base}/+"));
        [unsubscribe].into_iter().chain(topics.map(deletion)).collect()
    }

    #[test]
    fn a_former_device_that_does_not_answer_is_deleted() {
        let mut hall = Board::of("mqtt://b?device=hall");
        assert_eq!(
            hall.finds(&Board::of("mqtt://b?device=kitchen")),
            looked_up("affectd/kitchen")
        );
        assert_eq!(hall.former.subscribed("affectd/hall/+"), []);
        let ping = Action::Ping("affectd/kitchen/command".into());
        assert_eq!(hall.former.subscribed("affectd/kitchen/+"), [ping]);
        assert!(hall.former.add(&message("affectd/kitchen/status", ONLINE, true)));
        hall.hears("affectd/kitchen/command", PING);
        let topics = [
            discovery("kitchen"),
            "affectd/kitchen/status".into(),
            "affectd/kitchen/health".into(),
            "affectd/kitchen/board".into(),
            index("kitchen"),
        ];
        assert_eq!(hall.decides(), deleted("affectd/kitchen", topics));
        assert_eq!(hall.former.due(), None);
    }

    #[test]
    fn a_device_that_runs_or_cannot_be_heard_is_kept() {
        let mut left = Board::of("mqtt://b?device=left");
        left.finds(&Board::of("mqtt://b?device=right"));
        left.hears("affectd/right/command", PING);
        left.hears("affectd/right/response", b"{\"ok\":\"pong\"}");
        assert_eq!(left.decides(), deleted("affectd/right", []));
        left.finds(&Board::of("mqtt://b?device=right"));
        assert_eq!(left.decides(), deleted("affectd/right", []));
    }

    #[test]
    fn the_device_of_another_configuration_is_kept() {
        let right = Board::with("mqtt://b?device=right", "/etc/affectd/right.toml");
        let mut left = Board::with("mqtt://b?device=left", "/etc/affectd/left.toml");
        assert_eq!(left.finds(&right), []);
        let mut renamed = Board::with("mqtt://b?device=other", "/etc/affectd/right.toml");
        assert_eq!(renamed.finds(&right), looked_up("affectd/right"));
    }

    #[test]
    fn another_base_topic_deletes_what_is_under_the_former_one() {
        let mut hall = Board::of("mqtt://b/home?device=hall");
        assert_eq!(
            hall.finds(&Board::of("mqtt://b?device=hall")),
            looked_up("affectd/hall")
        );
        hall.hears("affectd/hall/status", OFFLINE);
        let topics = ["status", "health", "board"].map(|name| format!("affectd/hall/{name}"));
        assert_eq!(hall.decides(), deleted("affectd/hall", topics));
    }

    #[test]
    fn a_rename_with_the_same_base_topic_deletes_the_announcement() {
        let mut hall = Board::of("mqtt://b/home?device=hall");
        let topics = [discovery("kitchen"), index("kitchen")];
        assert_eq!(
            hall.finds(&Board::of("mqtt://b/home?device=kitchen")),
            topics.map(deletion)
        );
    }

    #[test]
    fn topics_that_another_board_uses_are_kept() {
        let mut hall = Board::of("mqtt://b?device=hall");
        hall.finds(&Board::of("mqtt://b?device=kitchen"));
        assert!(
            hall.former
                .add(&message("affectd/kitchen/board", b"affectd7fffffffffffffff", true))
        );
        hall.hears("affectd/kitchen/status", OFFLINE);
        let topics = [discovery("kitchen"), index("kitchen")];
        assert_eq!(hall.decides(), deleted("affectd/kitchen", topics));
    }

    #[test]
    fn discovery_off_or_another_prefix_deletes_the_announcement() {
        let on = Board::of("mqtt://b?device=hall");
        let off = || Board::of("mqtt://b?device=hall&discovery=off");
        assert_eq!(off().finds(&on), [deletion(discovery("hall"))]);
        assert_eq!(off().finds(&off()), []);
        let mut other = Board::of("mqtt://b?device=hall&prefix=ha");
        assert_eq!(other.finds(&on), [deletion(discovery("hall"))]);
        assert_eq!(Board::of("mqtt://b?device=hall").finds(&on), []);
    }
}
