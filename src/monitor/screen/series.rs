//! Valence and arousal over the last minute.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::Block;
use ratatui::widgets::canvas::{Canvas, Context};

use super::super::look::{Colors, Glyphs, Look};
use super::super::session::{Affect, Moment, SERIES_S, Session};
use super::palette::{Palette, stroke};

/// The length of a dash, and of the gap after it, in columns.
const DASH: f64 = 2.0;

pub fn draw(frame: &mut Frame, area: Rect, session: &Session, look: Look) {
    let palette = Palette(look.colors);
    let (valence, arousal) = match (look.glyphs, look.colors) {
        (Glyphs::Ascii, _) => (" v valence ", "a arousal "),
        (Glyphs::Unicode, Colors::Off) => (" V valence, solid ", " A arousal, dashed "),
        (Glyphs::Unicode, Colors::On) => (" V valence ", "A arousal "),
    };
    let title = Line::from(vec![
        Span::styled(valence, palette.valence()),
        Span::styled(arousal, palette.arousal()),
    ]);
    let block = Block::bordered()
        .title_top(title)
        .title_bottom(Line::from(format!("−{SERIES_S} s")))
        .title_bottom(Line::from("now").right_aligned());
    let dash_s = DASH * SERIES_S / f64::from(block.inner(area).width.max(1));
    let canvas = Canvas::default()
        .block(block)
        .marker(Marker::Braille)
        .x_bounds([-SERIES_S, 0.0])
        .y_bounds([-1.0, 1.0])
        .paint(|context| {
            stroke(context, (-SERIES_S, 0.0), (0.0, 0.0), palette.faint());
            context.layer();
            match look.glyphs {
                Glyphs::Unicode => lines(context, session, look.colors, dash_s),
                Glyphs::Ascii => letters(context, session, palette),
            }
            for (label, y) in [("+1", 1.0), (" 0", 0.0), ("−1", -1.0)] {
                context.print(-SERIES_S, y, Span::styled(label, palette.faint()));
            }
            if let Some(affect) = session.recent().next_back().and_then(|m| m.affect) {
                context.print(0.0, affect.arousal.into(), Span::styled("A", palette.arousal()));
                context.print(0.0, affect.valence.into(), Span::styled("V", palette.valence()));
            }
        });
    frame.render_widget(canvas, area);
}

fn lines(context: &mut Context, session: &Session, colors: Colors, dash_s: f64) {
    let (now, palette) = (newest(session), Palette(colors));
    for (before, after) in session.recent().zip(session.recent().skip(1)) {
        // No line where the affect is unknown.
        let (Some(from), Some(to)) = (before.affect, after.affect) else {
            continue;
        };
        let (x1, x2) = (before.t - now, after.t - now);
        // Without colors, dashes tell the lines apart. They belong to the time, so that they move with the line.
        if colors == Colors::On || (before.t / dash_s) % 2.0 < 1.0 {
            stroke(
                context,
                (x1, from.arousal.into()),
                (x2, to.arousal.into()),
                palette.arousal(),
            );
        }
        stroke(
            context,
            (x1, from.valence.into()),
            (x2, to.valence.into()),
            palette.valence(),
        );
    }
}

/// A letter for each estimate.
fn letters(context: &mut Context, session: &Session, palette: Palette) {
    let now = newest(session);
    let known = |moment: &Moment| moment.affect.map(|affect| (moment.t - now, affect));
    for (x, Affect { valence, arousal }) in session.recent().filter_map(known) {
        context.print(x, arousal.into(), Span::styled("a", palette.arousal()));
        context.print(x, valence.into(), Span::styled("v", palette.valence()));
    }
}

fn newest(session: &Session) -> f64 {
    session.last.as_ref().map_or(0.0, |last| last.t)
}
