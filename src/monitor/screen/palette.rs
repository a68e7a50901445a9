//! Colors, and the lines that are drawn with them.

use ratatui::style::{Color, Style};
use ratatui::widgets::canvas::{Context, Line as Stroke};

use super::super::look::Colors;

/// Colors with a meaning. Without colors, all are that of the terminal.
#[derive(Clone, Copy)]
pub struct Palette(pub Colors);

impl Palette {
    pub fn valence(self) -> Color {
        self.color(Color::Cyan)
    }

    pub fn arousal(self) -> Color {
        self.color(Color::Yellow)
    }

    /// Axes and labels.
    pub fn faint(self) -> Color {
        self.color(Color::DarkGray)
    }

    pub fn newest(self) -> Color {
        self.color(Color::LightGreen)
    }

    pub fn alarm(self) -> Style {
        Style::new().fg(self.color(Color::LightRed))
    }

    fn color(self, color: Color) -> Color {
        match self.0 {
            Colors::On => color,
            Colors::Off => Color::Reset,
        }
    }
}

pub fn stroke(context: &mut Context, from: (f64, f64), to: (f64, f64), color: Color) {
    context.draw(&Stroke {
        x1: from.0,
        y1: from.1,
        x2: to.0,
        y2: to.1,
        color,
    });
}
