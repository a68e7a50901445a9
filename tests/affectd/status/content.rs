//! What the page, its streams and its metrics say.

use std::io::{BufReader, Read};

use serde_json::json;

use super::{Page, connect_from, page_metrics, read_head, samples, send};
use crate::affectd;
use crate::json_schema::Schema;
use crate::mosquitto::{free_port, wait};
use crate::programs::{Daemon, Pieces};

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
    // The weight decides, not the name alone.
    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.3, text/plain;q=0.5";
    let weighted = page.ask("GET /metrics", &["host: localhost", accept], "");
    assert_eq!(weighted.headers["content-type"], plain.headers["content-type"]);
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
fn a_broker_that_is_away_is_an_outage() {
    let output = format!("mqtt://127.0.0.1:{}?device=desk", free_port());
    let page = Page::without_devices(&["--output", "stdout", "--output", &output]);
    wait(|| (samples(&page_metrics(&page))["affectd_output_outages_total"] == 1.0).then_some(()));
    page.daemon.stop();
}
