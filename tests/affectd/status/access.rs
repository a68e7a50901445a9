//! Commands, and who may read and send them.

use std::fs;
use std::net::TcpStream;

use serde_json::json;

use super::{Page, TOKEN};
use crate::programs::{Daemon, Pieces};
use crate::{affectd, file};

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
        // Browsers always name a host, checks of health may not.
        let unnamed = if path == "/healthz" { 200 } else { 421 };
        assert_eq!(status(&format!("GET {path}"), &[]), unnamed);
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
