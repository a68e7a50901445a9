//! A real broker, and readers that share no code with ours: Debian's mosquitto and mosquitto_sub.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far longer than anything takes: a test that hangs must end.
const AT_MOST: Duration = Duration::from_secs(120);

/// A port that nobody has.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A broker, which ends with the test.
pub struct Mosquitto {
    pub port: u16,
    config: PathBuf,
    process: Option<Child>,
}

impl Mosquitto {
    /// Listens on `port` of this machine only. `settings` are lines of mosquitto.conf; `folder` is the test's own.
    pub fn start(folder: &Path, port: u16, settings: &str) -> Mosquitto {
        let config = folder.join(format!("mosquitto-{port}.conf"));
        // Started by root it would become another user, who may not read the test's folder.
        fs::write(&config, format!("user root\nlistener {port} 127.0.0.1\n{settings}\n")).unwrap();
        let mut broker = Mosquitto {
            port,
            config,
            process: None,
        };
        broker.restart();
        broker
    }

    /// As nobody would have it but a test: everybody may do anything.
    pub fn open_to_all(folder: &Path) -> Mosquitto {
        Mosquitto::start(folder, free_port(), "allow_anonymous true")
    }

    /// Keeps over a kill what a reader that says `-c -i NAME` has subscribed to, and what came for it meanwhile: what is then
    /// missing was lost by us. It must [`save`](Mosquitto::save) once the reader is there.
    pub fn lasting(folder: &Path, port: u16) -> Mosquitto {
        let settings = format!(
            "allow_anonymous true\npersistence true\npersistence_location {}/\nqueue_qos0_messages true\nmax_queued_messages 0",
            folder.display()
        );
        Mosquitto::start(folder, port, &settings)
    }

    /// Starts it again, on the same port with the same settings, and waits until it listens.
    pub fn restart(&mut self) {
        let log = fs::File::create(self.config.with_extension("log")).unwrap();
        let mut process = program("mosquitto")
            .arg("-c")
            .arg(&self.config)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| missing("mosquitto", "mosquitto", &e));
        let port = self.port;
        wait(|| {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("mosquitto ended ({status}): {}", self.log());
            }
            TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
        });
        self.process = Some(process);
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Has it write down what it must know after a kill.
    pub fn save(&self) {
        self.signal("USR1");
    }

    /// Frozen, with all connections open: the kernel goes on taking what is sent.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let id = self.process_id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Publishes as somebody else.
    pub fn publish(&self, arguments: &[&str]) {
        let port = self.port.to_string();
        let done = program("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port])
            .args(arguments)
            .status()
            .unwrap_or_else(|e| missing("mosquitto_pub", "mosquitto-clients", &e));
        assert!(done.success(), "{arguments:?}");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a reader got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub retained: bool,
    pub topic: String,
    pub payload: String,
}

/// `mosquitto_sub`, subscribed.
pub struct Reader {
    process: Child,
    messages: Receiver<Message>,
    /// What was retained, and came with the subscription.
    first: RefCell<VecDeque<Message>>,
}

impl Reader {
    /// Reads `topics` from a broker that is open to all.
    pub fn of(broker: &Mosquitto, topics: &[&str]) -> Reader {
        Reader::with(broker, topics, &[])
    }

    /// The same with more options.
    pub fn with(broker: &Mosquitto, topics: &[&str], options: &[&str]) -> Reader {
        const READY: &str = "test/ready";
        broker.publish(&[&["-t", READY, "-r", "-m", "ready"], options_to_publish(options)].concat());
        let mut command = program("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-F", "%r %t %p"]);
        // What is retained there comes once all are subscribed.
        for topic in topics.iter().chain(&[READY]) {
            command.args(["-t", topic]);
        }
        let mut process = command
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| missing("mosquitto_sub", "mosquitto-clients", &e));
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (to, messages) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut parts = line.splitn(3, ' ');
                let mut part = || parts.next().unwrap_or_default().to_string();
                let message = Message {
                    retained: part() == "1",
                    topic: part(),
                    payload: part(),
                };
                if to.send(message).is_err() {
                    break;
                }
            }
        });
        let reader = Reader {
            process,
            messages,
            first: RefCell::default(),
        };
        let mut first = VecDeque::from(reader.until(|message| message.topic == READY));
        first.pop_back();
        reader.first.replace(first);
        reader
    }

    /// The next message.
    pub fn next(&self) -> Message {
        if let Some(message) = self.first.borrow_mut().pop_front() {
            return message;
        }
        self.messages
            .recv_timeout(AT_MOST)
            .unwrap_or_else(|e| panic!("no message came ({e})"))
    }

    /// All up to and with the first that is wanted.
    pub fn until(&self, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.next();
            let last = wanted(&message);
            messages.push(message);
            if last {
                return messages;
            }
        }
    }

    /// A message that has come, without waiting for one.
    pub fn already(&self) -> Option<Message> {
        self.messages.try_recv().ok()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A publisher needs user, password and certificates as the subscriber does, but none of its session.
fn options_to_publish<'a>(options: &'a [&'a str]) -> &'a [&'a str] {
    let session = options.iter().position(|o| *o == "-c").unwrap_or(options.len());
    &options[..session]
}

/// What `look` finds, once it finds something.
pub fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + AT_MOST;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Debian puts daemons where ordinary users do not look.
fn program(name: &str) -> Command {
    let sbin = Path::new("/usr/sbin").join(name);
    Command::new(if sbin.exists() { sbin } else { name.into() })
}

fn missing(name: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("{name} cannot be started ({error}): sudo apt-get install {package}")
}
