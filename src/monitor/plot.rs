//! The session as an SVG plot.

use std::fmt::Write;

use crate::printable::printable;

use super::session::{Affect, Moment, Session};

/// Sizes in pixels: the square of the plane, the width of the time series, and the margin around them.
const SIDE: f64 = 400.0;
const SERIES: f64 = 700.0;
const MARGIN: f64 = 40.0;

/// The valence–arousal plane on the left, both values over time on the right.
pub fn svg(session: &Session) -> String {
    let (width, height) = (SIDE + SERIES + 3.0 * MARGIN, SIDE + 2.0 * MARGIN);
    let (left, top) = (MARGIN, MARGIN);
    let right = left + SIDE + MARGIN;
    let middle = top + SIDE / 2.0;
    let first = session.all().first().map_or(0.0, |m| m.t);
    let span = session.all().last().map_or(1.0, |m| (m.t - first).max(1.0));
    let down = |value: f32| top + SIDE * (1.0 - f64::from(value)) / 2.0;
    let across = |value: f32| left + SIDE * (1.0 + f64::from(value)) / 2.0;
    let over_time = |m: &Moment| right + SERIES * (m.t - first) / span;
    let plane = path(session.all(), |_, affect| {
        (across(affect.valence), down(affect.arousal))
    });
    let valence = path(session.all(), |m, affect| (over_time(m), down(affect.valence)));
    let arousal = path(session.all(), |m, affect| (over_time(m), down(affect.arousal)));
    let caption = format!(
        "{} · {} estimates, {} missed, {} invalid lines · {:.0} s",
        xml_escaped(&printable(&session.source)),
        session.estimates,
        session.missed,
        session.invalid_lines,
        span
    );
    let axes = format!(
        "M{left} {top}h{SIDE}v{SIDE}h-{SIDE}z M{left} {middle}h{SIDE} M{} {top}v{SIDE} M{right} {top}h{SERIES}v{SIDE}h-{SERIES}z M{right} {middle}h{SERIES}",
        left + SIDE / 2.0
    );
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<rect width="{width}" height="{height}" fill="#fff"/>
<path d="{axes}" fill="none" stroke="#bbb"/>
<path d="{plane}" fill="none" stroke="#3a7d44" stroke-width="1.2" stroke-opacity="0.7"/>
<path d="{arousal}" fill="none" stroke="#c77700" stroke-width="1.5"/>
<path d="{valence}" fill="none" stroke="#0077aa" stroke-width="1.5"/>
<text x="{left}" y="{caption_y}" fill="#555">{caption}</text>
<text x="{left}" y="{title_y}" fill="#3a7d44">valence → arousal ↑, −1 to 1</text>
<text x="{right}" y="{title_y}"><tspan fill="#0077aa">valence</tspan> <tspan fill="#c77700">arousal</tspan> over {span:.0} s</text>
</svg>
"##,
        caption_y = height - MARGIN / 3.0,
        title_y = top - 10.0,
    )
}

/// An SVG path through `moments`, interrupted where the affect is unknown.
fn path(moments: &[Moment], position: impl Fn(&Moment, Affect) -> (f64, f64)) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for moment in moments {
        let Some(affect) = moment.affect else {
            drawing = false;
            continue;
        };
        let (x, y) = position(moment, affect);
        let command = if drawing { 'L' } else { 'M' };
        write!(path, "{command}{x:.1} {y:.1}").expect("a string takes every write");
        drawing = true;
    }
    path
}

fn xml_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::received::{Reading, Received};
    use super::super::session::samples::session;
    use super::*;

    #[test]
    fn the_plot_has_a_stroke_per_known_stretch_and_the_losses() {
        let mut session = session();
        session.source = "a<b&c".into();
        session.receive(Received::Estimate(Reading {
            seq: 301,
            t: 60.2,
            ..Reading::default()
        }));
        session.receive(Received::Estimate(Reading {
            seq: 302,
            t: 60.4,
            valence: Some(1.0),
            arousal: Some(-1.0),
            ..Reading::default()
        }));
        let svg = svg(&session);
        assert!(
            svg.contains("a&lt;b&amp;c · 301 estimates, 1 missed, 1 invalid lines · 60 s"),
            "{svg}"
        );
        // Valence 1 and arousal −1, a corner of the plane, begin a new stroke.
        assert!(svg.contains("M440.0 440.0"), "{svg}");
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn a_session_without_estimates_has_a_plot() {
        let svg = svg(&Session::new(String::new(), ""));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }
}
