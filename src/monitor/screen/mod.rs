//! The view in the terminal: the valence–arousal plane with a trail, the last minute, the newest estimate in numbers, and the
//! expressions as bars.

mod palette;
mod panel;
mod plane;
mod series;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Margin, Rect};
use ratatui::widgets::{Block, Paragraph, Wrap};

use crate::printable::printable;

use super::look::{Glyphs, Look, ascii};
use super::session::Session;
use palette::Palette;

/// A size in terminal cells.
struct Cells {
    width: u16,
    height: u16,
}

const TEXT: Cells = Cells { width: 22, height: 8 };
const BARS: Cells = Cells { width: 22, height: 8 };
/// The plane is left out if it would be smaller.
const MIN_PLANE: Cells = Cells { width: 14, height: 6 };
/// The time series is left out if it would be smaller.
const MIN_SERIES: Cells = Cells { width: 40, height: 7 };
/// The line with the keys is left out of a lower terminal.
const MIN_HEIGHT_WITH_KEYS: u16 = 9;

/// Draws what there is room for. The text has priority, then the plane, then the expressions, then the time series. `keys` is the
/// line at the bottom.
pub fn draw(frame: &mut Frame, session: &Session, look: Look, keys: &str) {
    let area = frame.area();
    let palette = Palette(look.colors);
    let [area, bottom] = match area.height >= MIN_HEIGHT_WITH_KEYS {
        true => Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(area),
        false => [area, Rect::ZERO],
    };
    frame.render_widget(Paragraph::new(printable(keys)).style(palette.faint()), bottom);
    draw_above_keys(frame, area, session, look);
    if look.glyphs == Glyphs::Ascii {
        to_ascii(frame.buffer_mut());
    }
}

fn draw_above_keys(frame: &mut Frame, area: Rect, session: &Session, look: Look) {
    let palette = Palette(look.colors);
    let text_width = TEXT.width.min(area.width);
    // A terminal's cells are about twice as high as wide.
    let has_plane = area.width - text_width > MIN_PLANE.width && area.height >= MIN_PLANE.height;
    if !has_plane {
        return panel::text(frame, area, session, palette);
    }
    let has_series = area.width >= MIN_SERIES.width && area.height >= TEXT.height + MIN_SERIES.height;
    let [above, below] = match has_series {
        true => {
            let height = MIN_SERIES.height.max(area.height * 3 / 10);
            Layout::vertical([Constraint::Min(0), Constraint::Length(height)]).areas(area)
        }
        false => [area, Rect::ZERO],
    };
    let plane_width = (above.width - text_width - 1).min(above.height.saturating_mul(2));
    let [left, right] = Layout::horizontal([Constraint::Length(plane_width), Constraint::Min(0)])
        .spacing(1)
        .areas(above);
    match session.last {
        Some(_) => plane::draw(frame, left, session, look),
        None => explain(frame, left, session),
    }
    let [text, bars] = if right.height >= TEXT.height + BARS.height {
        Layout::vertical([Constraint::Length(TEXT.height), Constraint::Length(BARS.height)]).areas(right)
    } else if right.width > TEXT.width + BARS.width && right.height >= BARS.height {
        Layout::horizontal([Constraint::Min(TEXT.width), Constraint::Length(BARS.width)])
            .spacing(1)
            .areas(right)
    } else {
        [right, Rect::ZERO]
    };
    panel::text(frame, text, session, palette);
    panel::bars(frame, bars, session, palette);
    if has_series {
        series::draw(frame, below, session, look);
    }
}

/// Instead of an empty plane: why it is empty.
fn explain(frame: &mut Frame, area: Rect, session: &Session) {
    frame.render_widget(Block::bordered(), area);
    let text = Paragraph::new(printable(&session.status)).wrap(Wrap { trim: true });
    frame.render_widget(text, area.inner(Margin::new(1, 1)));
}

fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let similar = cell.symbol().chars().next().map_or(' ', ascii);
            cell.set_char(similar);
        }
    }
}

#[cfg(test)]
mod tests;
