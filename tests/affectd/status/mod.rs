//! The status page: what it serves, whom it serves, and that no client disturbs the estimates. Here are the client and what the
//! tests have in common.

mod access;
mod content;
mod limits;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::programs::Daemon;
use super::{affectd, file};

const TOKEN: &str = "0123456789abcdef";
/// Far longer than any answer takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A daemon with a page on a free port of this machine.
struct Page {
    daemon: Daemon,
    address: SocketAddr,
}

impl Page {
    fn start(arguments: &[&str]) -> Page {
        Page::of(Daemon::start(&[&["--status", "127.0.0.1:0"], arguments].concat()))
    }

    /// A page without devices.
    fn without_devices(arguments: &[&str]) -> Page {
        let devices = ["--camera", "/dev/video-none", "--microphone", "hw:CARD=none"];
        Page::start(&[&devices, arguments].concat())
    }

    fn with_token(folder: &tempfile::TempDir) -> Page {
        let path = file(folder, "token", format!("{TOKEN}\n").as_bytes());
        let mut command = affectd();
        command.env("AFFECTD_STATUS_TOKEN", path);
        Page::of_command(command)
    }

    /// Of a program without a camera, and with the microphone off.
    fn of_command(command: Command) -> Page {
        let arguments = [
            "--status",
            "127.0.0.1:0",
            "--camera",
            "/dev/video-none",
            "--microphone",
            "off",
        ];
        Page::of(Daemon::with(command, &arguments))
    }

    fn of(mut daemon: Daemon) -> Page {
        daemon.until_logged("status page: http://");
        let log = daemon.log();
        let address = log.split("status page: http://").nth(1).unwrap();
        let address = address.split('/').next().unwrap().parse().unwrap();
        Page { daemon, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// The answer to a request with these lines after the first.
    fn ask(&self, request: &str, lines: &[&str], body: &str) -> Answer {
        Answer::read(send(self.connect(), request, lines, body))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &["host: localhost"], "")
    }

    fn command(&self, command: &str) -> (u16, Value) {
        let answer = self.ask("POST /command", &["host: localhost"], command);
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    fn events(&self, lines: &[&str]) -> Events {
        Events::read(send(
            self.connect(),
            "GET /events",
            &[&["host: localhost"], lines].concat(),
            "",
        ))
    }
}

fn send(mut stream: TcpStream, request: &str, lines: &[&str], body: &str) -> TcpStream {
    let mut text = format!("{request} HTTP/1.1\r\n");
    for line in lines {
        text += &format!("{line}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn read(stream: TcpStream) -> Answer {
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).unwrap();
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        Answer { status, headers, body }
    }
}

/// `None` if the connection ends before.
fn read_head(reader: &mut impl BufRead) -> Option<(u16, BTreeMap<String, String>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|length| *length > 0)?;
    let status = first.split(' ').nth(1)?.parse().ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => return Some((status, headers)),
        };
    }
}

/// An open stream of events.
struct Events {
    status: u16,
    lines: std::io::Lines<BufReader<TcpStream>>,
}

impl Events {
    fn read(stream: TcpStream) -> Events {
        let mut reader = BufReader::new(stream);
        let (status, _) = read_head(&mut reader).unwrap_or_default();
        Events {
            status,
            lines: reader.lines(),
        }
    }

    /// The next event of this name.
    fn next(&mut self, name: &str) -> Value {
        let wanted = format!("event: {name}");
        while self.lines.next().expect("the stream goes on").unwrap() != wanted {}
        let data = self.lines.next().unwrap().unwrap();
        serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
    }
}

/// The samples of an OpenMetrics text, by name and labels. Panics if the text breaks a rule of the format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines: Vec<&str> = text.strip_suffix("# EOF\n").expect("an end").lines().collect();
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(
                ["HELP", "TYPE", "UNIT"].contains(&words[0]) && words.len() == 3,
                "{line}"
            );
            match words[0] {
                "TYPE" => assert_eq!(types.insert(words[1].to_owned(), words[2].to_owned()), None, "{line}"),
                "UNIT" => assert!(words[1].ends_with(&format!("_{}", words[2])), "{line}"),
                _ => {}
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let base = name.split('{').next().unwrap();
        let family = types.iter().find(|(family, _)| {
            let suffix = base.strip_prefix(family.as_str());
            suffix.is_some_and(|suffix| ["", "_total", "_bucket", "_count", "_sum"].contains(&suffix))
        });
        let (_, kind) = family.unwrap_or_else(|| panic!("no TYPE before {line}"));
        assert!(base.starts_with("affectd_"), "{line}");
        assert_eq!(kind == "counter", base.ends_with("_total"), "{line}");
        let value = value.parse().unwrap_or_else(|_| panic!("no number in {line}"));
        assert_eq!(samples.insert(name.to_owned(), value), None, "{line}");
    }
    samples
}

/// A connection from another address of this machine.
fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
    socket.bind(&from.into()).unwrap();
    // A reader that takes little.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// The metrics, as a client elsewhere gets them.
fn page_metrics(page: &Page) -> String {
    let stream = connect_from(99, page.address);
    Answer::read(send(stream, "GET /metrics", &["host: localhost"], "")).body
}
