//! The status page: what it serves, whom it serves, and that no client disturbs the estimates.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::json_schema::Schema;
use super::mosquitto::{free_port, wait};
use super::programs::{Daemon, Pieces};
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

#[test]
fn metrics_count_what_happens_in_both_formats() {
    let pieces = Pieces::new();
    let mut page = Page::start(&["--camera", &pieces.camera(), "--microphone", &pieces.microphone()]);
    page.daemon
        .until(|estimate| estimate["modalities"] == json!(["face", "voice"]));
    let answer = page.get("/metrics");
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_str()),
        (200, media_type)
    );
    let metrics = samples(&answer.body);
    for name in [
        "affectd_frames_total",
        "affectd_frames_with_face_total",
        "affectd_audio_blocks_total",
        "affectd_estimates_total",
        "affectd_stage_busy_seconds_total{stage=\"face\"}",
        "affectd_latency_seconds_count",
        "affectd_confidence",
    ] {
        assert!(metrics[name] > 0.0, "{name}");
    }
    assert_eq!(
        metrics["affectd_source_state{source=\"camera\",state=\"running\"}"],
        1.0
    );
    assert_eq!(metrics["affectd_source_state{source=\"camera\",state=\"absent\"}"], 0.0);
    assert_eq!(metrics["affectd_output_running{output=\"stdout\"}"], 1.0);
    let buckets: Vec<f64> = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("affectd_latency_seconds_bucket"))
        .map(|(_, count)| *count)
        .collect();
    let largest = buckets.iter().copied().fold(0.0, f64::max);
    assert_eq!(largest, metrics["affectd_latency_seconds_bucket{le=\"+Inf\"}"]);
    assert_eq!(largest, metrics["affectd_latency_seconds_count"]);
    page.daemon.until(|_| true);
    wait(|| {
        (samples(&page.get("/metrics").body)["affectd_frames_total"] > metrics["affectd_frames_total"]).then_some(())
    });
    let plain = page.ask("GET /metrics", &["host: localhost", "accept: text/plain"], "");
    assert_eq!(
        plain.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(
        plain
            .body
            .contains("\n# TYPE affectd_frames_total counter\naffectd_frames_total "),
        "{}",
        plain.body
    );
    page.daemon.stop();
}

#[test]
fn readiness_says_why_not_and_health_only_that_affectd_lives() {
    let mut page = Page::without_devices(&[]);
    assert_eq!(
        (page.get("/healthz").status, page.get("/healthz").body.as_str()),
        (200, "ok\n")
    );
    page.daemon.until(|_| true);
    let answer = wait(|| Some(page.get("/readyz")).filter(|answer| answer.body.contains("absent")));
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.starts_with("not ready: camera absent: /dev/video-none: "),
        "{}",
        answer.body
    );
    assert_eq!(page.command("pause").1, json!({"ok": "pause"}));
    let paused = wait(|| Some(page.get("/readyz")).filter(|answer| answer.body.contains("paused")));
    assert_eq!(paused.status, 503);
    page.daemon.stop();
    let pieces = Pieces::new();
    let mut page = Page::start(&["--camera", &pieces.camera(), "--microphone", "hw:CARD=none"]);
    page.daemon.until(|estimate| estimate["face"].is_object());
    let ready = wait(|| Some(page.get("/readyz")).filter(|answer| answer.body.contains("absent")));
    assert_eq!(ready.status, 200);
    assert!(ready.body.starts_with("ready; microphone absent: "), "{}", ready.body);
    page.daemon.stop();
}

#[test]
fn the_page_is_one_file_that_may_run_only_itself() {
    let page = Page::without_devices(&[]);
    let answer = page.get("/");
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_str()),
        (200, "text/html; charset=utf-8")
    );
    assert!(answer.body.ends_with("</html>\n") && answer.body.len() <= 100_000);
    let policy = &answer.headers["content-security-policy"];
    for rule in [
        "default-src 'none'",
        "script-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    for path in ["/", "/events/x", "/healthz", "/metrics", "/../etc/passwd"] {
        let answer = page.get(path);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["cross-origin-resource-policy"], "same-origin");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    assert_eq!(page.get("/../etc/passwd").status, 404);
    assert_eq!(page.ask("POST /metrics", &["host: localhost"], "").status, 405);
    assert_eq!(page.ask("OPTIONS /command", &["host: localhost"], "").status, 405);
    page.daemon.stop();
}

#[test]
fn a_stream_greets_with_the_history_and_goes_on_with_estimates_and_health() {
    let pieces = Pieces::new();
    let mut page = Page::start(&["--camera", &pieces.camera(), "--microphone", &pieces.microphone()]);
    page.daemon
        .until(|estimate| estimate["t"].as_f64() > Some(2.5) && estimate["face"].is_object());
    let mut events = page.events(&[]);
    assert_eq!(events.status, 200);
    let hello = events.next("hello");
    assert!(
        hello["version"]
            .as_str()
            .unwrap()
            .starts_with(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!((&hello["preview"], &hello["rate_hz"]), (&json!("outline"), &json!(5.0)));
    assert!(hello["model"].as_str().unwrap().len() > 3, "{hello}");
    assert!(hello["history"].as_array().unwrap().len() >= 2, "{hello}");
    let health = events.next("health");
    assert_eq!(
        health["outputs"][0],
        json!({"spec": "stdout", "queued": 0, "capacity": 16, "running": true})
    );
    let estimate = loop {
        let estimate = events.next("estimate");
        if estimate["outline"].is_object() {
            break estimate;
        }
    };
    let landmarks: Vec<[f64; 2]> = serde_json::from_value(estimate["outline"]["landmarks"].clone()).unwrap();
    let [x, y, w, h]: [f64; 4] = serde_json::from_value(estimate["face"]["box"].clone()).unwrap();
    // Right eye, left eye and nose are in the box, and the person's right eye is on the left.
    for [px, py] in &landmarks[..3] {
        assert!((x..x + w).contains(px) && (y..y + h).contains(py), "{estimate}");
    }
    assert!(landmarks[0][0] < landmarks[1][0], "{estimate}");
    let mut line = estimate.clone();
    line.as_object_mut().unwrap().remove("outline");
    Schema::read("estimate").validate(&line).unwrap();
    page.daemon.until(|_| true);
    page.daemon.stop();
}

#[test]
fn without_a_preview_the_place_of_the_face_is_not_sent() {
    let pieces = Pieces::new();
    let mut command = affectd();
    command.env("AFFECTD_STATUS_PREVIEW", "off");
    let arguments = [
        "--status",
        "127.0.0.1:0",
        "--microphone",
        "off",
        "--camera",
        &pieces.camera(),
    ];
    let mut page = Page::of(Daemon::with(command, &arguments));
    let mut events = page.events(&[]);
    assert_eq!(events.next("hello")["preview"], "off");
    page.daemon.until(|estimate| estimate["face"].is_object());
    let estimate = loop {
        let estimate = events.next("estimate");
        if estimate["face"].is_object() {
            break estimate;
        }
    };
    assert_eq!((estimate["face"].get("box"), estimate.get("outline")), (None, None));
    let image = page.get("/image");
    assert_eq!(
        (image.status, image.body.as_str()),
        (404, "there is no image: status.preview does not allow it\n")
    );
    page.daemon.stop();
}

#[test]
fn an_image_is_shown_only_if_allowed_and_never_during_a_pause() {
    let pieces = Pieces::new();
    let mut command = affectd();
    command.env("AFFECTD_STATUS_PREVIEW", "image");
    let camera = pieces.camera();
    let arguments = ["--status", "127.0.0.1:0", "--microphone", "off", "--camera", &camera];
    let mut page = Page::of(Daemon::with(command, &arguments));
    page.daemon.until(|estimate| estimate["face"].is_object());
    // The first question starts it.
    let image = wait(|| {
        let stream = send(page.connect(), "GET /image", &["host: localhost"], "");
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).unwrap();
        let mut body = Vec::new();
        reader.read_to_end(&mut body).unwrap();
        (status == 200).then_some((headers["content-type"].clone(), body))
    });
    assert_eq!(image.0, "image/bmp");
    // 320 × 240 pixels, a palette and two headers.
    assert_eq!((&image.1[..2], image.1.len()), (&b"BM"[..], 320 * 240 + 1024 + 54));
    // A client that asks before the pause and reads after it gets only the bytes that were already sent.
    let slow = wait(|| {
        let stream = send(connect_from(9, page.address), "GET /image", &["host: localhost"], "");
        let mut status = [0; 12];
        let peeked = stream.peek(&mut status).unwrap();
        status[..peeked].ends_with(b" 200").then_some(stream)
    });
    assert_eq!(page.command("pause").0, 200);
    let mut rest = Vec::new();
    // The connection may also be reset.
    let _ = (&slow).read_to_end(&mut rest);
    assert!(rest.len() < 320 * 240, "{}", rest.len());
    assert_eq!(page.get("/image").status, 503);
    page.daemon.stop();

    let open = affectd()
        .args(["run", "--status", "0.0.0.0:0"])
        .env("AFFECTD_STATUS_PREVIEW", "image")
        .output()
        .unwrap();
    assert_eq!(open.status.code(), Some(2));
    let log = String::from_utf8(open.stderr).unwrap();
    assert!(
        log.contains("or allow it with status.unencrypted_image = true"),
        "{log}"
    );
}

#[test]
fn commands_are_those_of_a_serial_line() {
    let pieces = Pieces::new();
    let mut page = Page::start(&["--camera", &pieces.camera(), "--microphone", "off"]);
    page.daemon.until(|estimate| estimate["face"].is_object());
    for (command, answer) in [
        ("ping", json!({"ok": "pong"})),
        ("baseline", json!({"ok": "baseline"})),
        ("pause\n", json!({"ok": "pause"})),
        ("pause", json!({"ok": "pause"})),
        ("resume", json!({"ok": "resume"})),
        ("rate 1", json!({"ok": {"rate": 1.0}})),
    ] {
        assert_eq!(page.command(command), (200, answer), "{command}");
        page.daemon.until(|_| true);
    }
    let mut events = page.events(&[]);
    events.next("hello");
    events.next("estimate");
    let times = [(); 2].map(|()| events.next("estimate")["t"].as_f64().unwrap());
    assert!((0.9..1.1).contains(&(times[1] - times[0])), "{times:?}");
    let (status, answer) = page.command("fly");
    assert_eq!(status, 409);
    assert!(
        answer["error"].as_str().unwrap().starts_with("unknown command \"fly\""),
        "{answer}"
    );
    assert_eq!(page.command("").0, 400);
    assert_eq!(page.command("{\"ok\":1}").0, 400);
    assert_eq!(page.command(&"x".repeat(65)).0, 413);
    assert_eq!(page.get("/command").status, 405);
    page.daemon.stop();
}

#[test]
fn other_sites_can_neither_read_nor_steer() {
    let page = Page::without_devices(&[]);
    let own = format!("host: {}", page.address);
    let status = |request: &str, lines: &[&str]| page.ask(request, lines, "ping").status;
    let origin = format!("origin: http://{}", page.address);
    assert_eq!(
        status("POST /command", &[&own, &origin, "sec-fetch-site: same-origin"]),
        200
    );
    for lines in [
        [own.as_str(), "origin: http://evil.example"],
        [&own, "origin: null"],
        [&own, "sec-fetch-site: cross-site"],
    ] {
        assert_eq!(status("POST /command", &lines), 403, "{lines:?}");
        for path in ["/metrics", "/events", "/readyz", "/healthz"] {
            assert_eq!(status(&format!("GET {path}"), &lines), 403, "{lines:?}");
        }
    }
    let rebound = format!("host: evil.example:{}", page.address.port());
    for path in ["/", "/metrics", "/events", "/healthz"] {
        assert_eq!(status(&format!("GET {path}"), &[&rebound]), 421);
        assert_eq!(status(&format!("GET {path}"), &[]), 421);
    }
    assert_eq!(status("POST /command", &[&rebound]), 421);
    page.daemon.stop();
}

#[test]
fn a_token_opens_everything_but_the_empty_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = Page::with_token(&folder);
    assert_eq!((page.get("/").status, page.get("/healthz").status), (200, 200));
    let status = |request: &str, token: &str| {
        let authorization = format!("authorization: Bearer {token}");
        page.ask(request, &["host: localhost", &authorization], "ping").status
    };
    for path in ["/metrics", "/readyz", "/events", "/nowhere"] {
        let without = page.get(path);
        assert_eq!(without.status, 401, "{path}");
        assert_eq!(without.headers["www-authenticate"], "Bearer realm=\"affectd\"");
    }
    for wrong in ["", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcde"] {
        assert_eq!(status("GET /metrics", wrong), 401, "{wrong}");
        assert_eq!(status("POST /command", wrong), 401, "{wrong}");
    }
    assert_eq!(
        (status("GET /metrics", TOKEN), status("POST /command", TOKEN)),
        (200, 200)
    );
    let mut events = page.events(&[&format!("authorization: bearer {TOKEN}")]);
    events.next("hello");
    let log = page.daemon.stop();
    assert!(log.contains("with a token") && !log.contains(TOKEN), "{log}");
}

#[test]
fn an_address_that_others_reach_demands_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let run = |listen: &str, token: Option<&str>| {
        let mut command = affectd();
        command.args([
            "run",
            "--status",
            listen,
            "--camera",
            "/dev/video-none",
            "--microphone",
            "off",
        ]);
        if let Some(token) = token {
            command.env("AFFECTD_STATUS_TOKEN", token);
        }
        let output = command.output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), log.lines().last().unwrap_or_default().to_owned())
    };
    let (code, error) = run("0.0.0.0:0", None);
    assert_eq!(code, Some(2));
    insta::assert_snapshot!(error, @"affectd: status.listen = 0.0.0.0:0: other machines reach this address, so it needs a token: write one into a file (openssl rand -hex 16) and set status.token to its path, or listen on 127.0.0.1");
    let short = file(&folder, "short", b"hunter2\n").display().to_string();
    let (code, error) = run("127.0.0.1:0", Some(&short));
    assert_eq!(code, Some(2));
    assert!(
        error.contains("must hold 16 to 256") && !error.contains("hunter2"),
        "{error}"
    );
    let (code, error) = run("127.0.0.1:0", Some(TOKEN));
    assert_eq!(code, Some(2));
    assert!(
        error.contains("not the token itself") && !error.contains(TOKEN),
        "{error}"
    );
    let (code, error) = run("127.0.0.1", None);
    assert_eq!(code, Some(2));
    insta::assert_snapshot!(error, @"affectd: status.listen = 127.0.0.1 (flag --status): must be an address with a port, for example 127.0.0.1:8787, or off");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, error) = run(&address, None);
    assert_eq!(code, Some(5));
    assert_eq!(
        error,
        format!("affectd: status.listen = {address}: another program uses this port: choose another one")
    );
}

#[test]
fn a_reload_changes_the_token_and_closes_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let token = file(&folder, "token", TOKEN.as_bytes()).display().to_string();
    let devices = "camera.device = \"/dev/video-none\"\nmicrophone.device = \"off\"\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap();
    drop(listener);
    let write = |status: &str| file(&folder, "affectd.toml", format!("{devices}{status}\n").as_bytes());
    let path = write(&format!("status.listen = \"{listen}\"\nstatus.token = {token:?}"));
    let mut page = Page::of(Daemon::start(&["--config", path.to_str().unwrap()]));
    let status = |page: &Page, token: &str| {
        let authorization = format!("authorization: Bearer {token}");
        page.ask("GET /metrics", &["host: localhost", &authorization], "")
            .status
    };
    let mut events = page.events(&[&format!("authorization: Bearer {TOKEN}")]);
    events.next("hello");
    assert_eq!(status(&page, TOKEN), 200);
    // The same file with another token.
    fs::write(folder.path().join("token"), "fedcba9876543210").unwrap();
    page.daemon.until(|_| true);
    page.daemon.signal(libc::SIGHUP);
    page.daemon.until_logged("reload: the new configuration is active");
    assert_eq!((status(&page, TOKEN), status(&page, "fedcba9876543210")), (401, 200));
    // The stream that the old token opened ends.
    assert!(events.lines.by_ref().any(|line| line.is_err()) || events.lines.next().is_none());
    write("status.listen = \"0.0.0.0:0\"");
    page.daemon.signal(libc::SIGHUP);
    page.daemon
        .until_logged("reload rejected, the old configuration stays active: status.listen = 0.0.0.0:0");
    assert_eq!(status(&page, "fedcba9876543210"), 200);
    write("");
    page.daemon.signal(libc::SIGHUP);
    page.daemon
        .until_logged_times("reload: the new configuration is active", 2);
    assert!(TcpStream::connect(listen).is_err());
    page.daemon.stop();
}

#[test]
fn a_broker_that_is_away_is_an_outage() {
    let output = format!("mqtt://127.0.0.1:{}?device=desk", free_port());
    let page = Page::without_devices(&["--output", "stdout", "--output", &output]);
    wait(|| (samples(&page_metrics(&page))["affectd_output_outages_total"] == 1.0).then_some(()));
    page.daemon.stop();
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

/// The numbers of the estimates have no gap while `work` goes on.
fn without_a_loss(page: &mut Page, work: impl FnOnce(&Page)) {
    let first = page.daemon.until(|_| true)["seq"].as_u64().unwrap();
    work(page);
    let answer = samples(&page_metrics(page));
    let made = answer["affectd_estimates_total"];
    for expected in first + 1.. {
        let estimate = page.daemon.until(|_| true);
        assert_eq!(estimate["seq"].as_u64(), Some(expected));
        if expected as f64 >= made {
            break;
        }
    }
    assert_eq!(
        (
            answer["affectd_estimates_dropped_total"],
            answer["affectd_estimates_skipped_total"]
        ),
        (0.0, 0.0)
    );
}

/// The metrics, as a client elsewhere gets them.
fn page_metrics(page: &Page) -> String {
    let stream = connect_from(99, page.address);
    Answer::read(send(stream, "GET /metrics", &["host: localhost"], "")).body
}

#[test]
fn slow_and_hostile_clients_keep_neither_the_estimates_nor_other_clients_waiting() {
    let mut page = Page::without_devices(&[]);
    without_a_loss(&mut page, |page| {
        let mut held = Vec::new();
        for n in 0..200 {
            let mut stream = page.connect();
            let begun = match n % 4 {
                0 => "",
                1 => "GET /metrics HTTP/1.1\r\nhost: loc",
                2 => "POST /command HTTP/1.1\r\nhost: localhost\r\ncontent-length: 64\r\n\r\n",
                _ => "\x16\x03\x01\x02\x00\x01",
            };
            // Those beyond the limit are closed at once.
            let _ = stream.write_all(begun.as_bytes());
            held.push(stream);
        }
        // Another client is served while they hold all that one address gets.
        assert!(page_metrics(page).ends_with("# EOF\n"));
        // In the end, all of them are closed.
        for mut stream in held {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(
                rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"),
                "{}",
                String::from_utf8_lossy(&rest)
            );
        }
    });
    page.daemon.stop();
}

#[test]
fn requests_that_are_too_large_are_refused() {
    let page = Page::without_devices(&[]);
    let long = format!("x: {}", "y".repeat(100_000));
    let many: Vec<String> = (0..200).map(|n| format!("x{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for lines in [&[long.as_str()][..], &many] {
        let mut stream = page.connect();
        let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n\r\n", lines.join("\r\n"));
        // The connection may be closed before all is sent.
        let _ = stream.write_all(head.as_bytes());
        let mut reader = BufReader::new(stream);
        assert!(read_head(&mut reader).is_none_or(|(status, _)| status == 431));
    }
    let mut stream = page.connect();
    let head = "POST /command HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    // Without end, until the page has had enough.
    while stream.write_all(chunk.as_bytes()).is_ok() {}
    assert_eq!(page.get("/healthz").status, 200);
    page.daemon.stop();
}

#[test]
fn streams_that_nobody_reads_are_closed_for_those_who_do() {
    let mut command = affectd();
    command.env("AFFECTD_ESTIMATE_RATE_HZ", "10");
    let arguments = [
        "--status",
        "127.0.0.1:0",
        "--camera",
        "/dev/video-none",
        "--microphone",
        "off",
    ];
    let mut page = Page::of(Daemon::with(command, &arguments));
    let address = page.address;
    let opened = |from| {
        let stream = send(connect_from(from, address), "GET /events", &["host: localhost"], "");
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (status, _) = read_head(&mut reader).unwrap();
        (status, stream)
    };
    let unread: Vec<(u16, TcpStream)> = (0..12).map(|n| opened(2 + n)).collect();
    assert!(unread.iter().all(|(status, _)| *status == 200));
    assert_eq!(opened(50).0, 503);
    // The estimates go on all the time, until a stream becomes free.
    let is_new_second = |estimate: &Value| estimate["seq"].as_u64().unwrap().is_multiple_of(10);
    page.daemon
        .until(|estimate| is_new_second(estimate) && opened(50).0 == 200);
    drop(unread);
    page.daemon.stop();
}
