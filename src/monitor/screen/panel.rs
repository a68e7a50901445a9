//! The newest estimate and the state of the device as text, and the expressions as bars.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::face::EXPRESSIONS;
use crate::printable::printable;

use super::super::session::Session;
use super::palette::Palette;

/// The width of a bar's name and its number.
const NAME: usize = 10;
const NUMBER: usize = 5;
/// The longest bar.
const MAX_BAR: usize = 30;

/// The most important line comes first, because a small terminal shows only the first lines.
pub fn text(frame: &mut Frame, area: Rect, session: &Session, palette: Palette) {
    let last = session.last.clone().unwrap_or_default();
    let number = |value: Option<f32>| value.map_or("  –".into(), |v| format!("{v:+.2}"));
    let face = last
        .face
        .as_ref()
        .map_or("no face".into(), |face| format!("face {}", face.id));
    let voice = match &last.voice {
        Some(voice) => {
            let heard = if voice.active { "voice" } else { "silence" };
            let level = voice.level_db.map_or(String::new(), |db| format!(" {db:.0} dB"));
            format!("{heard}{level}")
        }
        None => "no microphone".into(),
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
    let alarm = |is_on: bool| if is_on { palette.alarm() } else { Style::new() };
    let lines = vec![
        Line::from(vec![
            Span::styled(format!("V {}", number(last.valence)), palette.valence()),
            Span::styled(format!("  A {}", number(last.arousal)), palette.arousal()),
        ]),
        match session.silent_for() {
            Some(silence) => Line::styled(format!("no estimate for {}", rough(silence)), palette.alarm()),
            None => Line::raw(format!(
                "confidence {}",
                last.confidence.map_or("–".into(), |c| format!("{c:.2}"))
            )),
        },
        match last.paused {
            true => Line::raw("paused: devices closed"),
            false => Line::raw(format!("{face}, {voice}")),
        },
        Line::styled(counts, alarm(has_losses)),
        Line::styled(health, alarm(has_problem)),
        Line::raw(format!("#{}{latency}", last.seq)),
        Line::raw(printable(&session.status)),
        Line::styled(printable(&session.source), palette.faint()),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

/// A time in the unit that suits it.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// A bar for each expression.
pub fn bars(frame: &mut Frame, area: Rect, session: &Session, palette: Palette) {
    let shown = session.last.as_ref().and_then(|last| last.expression);
    let width = usize::from(area.width).saturating_sub(NAME + NUMBER).min(MAX_BAR);
    let bar = |(k, name): (usize, &str)| {
        let probability = shown.map(|shown| shown.0[k]);
        let filled = cells(probability.unwrap_or_default(), width);
        let number = probability.map_or("–".into(), |p| format!("{p:.2}"));
        Line::from(vec![
            Span::raw(format!("{name:NAME$}")),
            Span::styled("█".repeat(filled), palette.newest()),
            Span::styled("·".repeat(width - filled), palette.faint()),
            Span::raw(format!("{number:>NUMBER$}")),
        ])
    };
    let lines: Vec<Line> = EXPRESSIONS.into_iter().enumerate().map(bar).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// How many of `width` cells a probability fills.
fn cells(probability: f32, width: usize) -> usize {
    (1..=width)
        .take_while(|cell| probability * width as f32 >= *cell as f32 - 0.5)
        .count()
}
