//! Slow and hostile clients.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::{Answer, Page, connect_from, page_metrics, read_head, samples, send};
use crate::affectd;
use crate::mosquitto::wait;

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
            // Those beyond the limit may ask for little, and push each other out.
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
                rest.is_empty() || rest.starts_with(b"HTTP/1.1 4") || rest.starts_with(b"HTTP/1.1 503"),
                "{}",
                String::from_utf8_lossy(&rest)
            );
        }
    });
    page.daemon.stop();
}

#[test]
fn health_is_answered_while_all_connections_are_taken() {
    let page = Page::without_devices(&[]);
    // A request that takes long: its body does not come.
    let hold = |from| {
        let mut stream = connect_from(from, page.address);
        let begun = "POST /command HTTP/1.1\r\nhost: localhost\r\ncontent-length: 64\r\n\r\n";
        // One that was pushed out may be closed already.
        let _ = stream.write_all(begun.as_bytes());
        stream
    };
    let get = |path| {
        let stream = connect_from(99, page.address);
        Answer::read(send(stream, &format!("GET {path}"), &["host: localhost"], ""))
    };
    let is_full = || {
        let answer = get("/metrics");
        answer.status == 503 && answer.body.starts_with("too many connections: close some")
    };
    // They end after some time, so it is tried until they were there before and after the answers.
    let (live, ready) = wait(|| {
        let _held: Vec<TcpStream> = (0..48).map(|n| hold(2 + n / 16)).collect();
        // Some who hold the slots that are left for health, and send nothing.
        let _silent: Vec<TcpStream> = (0..20).map(|_| connect_from(5, page.address)).collect();
        let before = is_full();
        let answers = (get("/healthz"), get("/readyz"));
        (before && is_full()).then_some(answers)
    });
    assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with("not ready: "), "{}", ready.body);
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
    let mut page = Page::of_command(command);
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
