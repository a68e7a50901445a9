//! The valence–arousal plane with a trail.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::Block;
use ratatui::widgets::canvas::{Canvas, Context, Points};

use super::super::look::Look;
use super::super::session::{Session, affect};
use super::palette::{Palette, stroke};

/// The length of the trail in seconds. It has three shades.
const TRAIL_S: f64 = 12.0;

/// The quadrants, as the status page names them: two at the top, two at the bottom, each left and right.
const QUADRANTS: [[&str; 2]; 2] = [["tense, angry", "excited, happy"], ["sad, bored", "calm, content"]];
const SHORT_QUADRANTS: [[&str; 2]; 2] = [["tense", "excited"], ["sad", "calm"]];
/// The widths between the borders from which on the quadrants are named.
const MIN_WIDTH: u16 = 28;
const MIN_SHORT_WIDTH: u16 = 14;

pub fn draw(frame: &mut Frame, area: Rect, session: &Session, look: Look) {
    let palette = Palette(look.colors);
    let now = session.last.as_ref().map_or(0.0, |last| last.t);
    // The points whose age in seconds is in `from..to`.
    let points = |from: f64, to: f64| -> Vec<(f64, f64)> {
        let points = session.recent().filter(|m| (from..to).contains(&(now - m.t)));
        points
            .filter_map(|m| m.affect)
            .map(|affect| (affect.valence.into(), affect.arousal.into()))
            .collect()
    };
    let block = Block::bordered()
        .title_top(Line::from("arousal +1").centered())
        .title_bottom(Line::from("−1").centered());
    let inside = block.inner(area);
    let canvas = Canvas::default()
        .block(block)
        .marker(Marker::Braille)
        .x_bounds([-1.0, 1.0])
        .y_bounds([-1.0, 1.0])
        .paint(|context| {
            stroke(context, (-1.0, 0.0), (1.0, 0.0), palette.faint());
            stroke(context, (0.0, -1.0), (0.0, 1.0), palette.faint());
            context.layer();
            // The oldest first, so that newer points are drawn over them. The color of the terminal is legible on any background.
            for (from, to, color) in [
                (TRAIL_S / 6.0, TRAIL_S, palette.faint()),
                (f64::MIN, TRAIL_S / 6.0, Color::Reset),
            ] {
                let coords = points(from, to);
                context.draw(&Points { coords: &coords, color });
                context.layer();
            }
            labels(context, inside, palette);
            if let Some(affect) = session.last.as_ref().and_then(affect) {
                context.print(
                    affect.valence.into(),
                    affect.arousal.into(),
                    Span::styled("●", Style::new().fg(palette.newest())),
                );
            }
        });
    frame.render_widget(canvas, area);
}

fn labels(context: &mut Context, inside: Rect, palette: Palette) {
    let columns = f64::from(inside.width.max(2) - 1);
    let mut print = |text: &'static str, is_right: bool, y: f64| {
        let width = f64::from(u16::try_from(text.chars().count()).unwrap_or(u16::MAX));
        let x = match is_right {
            true => 1.0 - 2.0 * (width - 1.0) / columns,
            false => -1.0,
        };
        context.print(x, y, Span::styled(text, palette.faint()));
    };
    let quadrants = match inside.width {
        MIN_WIDTH.. => QUADRANTS,
        MIN_SHORT_WIDTH.. => SHORT_QUADRANTS,
        _ => [[""; 2]; 2],
    };
    for (names, y) in quadrants.into_iter().zip([1.0, -1.0]) {
        print(names[0], false, y);
        print(names[1], true, y);
    }
    print("−1", false, 0.0);
    print("valence +1", true, 0.0);
}
