//! Clips that can be read only once: standard input, named pipes, and files on a web server.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::matroska::make_clip;
use super::{Replay, affectd, demo, file};

/// The values of each estimate; the times of processing differ.
fn values(replay: &Replay) -> Vec<String> {
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    let values = |line: &serde_json::Value| {
        format!(
            "{} {} {} {}",
            line["t"], line["valence"], line["arousal"], line["voice"]
        )
    };
    replay.lines.iter().map(values).collect()
}

fn last_line(replay: &Replay) -> &str {
    replay.log.lines().last().unwrap_or_default()
}

#[test]
fn standard_input_and_a_named_pipe_give_the_estimates_of_the_file() {
    let expected = values(&Replay::of(&demo()));
    assert!(expected.len() > 30);
    let output = affectd()
        .args(["run", "--input", "-"])
        .stdin(File::open(demo()).unwrap())
        .output()
        .unwrap();
    assert_eq!(values(&Replay::from(output)), expected);

    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let run = affectd()
        .args(["run", "--input"])
        .arg(&pipe)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Waits until affectd reads.
    fs::write(&pipe, fs::read(demo()).unwrap()).unwrap();
    assert_eq!(values(&Replay::from(run.wait_with_output().unwrap())), expected);
}

#[test]
fn other_formats_come_through_standard_input_too() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("demo.mp4");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-t", "2", "-i"])
        .arg(demo())
        .args(["-c:v", "mpeg4", "-c:a", "aac"])
        .arg(&clip)
        .status();
    assert!(made.unwrap().success());
    let from_file = Replay::of(&clip);
    let output = affectd()
        .args(["run", "--input", "-"])
        .stdin(File::open(&clip).unwrap())
        .output();
    assert_eq!(values(&Replay::from(output.unwrap())), values(&from_file));
}

/// Answers one request with `status` and `body`, and announces `length` bytes.
fn answer(mut client: TcpStream, status: &str, length: usize, body: &[u8]) {
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",);
    // ffmpeg may close the connection before it has read everything.
    let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(body));
}

/// The port of a web server that gives every request this answer.
fn serve(status: &'static str, body: Vec<u8>) -> u16 {
    serve_part(status, body.len(), body)
}

/// The same, but the answer announces `length` bytes.
fn serve_part(status: &'static str, length: usize, body: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            answer(client.unwrap(), status, length, &body);
        }
    });
    port
}

#[test]
fn a_file_on_a_web_server_is_a_clip() {
    let port = serve("200 OK", fs::read(demo()).unwrap());
    let replay = Replay::of(Path::new(&format!("http://user:secret@127.0.0.1:{port}/demo.mkv")));
    assert_eq!(values(&replay), values(&Replay::of(&demo())));
    assert!(!replay.log.contains("secret"), "{}", replay.log);

    let port = serve("404 Not Found", Vec::new());
    let replay = Replay::of(Path::new(&format!("http://127.0.0.1:{port}/demo.mkv")));
    assert_eq!(replay.code, Some(3));
    let line = last_line(&replay);
    assert!(
        line.starts_with(&format!(
            "affectd: http://127.0.0.1:{port}/demo.mkv: the program ended (exit status: "
        )) && line.ends_with("): check the address, and that its server runs"),
        "{line}"
    );
}

#[test]
fn a_download_that_is_cut_off_is_an_error() {
    let whole = fs::read(demo()).unwrap();
    let port = serve_part("200 OK", whole.len(), whole[..whole.len() / 2].to_vec());
    let replay = Replay::of(Path::new(&format!("http://127.0.0.1:{port}/demo.mkv")));
    assert_eq!((replay.code, replay.lines.len()), (Some(3), 0), "{}", replay.log);
    assert!(last_line(&replay).ends_with("): check the address, and that its server runs"));
}

#[test]
fn a_clip_that_was_sent_names_no_files_of_this_computer() {
    let folder = tempfile::tempdir().unwrap();
    let playlist = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        demo().display()
    );
    let list = folder.path().join("list.m3u8");
    fs::write(&list, playlist).unwrap();
    let sent = affectd()
        .args(["run", "--input", "-"])
        .stdin(File::open(&list).unwrap())
        .output();
    let replay = Replay::from(sent.unwrap());
    assert_eq!((replay.code, replay.lines.len()), (Some(3), 0), "{}", replay.log);
}

#[test]
fn streams_without_an_end_or_without_a_beginning_are_explained() {
    let replay = Replay::of(Path::new("rtsp://user:secret@camera.local/stream"));
    assert_eq!(replay.code, Some(3));
    assert_eq!(
        last_line(&replay),
        "affectd: rtsp://user:…@camera.local/stream: is a live stream, which has no end: give the address as --camera, and as \
         --microphone for its sound"
    );
    let empty = affectd().args(["run", "--input", "-"]).stdin(Stdio::null()).output();
    let replay = Replay::from(empty.unwrap());
    assert_eq!(replay.code, Some(3));
    assert_eq!(
        last_line(&replay),
        "affectd: standard input: is empty: record or copy the clip again"
    );
    let output = affectd()
        .args(["run", "--input", "-"])
        .env("TMPDIR", "/nonexistent")
        .stdin(File::open(demo()).unwrap())
        .output();
    assert_eq!(
        last_line(&Replay::from(output.unwrap())),
        "affectd: standard input: cannot be copied to a temporary file (No such file or directory (os error 2)): set TMPDIR to a \
         folder with more room"
    );
}

#[test]
fn a_stop_ends_the_wait_for_a_clip() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut run = affectd()
        .args(["run", "--input"])
        .arg(&pipe)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(run.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("reads it to its end first"), "{line}");
    let id = libc::pid_t::try_from(run.id()).unwrap();
    // SAFETY: kill accesses no memory, and the child has not been waited for.
    unsafe { libc::kill(id, libc::SIGTERM) };
    let since = Instant::now();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    // The rest of the log is empty: no estimate, no error.
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(since.elapsed() < Duration::from_secs(6), "it did not end by itself");
}

#[test]
fn channels_that_cancel_each_other_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let tone = |n: usize| (8000.0 * (n as f32 * 0.2).sin()) as i16;
    let opposite = super::matroska::TestAudio {
        rate_hz: 16_000,
        channels: 2,
        samples: (0..48_000).flat_map(|n| [tone(n), -tone(n)]).collect(),
    };
    let clip = make_clip(None, Some(&opposite));
    let replay = Replay::of(&file(&folder, "opposite.mkv", &clip));
    assert_eq!(replay.code, Some(0), "{}", replay.log);
    let level = replay.lines.last().unwrap()["voice"]["level_db"].as_f64().unwrap();
    assert!((level + 15.3).abs() < 0.3, "{level} dB");
    assert!(
        replay
            .log
            .contains("the channels cancel each other out; from now on only channel 1 is heard"),
        "{}",
        replay.log
    );
}
