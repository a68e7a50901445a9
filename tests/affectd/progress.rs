//! Long work shows its progress on a terminal, and only there.

use std::fs;

use crate::terminal::Terminal;
use crate::{affectd, demo};

#[test]
fn a_replay_shows_its_progress_if_the_estimates_go_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let shell = format!(
        "exec $affectd run --input {} --realtime --output file:{}",
        demo().display(),
        folder.path().join("estimates.json").display()
    );
    let mut terminal = Terminal::start(&shell, &[]);
    terminal.wait_for(" left, 0:0");
    terminal.press(b"\x03");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(
        seen.contains("\rreplay ") && seen.contains("of the clip at "),
        "{seen:?}"
    );
    // The line is removed before the next line of the log.
    let last = seen.rsplit("\rreplay ").next().unwrap();
    let (covered, log) = last.split_once('[').expect(&seen);
    assert!(
        covered.ends_with("  \r") || covered.ends_with("\u{1b}"),
        "{covered:?}[{log:?}"
    );
}

#[test]
fn logs_and_pipes_have_no_progress() {
    let output = affectd().args(["run", "--input"]).arg(demo()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && !log.contains("replay ") && !log.contains('\r'),
        "{log:?}"
    );
}

#[test]
fn the_bench_shows_its_progress() {
    let terminal = Terminal::start("exec $affectd bench >/dev/null", &[]);
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("\rgraph ") && seen.contains(" left"), "{seen:?}");
    assert!(seen.ends_with(" \r"), "{seen:?}");
}

#[test]
fn a_recording_shows_its_level_and_how_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mkv");
    // As loud as noise can be, at the speed of a microphone: 16 bits at 16 kHz.
    let noise = "command:while :; do head -c 3200 /dev/urandom; sleep .1; done";
    let shell = format!(
        "exec $affectd record {} --i-have-consent --camera off --microphone '{noise}'",
        clip.display()
    );
    let mut terminal = Terminal::start(&shell, &[]);
    terminal.wait_for("Ctrl-C stops");
    terminal.wait_for("dB");
    terminal.press(b"\x03");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("\rrecording 0:0") && seen.contains("[####"), "{seen:?}");
    assert!(fs::metadata(clip).unwrap().len() > 1000);
}
