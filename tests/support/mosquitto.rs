//! A real broker and readers that share no code with affectd: Debian's mosquitto and mosquitto_sub.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};

/// Far longer than any step takes, so that a test that hangs ends.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A port that no program uses.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A broker. It ends when this is dropped.
pub struct Mosquitto {
    pub port: u16,
    config: PathBuf,
    process: Option<Child>,
}

impl Mosquitto {
    /// Listens on `port` of this machine only. `settings` are lines of mosquitto.conf; `folder` is the test's own.
    pub fn start(folder: &Path, port: u16, settings: &str) -> Mosquitto {
        let config = folder.join(format!("mosquitto-{port}.conf"));
        // Without this line a broker started by root would change to a user who cannot read the test's folder.
        fs::write(&config, format!("user root\nlistener {port} 127.0.0.1\n{settings}\n")).unwrap();
        let mut broker = Mosquitto {
            port,
            config,
            process: None,
        };
        broker.restart();
        broker
    }

    /// A broker without passwords.
    pub fn without_passwords(folder: &Path) -> Mosquitto {
        Mosquitto::start(folder, free_port(), "allow_anonymous true")
    }

    /// A broker of any kind that somebody else has started on this machine, without passwords.
    pub fn running(port: u16) -> Mosquitto {
        Mosquitto {
            port,
            config: PathBuf::new(),
            process: None,
        }
    }

    /// A broker that survives a kill: it keeps the subscriptions of readers with `-c -i NAME` and the messages for them.
    /// Messages that are missing then were lost by affectd. Call [`save`](Mosquitto::save) once the reader is connected.
    pub fn persistent(folder: &Path, port: u16) -> Mosquitto {
        let settings = format!(
            "allow_anonymous true\npersistence true\npersistence_location {}/\nqueue_qos0_messages true\nmax_queued_messages 0",
            folder.display()
        );
        Mosquitto::start(folder, port, &settings)
    }

    /// Starts the broker on the same port with the same settings, and waits until it listens.
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

    /// Kills the broker, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Makes the broker write its state to disk.
    pub fn save(&self) {
        self.signal(libc::SIGUSR1);
    }

    /// Stops the process but leaves its connections open. The kernel still accepts what is sent to it.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Continues a frozen process.
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the broker runs").id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    fn signal(&self, signal: libc::c_int) {
        let id = libc::pid_t::try_from(self.process_id()).expect("a process id");
        // SAFETY: the call accesses no memory. The child has not been waited for, so its id belongs to no other process.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Publishes with `mosquitto_pub`.
    pub fn publish(&self, arguments: &[&str]) {
        let port = self.port.to_string();
        let mut process = program("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port])
            .args(arguments)
            .spawn()
            .unwrap_or_else(|e| missing("mosquitto_pub", "mosquitto-clients", &e));
        let done = wait(|| process.try_wait().unwrap());
        assert!(done.success(), "{arguments:?}");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A message that a reader received.
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
    /// Retained messages, which arrive with the subscription.
    first: RefCell<VecDeque<Message>>,
}

impl Reader {
    /// Reads `topics` from a broker without passwords.
    pub fn of(broker: &Mosquitto, topics: &[&str]) -> Reader {
        Reader::with(broker, topics, &[])
    }

    /// Reads `topics` with further options of `mosquitto_sub`.
    pub fn with(broker: &Mosquitto, topics: &[&str], options: &[&str]) -> Reader {
        const READY: &str = "test/ready";
        broker.publish(&[&["-t", READY, "-r", "-m", "ready"], options_to_publish(options)].concat());
        let mut command = program("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-F", "%r %t %p"]);
        // Its retained message arrives once all topics are subscribed.
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
        let (to, messages) = unbounded();
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
        self.next_before(Instant::now() + TIMEOUT)
    }

    fn next_before(&self, deadline: Instant) -> Message {
        if let Some(message) = self.first.borrow_mut().pop_front() {
            return message;
        }
        self.messages
            .recv_deadline(deadline)
            .unwrap_or_else(|e| panic!("no message arrived ({e})"))
    }

    /// All messages up to and including the first for which `wanted` is true.
    pub fn until(&self, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let deadline = Instant::now() + TIMEOUT;
        let mut messages = Vec::new();
        loop {
            let message = self.next_before(deadline);
            let last = wanted(&message);
            messages.push(message);
            if last {
                return messages;
            }
        }
    }

    /// The retained messages that arrived with the subscription.
    pub fn retained(&self) -> Vec<Message> {
        self.first
            .borrow()
            .iter()
            .filter(|message| message.retained)
            .cloned()
            .collect()
    }

    /// A message that has already arrived, if any.
    pub fn try_next(&self) -> Option<Message> {
        self.messages.try_recv().ok()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The options for `mosquitto_pub`: user, password and certificates, without the session of the subscriber.
fn options_to_publish<'a>(options: &'a [&'a str]) -> &'a [&'a str] {
    let session = options.iter().position(|o| *o == "-c").unwrap_or(options.len());
    &options[..session]
}

/// Calls `look` until it returns something.
pub fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < until,
            "the condition did not become true within {TIMEOUT:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Debian installs daemons in /usr/sbin, which is not in the PATH of ordinary users.
fn program(name: &str) -> Command {
    let sbin = Path::new("/usr/sbin").join(name);
    Command::new(if sbin.exists() { sbin } else { name.into() })
}

fn missing(name: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("{name} cannot be started ({error}): sudo apt-get install {package}")
}
