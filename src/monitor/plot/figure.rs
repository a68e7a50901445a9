//! What a plot shows, as lines and texts that each format draws.

use crate::printable::printable;

use super::super::session::{Affect, Moment, Session};

/// The square of the plane, the width of the time series, and the margin around them, in pixels of a usual screen.
const SIDE: f64 = 400.0;
const SERIES: f64 = 700.0;
const MARGIN: f64 = 44.0;

/// Red, green, blue.
pub type Rgb = [u8; 3];

const GREY: Rgb = [0x55; 3];
const AXES: Rgb = [0xbb; 3];
const TRAIL: Rgb = [0x3a, 0x7d, 0x44];
const VALENCE: Rgb = [0x00, 0x77, 0xaa];
const AROUSAL: Rgb = [0xc7, 0x77, 0x00];

pub struct Figure {
    pub width: f64,
    pub height: f64,
    pub marks: Vec<Mark>,
}

pub type Point = (f64, f64);

pub enum Mark {
    Line(Line),
    Text(Text),
}

/// Connected points; several such runs.
pub struct Line {
    pub runs: Vec<Vec<Point>>,
    pub color: Rgb,
    pub width: f64,
    pub opacity: f64,
    pub pattern: Pattern,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Solid,
    /// Dashes and gaps of [`DASH`].
    Dashed,
}

/// The length of a dash, and of the gap after it.
pub const DASH: f64 = 5.0;

pub struct Text {
    pub at: Point,
    pub anchor: Anchor,
    pub color: Rgb,
    pub text: String,
}

/// The point of a text that is placed. It is on the base line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// The valence–arousal plane on the left, both values over time on the right.
pub fn of(session: &Session) -> Figure {
    let (left, top) = (MARGIN, MARGIN);
    let right = left + SIDE + MARGIN;
    let bottom = top + SIDE;
    let (middle, center) = (top + SIDE / 2.0, left + SIDE / 2.0);
    let mut figure = Figure {
        width: SIDE + SERIES + 3.0 * MARGIN,
        height: SIDE + 2.5 * MARGIN,
        marks: Vec::new(),
    };
    figure.axes(&[
        &[
            (left, top),
            (left + SIDE, top),
            (left + SIDE, bottom),
            (left, bottom),
            (left, top),
        ],
        &[(left, middle), (left + SIDE, middle)],
        &[(center, top), (center, bottom)],
        &[
            (right, top),
            (right + SERIES, top),
            (right + SERIES, bottom),
            (right, bottom),
            (right, top),
        ],
        &[(right, middle), (right + SERIES, middle)],
    ]);
    figure.labels(left, right, top, middle, bottom, center);

    let first = session.all().first().map_or(0.0, |m| m.t);
    let span = session.all().last().map_or(1.0, |m| (m.t - first).max(1.0));
    let down = |value: f32| top + SIDE * (1.0 - f64::from(value)) / 2.0;
    let across = |value: f32| left + SIDE * (1.0 + f64::from(value)) / 2.0;
    let over_time = |m: &Moment| right + SERIES * (m.t - first) / span;
    let line = |color, width, opacity, pattern, position: &dyn Fn(&Moment, Affect) -> Point| {
        Mark::Line(Line {
            runs: runs(session.all(), position),
            color,
            width,
            opacity,
            pattern,
        })
    };
    figure.marks.extend([
        line(TRAIL, 1.2, 0.7, Pattern::Solid, &|_, affect| {
            (across(affect.valence), down(affect.arousal))
        }),
        // Dashes tell the lines apart in print, and for people who do not see the colors.
        line(AROUSAL, 1.5, 1.0, Pattern::Dashed, &|m, affect| {
            (over_time(m), down(affect.arousal))
        }),
        line(VALENCE, 1.5, 1.0, Pattern::Solid, &|m, affect| {
            (over_time(m), down(affect.valence))
        }),
    ]);
    figure.text(
        (right + SERIES, bottom + 16.0),
        Anchor::End,
        GREY,
        &format!("{span:.0} s"),
    );
    figure.text(
        (left, figure.height - MARGIN / 3.0),
        Anchor::Start,
        GREY,
        &format!(
            "{} · {} estimates, {} missed, {} invalid lines · {span:.0} s",
            printable(&session.source),
            session.estimates,
            session.missed,
            session.invalid_lines,
        ),
    );
    figure
}

impl Figure {
    fn axes(&mut self, runs: &[&[Point]]) {
        self.marks.push(Mark::Line(Line {
            runs: runs.iter().map(|run| run.to_vec()).collect(),
            color: AXES,
            width: 1.0,
            opacity: 1.0,
            pattern: Pattern::Solid,
        }));
    }

    fn text(&mut self, at: Point, anchor: Anchor, color: Rgb, text: &str) {
        let text = text.to_owned();
        self.marks.push(Mark::Text(Text {
            at,
            anchor,
            color,
            text,
        }));
    }

    /// Titles, scales and the names of the quadrants.
    fn labels(&mut self, left: f64, right: f64, top: f64, middle: f64, bottom: f64, center: f64) {
        self.text(
            (left, top - 12.0),
            Anchor::Start,
            TRAIL,
            "arousal (up) over valence (right)",
        );
        self.text((right, top - 12.0), Anchor::Start, VALENCE, "valence (solid)");
        self.text((right + 120.0, top - 12.0), Anchor::Start, AROUSAL, "arousal (dashed)");
        for x in [left, right] {
            for (y, label) in [(top, "+1"), (middle, "0"), (bottom, "−1")] {
                self.text((x - 6.0, y + 4.0), Anchor::End, GREY, label);
            }
        }
        for (x, label) in [(left, "−1"), (center, "0"), (left + SIDE, "+1")] {
            self.text((x, bottom + 16.0), Anchor::Middle, GREY, label);
        }
        for (y, names) in [
            (top + 18.0, ["tense, angry", "excited, happy"]),
            (bottom - 10.0, ["sad, bored", "calm, content"]),
        ] {
            self.text((left + 10.0, y), Anchor::Start, GREY, names[0]);
            self.text((left + SIDE - 10.0, y), Anchor::End, GREY, names[1]);
        }
        self.text((right, bottom + 16.0), Anchor::Start, GREY, "0 s");
    }
}

/// Runs of points through `moments`, interrupted where the affect is unknown.
fn runs(moments: &[Moment], position: &dyn Fn(&Moment, Affect) -> Point) -> Vec<Vec<Point>> {
    let mut runs = vec![Vec::new()];
    for moment in moments {
        match (moment.affect, runs.last_mut()) {
            (Some(affect), Some(run)) => run.push(position(moment, affect)),
            (None, Some(run)) if !run.is_empty() => runs.push(Vec::new()),
            _ => {}
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}
