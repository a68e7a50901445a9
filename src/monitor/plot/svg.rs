//! A figure as SVG.

use std::fmt::Write;

use super::figure::{Anchor, DASH, Figure, Line, Mark, Pattern, Rgb, Text};

/// The height of letters, in pixels.
const FONT_SIZE: f64 = 13.0;

pub fn write(figure: &Figure) -> String {
    let Figure { width, height, marks } = figure;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{FONT_SIZE}">
<rect width="{width}" height="{height}" fill="#fff"/>
"##
    );
    for mark in marks {
        match mark {
            Mark::Line(line) => write_line(&mut svg, line),
            Mark::Text(text) => write_text(&mut svg, text),
        }
    }
    svg + "</svg>\n"
}

fn write_line(svg: &mut String, line: &Line) {
    let mut path = String::new();
    for run in &line.runs {
        for (k, (x, y)) in run.iter().enumerate() {
            let command = if k == 0 { 'M' } else { 'L' };
            // Writing into a string cannot fail.
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
    }
    let Line {
        color, width, opacity, ..
    } = line;
    let dashes = match line.pattern {
        Pattern::Solid => String::new(),
        Pattern::Dashed => format!(r#" stroke-dasharray="{DASH}""#),
    };
    let _ = writeln!(
        svg,
        r#"<path d="{path}" fill="none" stroke="{}" stroke-width="{width}" stroke-opacity="{opacity}"{dashes}/>"#,
        hex(*color)
    );
}

fn write_text(svg: &mut String, text: &Text) {
    let (x, y) = text.at;
    let anchor = match text.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let _ = writeln!(
        svg,
        r#"<text x="{x}" y="{y:.1}" text-anchor="{anchor}" fill="{}">{}</text>"#,
        hex(text.color),
        xml_escaped(&text.text)
    );
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn xml_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::super::received::{Reading, Received};
    use super::super::super::session::Session;
    use super::super::super::session::samples::session;
    use super::super::svg;

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
        assert!(svg.contains("M444.0 444.0"), "{svg}");
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn a_session_without_estimates_has_a_plot() {
        let svg = svg(&Session::new(String::new(), ""));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }
}
