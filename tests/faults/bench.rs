//! affectd with its outputs and their readers, and the faults that hit them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::clip;
use super::clock::Clock;
use super::mosquitto::{Mosquitto, Reader, free_port, wait};
use super::namespaces::{self, Cable, mount_memory, unmount};
use super::plan::{Fault, Input, Plan, Reload};
use super::process::{Process, affectd};
use super::proxy::{Mode, Proxy};
use super::pty::Pty;
use super::received::{Lines, lines_of};

/// How often the readers read.
const TICK: Duration = Duration::from_millis(10);
/// Of five ticks, a limited process runs in one.
const LIMITED_TICKS: u32 = 5;
/// The folder of a seed holds a clip and the broker's messages.
const FOLDER_KIB: u32 = 256 << 10;
const DISK_KIB: u32 = 256;
const FIRST_PASSWORD: &str = "first";
/// Fewer than affectd has open, and enough for calls that wait for some of them.
const FEW_DESCRIPTORS: u64 = 8;
const CLOCK_STEP_S: i64 = 3600;

/// What this system permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Mounts and networks of its own.
    Namespaces,
    /// Mounts, but no networks: a proxy loses the packets.
    Mounts,
    /// Neither. No disk is full or read-only.
    None,
}

pub struct Bench<'a> {
    plan: &'a Plan,
    pub rights: Rights,
    // Dropped first, because the others end what it uses.
    pub affectd: Process,
    port: Option<Pty>,
    stdout: PipeReader,
    /// A second writer, to fill the pipe.
    filler: File,
    proxy: Option<Proxy>,
    mqtt: Reader,
    broker: Mosquitto,
    cable: Option<Cable>,
    clock: Option<Clock>,
    board_password: String,
    reads_serial: bool,
    reads_stdout: bool,
    peer_talks: bool,
    /// Something came from the port, so affectd has opened it. Until then, the kernel sends back what the peer says.
    port_is_open: bool,
    limited: bool,
    tick: u32,
    /// The limit of descriptors before the fault.
    descriptor_limit: u64,
    set_aside: usize,
    pub serial: Lines,
    /// Estimates that may be lost in an unplugged port without a count.
    pub lost_in_port: u64,
    pub stdout_lines: Lines,
    /// Sequence numbers, with those that arrived twice.
    pub mqtt_seqs: Vec<u64>,
    folder: TempDir,
}

impl<'a> Bench<'a> {
    /// Starts affectd with all outputs.
    pub fn start(plan: &'a Plan) -> Bench<'a> {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let has_mounts = namespaces::own_mounts().is_ok();
        if has_mounts {
            // A busy disk of this machine is not one of the planned faults.
            mount_memory(folder.path(), FOLDER_KIB, false);
        }
        fs::create_dir(&disk).unwrap();
        if has_mounts {
            mount_memory(&disk, DISK_KIB, false);
        }
        let cable = Cable::new().ok();
        let rights = match (has_mounts, &cable) {
            (false, _) => Rights::None,
            (true, None) => Rights::Mounts,
            (true, Some(_)) => Rights::Namespaces,
        };
        let network = Network::start(plan, folder.path(), cable.is_some());
        let clock = plan
            .has(|fault| matches!(fault, Fault::ClockForwards | Fault::ClockBackwards))
            .then(|| Clock::new(folder.path()));
        let link = folder.path().join("ttyUSB0");
        let port = Pty::plug_in(&link);
        let (stdout, writer) = std::io::pipe().unwrap();
        // SAFETY: fcntl with these commands accesses no memory.
        unsafe {
            assert!(libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) > 0);
            assert_eq!(libc::fcntl(stdout.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK), 0);
        }
        // Opened again, so that only this writer does not block.
        let mut options = File::options();
        let filler = options
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", writer.as_raw_fd()))
            .unwrap();
        let config = folder.path().join("affectd.toml");
        fs::write(&config, configuration(plan, folder.path(), &network.spec, None)).unwrap();
        let mut command = affectd();
        command.arg("run").arg("--config").arg(&config).stdout(writer);
        if plan.input != Input::Absent {
            let clip = folder.path().join("clip.mkv");
            clip::write(plan.input, plan.seed, &clip);
            command.args(["--realtime", "--input"]).arg(clip);
            for output in outputs(folder.path(), &network.spec, None) {
                command.args(["--output", &output]);
            }
        }
        if let Some(cable) = &cable {
            cable.apply(&mut command);
        }
        if let Some(clock) = &clock {
            clock.apply(&mut command);
        }
        let affectd = Process::start(command, &folder.path().join("log"));
        Bench {
            plan,
            rights,
            affectd,
            port: Some(port),
            stdout,
            filler,
            proxy: network.proxy,
            mqtt: network.reader,
            broker: network.broker,
            cable,
            clock,
            board_password: FIRST_PASSWORD.into(),
            reads_serial: true,
            reads_stdout: true,
            peer_talks: false,
            port_is_open: false,
            limited: false,
            tick: 0,
            descriptor_limit: 0,
            set_aside: 0,
            serial: Lines::default(),
            lost_in_port: 0,
            stdout_lines: Lines::default(),
            mqtt_seqs: Vec::new(),
            folder,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The estimates in the file that no fault hits.
    pub fn control(&self) -> Lines {
        lines_of(&self.path("control.jsonl"))
    }

    pub fn broker_log(&self) -> String {
        self.broker.log()
    }

    /// Lets all readers read until `until`.
    pub fn run_until(&mut self, until: Instant) {
        while Instant::now() < until {
            self.pump();
        }
    }

    /// Lets all readers read once, and waits for a moment.
    pub fn pump(&mut self) {
        if self.reads_serial
            && let Some(port) = &mut self.port
        {
            let bytes = port.drain();
            self.port_is_open |= !bytes.is_empty();
            self.serial.push(&bytes);
        }
        if self.peer_talks
            && self.port_is_open
            && let Some(port) = &self.port
        {
            port.offer(b"ping\nlogin incorrect\n\xff\x00health\n~\r\nwho are you");
        }
        if self.reads_stdout {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = self.stdout.read(&mut bytes) {
                self.stdout_lines.push(&bytes[..length]);
            }
        }
        while let Some(message) = self.mqtt.try_next() {
            if message.topic.ends_with("/estimate") {
                let estimate: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
                self.mqtt_seqs.extend(super::received::seq(&estimate));
            }
        }
        if self.limited {
            self.tick += 1;
            let signal = match self.tick % LIMITED_TICKS {
                0 => libc::SIGCONT,
                _ => libc::SIGSTOP,
            };
            self.affectd.signal(signal);
        }
        std::thread::sleep(TICK);
    }

    /// The newest estimate that each output has received, with the output's name.
    pub fn newest(&self) -> [(&'static str, u64); 4] {
        let disk = lines_of(&self.path("disk/affect.jsonl"));
        [
            ("stdout", self.stdout_lines.last()),
            ("serial", self.serial.last()),
            ("file", disk.last()),
            ("mqtt", self.mqtt_seqs.last().copied().unwrap_or_default()),
        ]
    }

    pub fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::BrokerKilled => self.broker.kill(),
            Fault::BrokerFrozen => self.broker.freeze(),
            Fault::BrokerUnreachable => match (&self.cable, &self.proxy) {
                (Some(cable), _) => cable.black_hole(),
                (None, proxy) => proxy.as_ref().expect("the plan needs it").set(Mode::Silent),
            },
            Fault::BrokerRefuses => self.set_broker_password("another"),
            Fault::BrokerSlow => self.proxy.as_ref().expect("the plan needs it").set(Mode::Slow),
            Fault::PasswordRotated => {
                let password = format!("{}-rotated", self.board_password);
                self.set_broker_password(&password);
                write_password(self.folder.path(), &password);
                self.board_password = password;
                self.affectd.signal(libc::SIGHUP);
            }
            Fault::SerialGone => {
                if let Some(port) = self.port.take() {
                    self.unplug(port);
                }
            }
            Fault::SerialStuck => {
                self.reads_serial = false;
                // Others may not open a port that affectd has opened. Then the port fills itself, which takes longer. JSON
                // permits the spaces before a line.
                if self.rights != Rights::None
                    && let Some(port) = &mut self.port
                {
                    port.fill();
                }
            }
            Fault::SerialTalkative => self.peer_talks = true,
            Fault::DiskFull => self.fill_disk(),
            Fault::DiskFullForNewFiles => {
                self.rotate();
                self.fill_disk();
            }
            Fault::DiskReadOnly => mount_memory(&self.path("disk"), DISK_KIB, true),
            Fault::FileRotated => self.rotate(),
            Fault::FileDeleted => {
                let (file, link) = (self.path("disk/affect.jsonl"), self.next_aside());
                // What was in it can still be read there.
                match fs::hard_link(&file, link) {
                    Ok(()) => fs::remove_file(file).unwrap(),
                    // It was rotated, and affectd could not make a new one yet.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => panic!("{}: {error}", file.display()),
                }
            }
            Fault::StdoutStuck => {
                self.reads_stdout = false;
                for length in [512, 1] {
                    while self.filler.write(&[b'\n'; 512][..length]).is_ok() {}
                }
            }
            Fault::ProcessStopped => {
                self.affectd.signal(libc::SIGSTOP);
            }
            Fault::ProcessorLimited => self.limited = true,
            Fault::DescriptorsExhausted => self.descriptor_limit = self.affectd.limit_descriptors(FEW_DESCRIPTORS),
            Fault::ClockForwards => self.clock.as_ref().expect("the plan needs it").step(CLOCK_STEP_S),
            Fault::ClockBackwards => self.clock.as_ref().expect("the plan needs it").step(-CLOCK_STEP_S),
            Fault::Reload(reload) => {
                let config = configuration(self.plan, self.folder.path(), &self.mqtt_spec(), Some(reload));
                fs::write(self.path("affectd.toml"), config).unwrap();
                self.affectd.signal(libc::SIGHUP);
            }
        }
    }

    pub fn end(&mut self, fault: Fault) {
        match fault {
            Fault::BrokerKilled => self.broker.restart(),
            Fault::BrokerFrozen => self.broker.thaw(),
            Fault::BrokerUnreachable => match (&self.cable, &self.proxy) {
                (Some(cable), _) => cable.connect(),
                (None, proxy) => proxy.as_ref().expect("the plan needs it").set(Mode::Forward),
            },
            Fault::BrokerRefuses => {
                let password = self.board_password.clone();
                self.set_broker_password(&password);
            }
            Fault::BrokerSlow => self.proxy.as_ref().expect("the plan needs it").set(Mode::Forward),
            Fault::SerialGone => {
                self.port = Some(Pty::plug_in(&self.path("ttyUSB0")));
                self.port_is_open = false;
            }
            Fault::SerialStuck => self.reads_serial = true,
            Fault::SerialTalkative => self.peer_talks = false,
            Fault::DiskFull | Fault::DiskFullForNewFiles => fs::remove_file(self.path("disk/filler")).unwrap(),
            Fault::DiskReadOnly => unmount(&self.path("disk")),
            Fault::StdoutStuck => self.reads_stdout = true,
            Fault::ProcessStopped => {
                self.affectd.signal(libc::SIGCONT);
            }
            Fault::ProcessorLimited => {
                self.limited = false;
                self.affectd.signal(libc::SIGCONT);
            }
            Fault::DescriptorsExhausted => {
                self.affectd.limit_descriptors(self.descriptor_limit);
            }
            Fault::PasswordRotated
            | Fault::FileRotated
            | Fault::FileDeleted
            | Fault::ClockForwards
            | Fault::ClockBackwards
            | Fault::Reload(_) => {}
        }
    }

    /// Ends the fault during which affectd has ended, as far as the readers need it to read the rest.
    pub fn end_after_exit(&mut self, fault: Fault) {
        self.limited = false;
        match fault {
            Fault::ProcessorLimited | Fault::DescriptorsExhausted | Fault::SerialGone => {}
            fault => self.end(fault),
        }
    }

    /// Unplugs the serial port, and waits until it is gone. A child process holds all descriptors of this process between fork and
    /// exec, so the port may stay open for a while. What affectd sends meanwhile is lost.
    fn unplug(&mut self, mut port: Pty) {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        // Others than root may not open a port that affectd has opened.
        let end = options.open(self.path("ttyUSB0")).ok();
        let before = self.control().last();
        self.serial.push(&port.drain());
        self.serial.break_off();
        drop(port);
        if let Some(end) = end {
            wait(|| is_hung_up(&end).then_some(()));
        }
        // One more is under way.
        self.lost_in_port += self.control().last() - before + 1;
    }

    /// The broker accepts only `password` from now on.
    fn set_broker_password(&mut self, password: &str) {
        write_users(self.folder.path(), password);
        self.broker.kill();
        self.broker.restart();
    }

    fn mqtt_spec(&self) -> String {
        fs::read_to_string(self.path("mqtt-spec")).unwrap()
    }

    fn fill_disk(&self) {
        let mut filler = File::create(self.path("disk/filler")).unwrap();
        for length in [4096, 1] {
            while filler.write(&[b' '; 4096][..length]).is_ok() {}
        }
    }

    fn rotate(&mut self) {
        let (file, aside) = (self.path("disk/affect.jsonl"), self.next_aside());
        fs::rename(file, aside).unwrap();
    }

    fn next_aside(&mut self) -> PathBuf {
        self.set_aside += 1;
        self.path(&format!("disk/affect.jsonl-aside-{}", self.set_aside))
    }

    /// Reads what is left in pipes and queues after affectd has ended, until so many different estimates have arrived by MQTT. On a busy
    /// machine, the broker and its reader need some time for what affectd has delivered.
    pub fn finish(&mut self, mqtt_estimates: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        self.pump();
        while self.mqtt_set().len() < mqtt_estimates && Instant::now() < deadline {
            self.pump();
        }
    }

    /// All sequence numbers that arrived by MQTT.
    pub fn mqtt_set(&self) -> BTreeSet<u64> {
        self.mqtt_seqs.iter().copied().collect()
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        // Its link is in the folder.
        self.port = None;
        if self.rights != Rights::None {
            // With all mounts in it.
            unmount(self.folder.path());
        }
    }
}

fn is_hung_up(port: &File) -> bool {
    let mut poll = libc::pollfd {
        fd: port.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: the pointer is to one live pollfd, and the count is one.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLHUP != 0 }
}

/// The broker, and the way to it.
struct Network {
    broker: Mosquitto,
    reader: Reader,
    proxy: Option<Proxy>,
    /// The output for affectd.
    spec: String,
}

impl Network {
    fn start(plan: &Plan, folder: &Path, has_cable: bool) -> Network {
        write_users(folder, FIRST_PASSWORD);
        write_password(folder, FIRST_PASSWORD);
        let host = match has_cable {
            true => namespaces::BROKER,
            false => "127.0.0.1",
        };
        let wants_proxy = plan.has(|fault| fault == Fault::BrokerSlow)
            || (!has_cable && plan.has(|fault| fault == Fault::BrokerUnreachable));
        let mut port = free_port();
        let mut settings = format!(
            "allow_anonymous false\npassword_file {0}/users\npersistence true\npersistence_location {0}/\n\
             queue_qos0_messages true\nmax_queued_messages 0",
            folder.display()
        );
        let local = free_port();
        match (wants_proxy, has_cable) {
            (false, true) => settings += &format!("\nlistener {port} {host}"),
            (false, false) => port = local,
            (true, _) => {}
        }
        let broker = Mosquitto::start(folder, local, &settings);
        let proxy = wants_proxy.then(|| Proxy::start(&format!("{host}:{port}"), local));
        let options = ["-u", "reader", "-P", "reader", "-c", "-i", "reader"];
        let reader = Reader::with(&broker, &["affectd/board/estimate"], &options);
        broker.save();
        // Its subscription survives a kill from now on.
        wait(|| folder.join("mosquitto.db").exists().then_some(()));
        let discovery = match plan.discovery {
            true => "on",
            false => "off",
        };
        let spec = format!(
            "mqtt://board@{host}:{port}?device=board&discovery={discovery}&password_file={}/password",
            folder.display()
        );
        fs::write(folder.join("mqtt-spec"), &spec).unwrap();
        Network {
            broker,
            reader,
            proxy,
            spec,
        }
    }
}

/// What the broker accepts: the reader's password, and that of the board.
fn write_users(folder: &Path, board: &str) {
    let users = folder.join("users");
    for (create, name, password) in [(Some("-c"), "board", board), (None, "reader", "reader")] {
        let hashed = Command::new("mosquitto_passwd")
            .arg("-b")
            .args(create)
            .arg(&users)
            .args([name, password])
            .status();
        assert!(hashed.unwrap().success());
    }
}

/// The password that affectd uses.
fn write_password(folder: &Path, password: &str) {
    let (new, path) = (folder.join("password.new"), folder.join("password"));
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .unwrap();
    file.write_all(password.as_bytes()).unwrap();
    fs::rename(new, path).unwrap();
}

fn outputs(folder: &Path, mqtt: &str, change: Option<Reload>) -> Vec<String> {
    let folder = folder.display();
    let baud = match change {
        Some(Reload::SerialBaud) => 230_400,
        _ => 921_600,
    };
    let spool = match change {
        Some(Reload::MqttSpool) => "&spool=20m",
        _ => "",
    };
    let mut outputs = vec![
        "stdout".into(),
        format!("serial:{folder}/ttyUSB0?baud={baud}"),
        format!("file:{folder}/control.jsonl"),
        format!("file:{folder}/disk/affect.jsonl"),
        format!("{mqtt}{spool}"),
    ];
    match change {
        Some(Reload::AddFile) => outputs.push(format!("file:{folder}/added.jsonl")),
        Some(Reload::UnusableOutput) => {
            outputs.push(format!("file:{folder}/added.jsonl"));
            outputs.push(format!("file:{folder}/no-such-folder/a"));
        }
        _ => {}
    }
    outputs
}

/// The configuration file before or after a change.
fn configuration(plan: &Plan, folder: &Path, mqtt: &str, change: Option<Reload>) -> String {
    let microphone = match change {
        Some(Reload::Microphone) => "hw:CARD=other",
        _ => "hw:CARD=none",
    };
    let rate_hz = match change {
        Some(Reload::Rate) if plan.rate_hz == 10.0 => "2.5".into(),
        Some(Reload::Rate) => "10".into(),
        Some(Reload::InvalidRate) => "3".into(),
        _ => plan.rate_hz.to_string(),
    };
    let smoothing_s = match change {
        Some(Reload::Smoothing) => 0.7,
        _ => 0.5,
    };
    let last = match change {
        Some(Reload::SyntaxError) => "[face\n",
        Some(Reload::UnknownKey) => "[face]\nrate = 5\n",
        _ => "",
    };
    format!(
        "output = {:?}\ncamera.device = \"/dev/video-none\"\nmicrophone.device = {microphone:?}\n\
         estimate.rate_hz = {rate_hz}\nestimate.smoothing_s = {smoothing_s}\n{last}",
        outputs(folder, mqtt, change)
    )
}
