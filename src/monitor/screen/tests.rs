use super::super::look::Colors;
use super::super::received::{Reading, Received};
use super::super::session::samples::session;
use super::*;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

const KEYS: &str = "q, Esc or Ctrl-C quits";
const UNICODE: Look = Look {
    glyphs: Glyphs::Unicode,
    colors: Colors::On,
};

fn drawn(width: u16, height: u16, session: &Session, look: Look) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, session, look, KEYS)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn a_usual_terminal_shows_everything() {
    insta::assert_snapshot!("usual", drawn(80, 24, &session(), UNICODE));
}

#[test]
fn a_large_terminal_shows_everything_larger() {
    insta::assert_snapshot!("large", drawn(120, 40, &session(), UNICODE));
}

#[test]
fn a_small_terminal_shows_the_plane_and_the_numbers() {
    insta::assert_snapshot!("small", drawn(40, 12, &session(), UNICODE));
}

#[test]
fn ascii_alone_shows_the_same() {
    let look = Look {
        glyphs: Glyphs::Ascii,
        colors: Colors::Off,
    };
    let screen = drawn(80, 24, &session(), look);
    assert!(screen.is_ascii(), "{screen}");
    insta::assert_snapshot!("ascii", screen);
}

#[test]
fn without_colors_dashes_tell_the_lines_apart() {
    let look = Look {
        colors: Colors::Off,
        ..UNICODE
    };
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &session(), look, KEYS)).unwrap();
    let cells = &terminal.backend().buffer().content;
    let is_plain = |color| color == Color::Reset;
    assert!(cells.iter().all(|cell| is_plain(cell.fg) && is_plain(cell.bg)));
    insta::assert_snapshot!("without_colors", terminal.backend().to_string());
}

#[test]
fn every_terminal_size_is_drawn_and_the_numbers_have_priority() {
    for (width, height) in [(1, 1), (3, 40), (16, 4), (39, 11), (37, 9), (200, 3), (500, 200)] {
        let screen = drawn(width, height, &session(), UNICODE);
        assert!(width < 16 || screen.contains("V -0.61"), "{width}x{height}\n{screen}");
    }
}

#[test]
fn a_resized_terminal_is_drawn_as_a_new_one() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    for (width, height) in [(80, 24), (40, 12), (120, 50), (5, 2), (80, 24)] {
        terminal.backend_mut().resize(width, height);
        terminal.draw(|frame| draw(frame, &session(), UNICODE, KEYS)).unwrap();
    }
    assert_eq!(terminal.backend().to_string(), drawn(80, 24, &session(), UNICODE));
}

#[test]
fn a_pause_is_shown() {
    let mut session = session();
    session.receive(Received::Estimate(Reading {
        seq: 301,
        t: 60.2,
        paused: true,
        ..Reading::default()
    }));
    let screen = drawn(80, 24, &session, UNICODE);
    assert!(screen.contains("paused: devices closed"), "{screen}");
    assert!(!screen.contains("no microphone"), "{screen}");
}

#[test]
fn estimates_that_have_stopped_are_told_with_the_time_since_the_last() {
    let mut session = session();
    let now = Instant::now();
    for (silence_s, text) in [
        (12, "no estimate for 12 s"),
        (300, "no estimate for 5 min"),
        (9000, "no estimate for 2 h"),
    ] {
        session.notice_silence(now + Duration::from_secs(silence_s));
        for (width, height) in [(80, 24), (40, 12), (22, 4)] {
            let screen = drawn(width, height, &session, UNICODE);
            assert!(screen.contains(text), "{screen}");
        }
    }
    session.receive(Received::Estimate(Reading {
        seq: 302,
        ..Reading::default()
    }));
    assert!(!drawn(80, 24, &session, UNICODE).contains("no estimate"));
}

#[test]
fn before_the_first_estimate_the_screen_says_why() {
    let mut session = Session::new("serial:/dev/ttyUSB0".into(), "check the cable, and baud= on both sides");
    session.receive(Received::Status("open".into()));
    session.receive(Received::Noise);
    session.receive(Received::CaughtUp);
    insta::assert_snapshot!("no_estimates", drawn(80, 24, &session, UNICODE));
}
