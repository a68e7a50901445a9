//! `affectd monitor` in a real terminal.

use crate::file;
use crate::monitor::lines;
use crate::mosquitto::wait;
use crate::terminal::Terminal;

#[test]
fn an_error_in_a_terminal_is_printed_on_the_normal_screen() {
    let terminal = Terminal::start("exec $affectd monitor serial:/dev/ttyNOTHING", &[]);
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(3));
    let error = seen.find("/dev/ttyNOTHING: no such port").expect(&seen);
    let normal_screen = seen.find("\u{1b}[?1049l");
    assert!(normal_screen.is_none_or(|at| at < error), "{seen:?}");
}

/// What the monitor draws in a terminal of 80 columns and 24 rows until `wanted` is there.
fn drawn(arguments: &str, environment: &[(&str, &str)], wanted: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lines.json", lines(1, 300).as_bytes());
    let shell = format!(
        "stty cols 80 rows 24; exec $affectd monitor {} {arguments}",
        path.display()
    );
    let mut terminal = Terminal::start(&shell, environment);
    terminal.wait_for(wanted);
    terminal.press(b"q");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    seen
}

#[test]
fn a_terminal_without_utf_8_gets_ascii() {
    let is_braille = |c: char| ('\u{2800}'..='\u{28ff}').contains(&c);
    assert!(drawn("", &[], "quits").contains(is_braille));
    for (arguments, environment) in [
        ("", [("LC_ALL", "C")]),
        ("", [("TERM", "linux")]),
        ("--ascii", [("LC_ALL", "C.UTF-8")]),
    ] {
        let seen = drawn(arguments, &environment, "quits");
        assert!(seen.is_ascii() && seen.contains("a arousal"), "{environment:?} {seen}");
    }
}

#[test]
fn no_color_is_respected() {
    let is_colored = |seen: &str| seen.contains("\u{1b}[38;5;");
    assert!(is_colored(&drawn("", &[], "quits")));
    let seen = drawn("", &[("NO_COLOR", "1")], "quits");
    assert!(!is_colored(&seen) && seen.contains("dashed"), "{seen:?}");
}

#[test]
fn a_terminal_that_cannot_place_the_cursor_gets_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lines.json", lines(1, 3).as_bytes());
    let mut terminal = Terminal::start(
        &format!("exec $affectd monitor {}", path.display()),
        &[("TERM", "dumb")],
    );
    terminal.wait_for("waits for more");
    terminal.press(b"\x03");
    let (_, seen) = terminal.end();
    assert!(!seen.contains("\u{1b}[") && seen.contains("0.6 s  valence"), "{seen:?}");
}

#[test]
fn in_a_terminal_the_monitor_survives_resizing_and_restores_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lines.json", lines(1, 300).as_bytes());
    // Changes the size of the terminal while the monitor runs in the foreground.
    let shell = format!(
        "stty cols 40 rows 12; (sleep 1; stty cols 90 rows 30; sleep 1; stty cols 20 rows 4; sleep 1; stty cols 100 rows 40) < /dev/tty & \
         exec $affectd monitor {}",
        path.display()
    );
    let mut terminal = Terminal::start(&shell, &[]);
    // The small screen shows the numbers. Only larger ones show the time series. Only the largest has a row 40.
    for wanted in ["+0.50", "now", "\u{1b}[40;"] {
        terminal.wait_for(wanted);
    }
    terminal.press(b"q");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    // The normal screen and the cursor are back.
    assert!(seen.contains("\u{1b}[?1049l") && seen.contains("\u{1b}[?25h"));
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lines.json", lines(1, 300).as_bytes());
    let folder = folder.path().display();
    for (signal, name) in [(libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP")] {
        let shell = format!(
            "stty cols 80 rows 24; stty -g > {folder}/before; \
             sh -c 'echo $$ > {folder}/id; exec $affectd monitor {}'; echo code $?; stty -g > {folder}/after",
            path.display()
        );
        let mut terminal = Terminal::start(&shell, &[]);
        terminal.wait_for("quits");
        let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let id = read("id").trim().parse().unwrap();
        // SAFETY: the call accesses no memory. The process is alive: nothing else has ended it.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
        let (_, seen) = terminal.end();
        assert_eq!(read("before"), read("after"), "{name}");
        let (screen, after) = seen.rsplit_once("\u{1b}[?1049l").expect(&seen);
        assert!(screen.contains("quits") && after.contains("code 0"), "{name} {seen:?}");
    }
}

#[test]
fn a_terminal_that_is_closed_costs_no_plot() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lines.json", lines(1, 300).as_bytes());
    let folder = folder.path();
    // The shell outlives the terminal, to tell the exit code.
    let shell = format!(
        "trap : HUP; stty cols 80 rows 24; $affectd monitor {} --save {folder}/plot.svg; echo code $? > {folder}/ended; mv {folder}/ended {folder}/code",
        path.display(),
        folder = folder.display()
    );
    let mut terminal = Terminal::start(&shell, &[]);
    terminal.wait_for("quits");
    terminal.close();
    let code = wait(|| std::fs::read_to_string(folder.join("code")).ok());
    let plot = std::fs::read_to_string(folder.join("plot.svg")).unwrap();
    assert!(plot.trim_end().ends_with("</svg>"), "{plot:?}");
    assert_eq!(code, "code 0\n");
}

#[test]
fn the_log_has_colors_only_where_the_terminal_shows_them() {
    let log = |environment: &[(&str, &str)]| {
        let run = "$affectd run --input models/demo.mkv > /dev/null; echo ended";
        let mut terminal = Terminal::start(run, environment);
        terminal.wait_for("ended");
        terminal.end().1
    };
    assert!(log(&[]).contains("\u{1b}["));
    for environment in [("TERM", "dumb"), ("NO_COLOR", "1")] {
        let seen = log(&[environment]);
        assert!(
            seen.contains("INFO") && !seen.contains('\u{1b}'),
            "{environment:?} {seen:?}"
        );
    }
}
