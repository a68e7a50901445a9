//! The view in the terminal: the valence–arousal plane with a trail, the last minute, and a few lines of text.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::canvas::{Canvas, Context, Line as Stroke, Points};
use ratatui::widgets::{Block, Paragraph};

use crate::printable::printable;

use super::session::{SERIES_S, Session, affect};

const VALENCE: Color = Color::Cyan;
const AROUSAL: Color = Color::Yellow;
const AXES: Color = Color::DarkGray;
/// The length of the trail in seconds. It has three shades.
const TRAIL_S: f64 = 12.0;
/// A size in terminal cells.
struct Cells {
    width: u16,
    height: u16,
}

const TEXT: Cells = Cells { width: 22, height: 8 };
/// The plane is left out if it would be smaller.
const MIN_PLANE: Cells = Cells { width: 14, height: 6 };
/// The time series is left out if it would be smaller.
const MIN_SERIES: Cells = Cells { width: 20, height: 6 };

/// Draws what there is room for. The text has priority, then the plane, then the time series.
pub fn draw(frame: &mut Frame, session: &Session) {
    let area = frame.area();
    let text_width = TEXT.width.min(area.width);
    let plane_width = (area.width - text_width).min(area.height.saturating_mul(2));
    if plane_width < MIN_PLANE.width || area.height < MIN_PLANE.height {
        return text(frame, area, session);
    }
    let [left, right] = Layout::horizontal([Constraint::Length(plane_width), Constraint::Min(0)]).areas(area);
    plane(frame, left, session);
    if right.height < TEXT.height + MIN_SERIES.height || right.width < MIN_SERIES.width {
        return text(frame, right, session);
    }
    let [above, below] = Layout::vertical([Constraint::Min(0), Constraint::Length(TEXT.height)]).areas(right);
    series(frame, above, session);
    text(frame, below, session);
}

fn plane(frame: &mut Frame, area: Rect, session: &Session) {
    let now = session.last.as_ref().map_or(0.0, |last| last.t);
    // The points whose age in seconds is in `from..to`.
    let points = |from: f64, to: f64| -> Vec<(f64, f64)> {
        let points = session.recent().filter(|m| (from..to).contains(&(now - m.t)));
        points
            .filter_map(|m| m.affect)
            .map(|affect| (affect.valence.into(), affect.arousal.into()))
            .collect()
    };
    let canvas = Canvas::default()
        .block(Block::bordered().title("valence→arousal↑"))
        .marker(Marker::Braille)
        .x_bounds([-1.0, 1.0])
        .y_bounds([-1.0, 1.0])
        .paint(|context| {
            stroke(context, (-1.0, 0.0), (1.0, 0.0), AXES);
            stroke(context, (0.0, -1.0), (0.0, 1.0), AXES);
            context.layer();
            // The oldest first, so that newer points are drawn over them.
            for (from, to, color) in [
                (TRAIL_S / 2.0, TRAIL_S, Color::DarkGray),
                (TRAIL_S / 6.0, TRAIL_S / 2.0, Color::Gray),
                (f64::MIN, TRAIL_S / 6.0, Color::White),
            ] {
                let coords = points(from, to);
                context.draw(&Points { coords: &coords, color });
                context.layer();
            }
            if let Some(affect) = session.last.as_ref().and_then(affect) {
                context.print(
                    affect.valence.into(),
                    affect.arousal.into(),
                    Span::styled("●", Style::new().fg(Color::LightGreen)),
                );
            }
        });
    frame.render_widget(canvas, area);
}

fn series(frame: &mut Frame, area: Rect, session: &Session) {
    let now = session.last.as_ref().map_or(0.0, |last| last.t);
    let title = Line::from(vec![
        Span::styled(" valence ", VALENCE),
        Span::styled("arousal", AROUSAL),
        Span::raw(", last 60 s "),
    ]);
    let canvas = Canvas::default()
        .block(Block::bordered().title(title))
        .marker(Marker::Braille)
        .x_bounds([-SERIES_S, 0.0])
        .y_bounds([-1.0, 1.0])
        .paint(|context| {
            stroke(context, (-SERIES_S, 0.0), (0.0, 0.0), AXES);
            context.layer();
            for (before, after) in session.recent().zip(session.recent().skip(1)) {
                // No line where the affect is unknown.
                let (Some(from), Some(to)) = (before.affect, after.affect) else {
                    continue;
                };
                let (x1, x2) = (before.t - now, after.t - now);
                stroke(context, (x1, from.arousal.into()), (x2, to.arousal.into()), AROUSAL);
                stroke(context, (x1, from.valence.into()), (x2, to.valence.into()), VALENCE);
            }
        });
    frame.render_widget(canvas, area);
}

fn stroke(context: &mut Context, from: (f64, f64), to: (f64, f64), color: Color) {
    context.draw(&Stroke {
        x1: from.0,
        y1: from.1,
        x2: to.0,
        y2: to.1,
        color,
    });
}

/// The most important line comes first, because a small terminal shows only the first lines.
fn text(frame: &mut Frame, area: Rect, session: &Session) {
    let last = session.last.clone().unwrap_or_default();
    let number = |value: Option<f32>| value.map_or("  –".into(), |v| format!("{v:+.2}"));
    let face = last
        .face
        .as_ref()
        .map_or("no face".into(), |face| format!("face {}", face.id));
    let voice = match &last.voice {
        Some(voice) if voice.active => "voice",
        Some(_) => "silence",
        None => "no microphone",
    };
    let latency = last.latency_ms.map_or(String::new(), |ms| format!("  {ms} ms"));
    let counts = format!("missed {}  invalid {}", session.missed, session.invalid_lines);
    let has_losses = session.missed + session.invalid_lines > 0;
    let (health, has_problem) = match &session.health {
        None => ("health –".into(), false),
        Some(health) => match &health.problem {
            Some(problem) => (printable(problem).into_owned(), true),
            None => {
                let degrees = health.temperature_c.map_or(String::new(), |c| format!("  {c:.0} °C"));
                (format!("healthy{degrees}"), false)
            }
        },
    };
    let alarm = |is_on: bool| {
        if is_on {
            Style::new().fg(Color::LightRed)
        } else {
            Style::new()
        }
    };
    let lines = vec![
        Line::from(vec![
            Span::styled(format!("V {}", number(last.valence)), VALENCE),
            Span::styled(format!("  A {}", number(last.arousal)), AROUSAL),
        ]),
        Line::raw(format!(
            "confidence {}",
            last.confidence.map_or("–".into(), |c| format!("{c:.2}"))
        )),
        match last.paused {
            true => Line::raw("paused: devices closed"),
            false => Line::raw(format!("{face}, {voice}")),
        },
        Line::styled(counts, alarm(has_losses)),
        Line::styled(health, alarm(has_problem)),
        Line::raw(format!("#{}{latency}", last.seq)),
        Line::raw(printable(&session.status)),
        Line::styled(printable(&session.source), AXES),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use super::super::received::{Reading, Received};
    use super::super::session::samples::session;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(width: u16, height: u16, session: &Session) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, session)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_small_terminal_shows_the_plane_and_the_numbers() {
        let screen = drawn(40, 12, &session());
        for text in [
            "valence→arousal↑",
            "●",
            "V -0.61  A +0.52",
            "confidence 0.81",
            "face 3, voice",
            "missed 1  invalid 1",
            "healthy  48 °C",
        ] {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
    }

    #[test]
    fn a_usual_terminal_also_shows_the_last_minute() {
        let screen = drawn(80, 24, &session());
        for text in ["last 60 s", "connected", "#300  41 ms", "●"] {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
    }

    #[test]
    fn every_terminal_size_is_drawn_and_the_numbers_have_priority() {
        for (width, height) in [(1, 1), (3, 40), (16, 4), (39, 11), (200, 3), (500, 200)] {
            let screen = drawn(width, height, &session());
            assert!(width < 16 || screen.contains("V -0.61"), "{width}x{height}\n{screen}");
        }
    }

    #[test]
    fn a_resized_terminal_is_drawn_as_a_new_one() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        for (width, height) in [(80, 24), (40, 12), (120, 50), (5, 2), (80, 24)] {
            terminal.backend_mut().resize(width, height);
            terminal.draw(|frame| draw(frame, &session())).unwrap();
        }
        assert_eq!(terminal.backend().to_string(), drawn(80, 24, &session()));
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
        let screen = drawn(80, 24, &session);
        assert!(screen.contains("paused: devices closed"), "{screen}");
        assert!(!screen.contains("no microphone"), "{screen}");
    }

    #[test]
    fn before_the_first_message_the_source_is_shown() {
        let screen = drawn(60, 12, &Session::new("serial:/dev/ttyUSB0".into(), ""));
        assert!(
            screen.contains("waiting") && screen.contains("serial:/dev/ttyUSB0"),
            "{screen}"
        );
    }
}
