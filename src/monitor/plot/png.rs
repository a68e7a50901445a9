//! A figure as PNG (RFC 2083): RGB, one image data chunk.

use miniz_oxide::deflate::compress_to_vec_zlib;

use super::super::look::ascii;
use super::figure::{Anchor, DASH, Figure, Line, Mark, Pattern, Point, Rgb, Text};
use super::font;

/// Pixels of the image per pixel of the figure, for sharp lines on dense screens.
const SCALE: f64 = 2.0;
/// Pixels of the image per pixel of a letter.
const LETTER_PIXEL: usize = 2;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Eight bits, RGB, deflate, the usual filters, not interlaced.
const FORMAT: [u8; 5] = [8, 2, 0, 0, 0];
/// The filter of a row that states differences to the row above. In a plot, most are zero.
const UP: u8 = 2;
const COMPRESSION_LEVEL: u8 = 6;

pub fn write(figure: &Figure) -> Vec<u8> {
    let mut image = Image::white(pixels(figure.width), pixels(figure.height));
    for mark in &figure.marks {
        match mark {
            Mark::Line(line) => image.draw_line(line),
            Mark::Text(text) => image.draw_text(text),
        }
    }
    image.encode()
}

/// The number of image pixels in a length of the figure. Negative lengths have none.
fn pixels(length: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let pixels = (length * SCALE) as usize;
    pixels
}

struct Image {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Image {
    fn white(width: usize, height: usize) -> Image {
        Image {
            width,
            height,
            pixels: vec![[0xff; 3]; width * height],
        }
    }

    fn draw_line(&mut self, line: &Line) {
        // The coverage of each pixel, 0 to 1. A line that crosses itself does not become darker.
        let mut coverage = vec![0f32; self.pixels.len()];
        for run in &line.runs {
            let points = run.iter().chain((run.len() == 1).then_some(&run[0]));
            let points: Vec<Point> = points.copied().collect();
            let mut length = 0.0;
            for pair in points.windows(2) {
                for (from, to) in dashes(line.pattern, pair[0], pair[1], &mut length) {
                    self.cover(&mut coverage, from, to, line.width);
                }
            }
        }
        for (pixel, covered) in self.pixels.iter_mut().zip(coverage) {
            if covered > 0.0 {
                *pixel = blend(*pixel, line.color, f64::from(covered) * line.opacity);
            }
        }
    }

    /// Raises the coverage of the pixels near a segment.
    fn cover(&self, coverage: &mut [f32], from: Point, to: Point, width: f64) {
        let (from, to) = ((from.0 * SCALE, from.1 * SCALE), (to.0 * SCALE, to.1 * SCALE));
        let reach = width * SCALE / 2.0 + 0.5;
        let range = |one: f64, other: f64, limit: usize| {
            let first = pixels((one.min(other) - reach) / SCALE);
            first..(pixels((one.max(other) + reach) / SCALE) + 1).min(limit)
        };
        for y in range(from.1, to.1, self.height) {
            for x in range(from.0, to.0, self.width) {
                let distance = distance((x as f64 + 0.5, y as f64 + 0.5), from, to);
                #[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
                let covered = (reach - distance).clamp(0.0, 1.0) as f32;
                let pixel = &mut coverage[y * self.width + x];
                *pixel = pixel.max(covered);
            }
        }
    }

    fn draw_text(&mut self, text: &Text) {
        let letters: Vec<char> = text.text.chars().map(ascii).collect();
        let width = letters.len() * font::ADVANCE * LETTER_PIXEL;
        let left = pixels(text.at.0).saturating_sub(match text.anchor {
            Anchor::Start => 0,
            Anchor::Middle => width / 2,
            Anchor::End => width,
        });
        let top = pixels(text.at.1).saturating_sub(font::HEIGHT * LETTER_PIXEL);
        for (k, letter) in letters.into_iter().enumerate() {
            for (column, row) in font::dots(letter) {
                let x = left + (k * font::ADVANCE + column) * LETTER_PIXEL;
                self.fill(x, top + row * LETTER_PIXEL, text.color);
            }
        }
    }

    /// Fills a pixel of a letter, as far as it is in the image.
    fn fill(&mut self, left: usize, top: usize, color: Rgb) {
        for y in top..(top + LETTER_PIXEL).min(self.height) {
            for x in left..(left + LETTER_PIXEL).min(self.width) {
                self.pixels[y * self.width + x] = color;
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let rows: Vec<&[u8]> = self.pixels.chunks(self.width).map(<[Rgb]>::as_flattened).collect();
        let mut filtered = Vec::with_capacity(self.height * (1 + 3 * self.width));
        let first = vec![0; 3 * self.width];
        for (row, above) in rows.iter().zip([&first[..]].iter().chain(&rows)) {
            filtered.push(UP);
            filtered.extend(row.iter().zip(*above).map(|(byte, above)| byte.wrapping_sub(*above)));
        }
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let header = [&size(self.width)[..], &size(self.height), &FORMAT].concat();
        let mut png = SIGNATURE.to_vec();
        for (kind, content) in [
            (b"IHDR", header),
            (b"IDAT", compress_to_vec_zlib(&filtered, COMPRESSION_LEVEL)),
            (b"IEND", Vec::new()),
        ] {
            png.extend(size(content.len()));
            let named = [&kind[..], &content].concat();
            png.extend(&named);
            png.extend(crc32(&named).to_be_bytes());
        }
        png
    }
}

/// The parts of a segment that are drawn. `length` is that of the run before it, and grows.
fn dashes(pattern: Pattern, from: Point, to: Point, length: &mut f64) -> Vec<(Point, Point)> {
    let own = (to.0 - from.0).hypot(to.1 - from.1);
    if pattern == Pattern::Solid || own == 0.0 {
        return vec![(from, to)];
    }
    let start = *length;
    *length += own;
    let at = |position: f64| {
        let part = ((position - start) / own).clamp(0.0, 1.0);
        (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))
    };
    let mut drawn = Vec::new();
    // A dash and its gap make a period.
    let mut dash = (start / (2.0 * DASH)).floor() * 2.0 * DASH;
    while dash < *length {
        if dash + DASH > start {
            drawn.push((at(dash), at(dash + DASH)));
        }
        dash += 2.0 * DASH;
    }
    drawn
}

fn distance(point: Point, from: Point, to: Point) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let squared = dx * dx + dy * dy;
    let along = match squared > 0.0 {
        true => (((point.0 - from.0) * dx + (point.1 - from.1) * dy) / squared).clamp(0.0, 1.0),
        false => 0.0,
    };
    (point.0 - from.0 - along * dx).hypot(point.1 - from.1 - along * dy)
}

fn blend(below: Rgb, above: Rgb, opacity: f64) -> Rgb {
    std::array::from_fn(|k| {
        let mixed = f64::from(below[k]) * (1.0 - opacity) + f64::from(above[k]) * opacity;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between two bytes"
        )]
        let mixed = mixed.round() as u8;
        mixed
    })
}

/// The checksum of chunks: CRC-32 as in Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let step = |crc: u32, _| match crc & 1 {
        1 => crc >> 1 ^ POLYNOMIAL,
        _ => crc >> 1,
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use miniz_oxide::inflate::decompress_to_vec_zlib;

    use super::super::super::session::Session;
    use super::super::super::session::samples::session;
    use super::super::figure;
    use super::*;

    /// The colors of a PNG that `write` wrote, row by row.
    fn decode(png: &[u8]) -> Image {
        let mut rest = png.strip_prefix(SIGNATURE).unwrap();
        let (mut header, mut data) = (Vec::new(), Vec::new());
        while let Some((size, after)) = rest.split_first_chunk() {
            let size = u32::from_be_bytes(*size) as usize;
            let (named, after) = after.split_at(4 + size);
            let (sum, after) = after.split_first_chunk().unwrap();
            assert_eq!(crc32(named), u32::from_be_bytes(*sum));
            match &named[..4] {
                b"IHDR" => header = named[4..].to_vec(),
                b"IDAT" => data = decompress_to_vec_zlib(&named[4..]).unwrap(),
                _ => {}
            }
            rest = after;
        }
        let side = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap()) as usize;
        let (width, height) = (side(0), side(4));
        assert_eq!(header[8..], FORMAT);
        let mut above = vec![0u8; 3 * width];
        let mut pixels = Vec::new();
        for row in data.chunks(1 + 3 * width) {
            assert_eq!(row[0], UP);
            above
                .iter_mut()
                .zip(&row[1..])
                .for_each(|(sum, byte)| *sum = sum.wrapping_add(*byte));
            pixels.extend(above.as_chunks().0.iter().copied());
        }
        Image { width, height, pixels }
    }

    #[test]
    fn crc32_matches_the_check_value_of_the_catalogue() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn lines_dashes_and_letters_are_where_they_belong() {
        let line = |pattern| {
            Mark::Line(Line {
                runs: vec![vec![(0.0, 10.0), (7.0, 10.0), (20.0, 10.0)]],
                color: [0; 3],
                width: 2.0,
                opacity: 1.0,
                pattern,
            })
        };
        let row = |pattern| {
            let figure = Figure {
                width: 20.0,
                height: 20.0,
                marks: vec![line(pattern)],
            };
            let image = decode(&write(&figure));
            assert_eq!((image.width, image.height), (40, 40));
            let row = &image.pixels[20 * image.width..21 * image.width];
            row.iter()
                .map(|pixel| if pixel[0] < 128 { '#' } else { '.' })
                .collect::<String>()
        };
        assert_eq!(row(Pattern::Solid), "#".repeat(40));
        insta::assert_snapshot!(row(Pattern::Dashed), @"############......##############........");
        let text = Mark::Text(Text {
            at: (1.0, 8.0),
            anchor: Anchor::Start,
            color: [0; 3],
            text: "L−".into(),
        });
        let figure = Figure {
            width: 14.0,
            height: 8.0,
            marks: vec![text],
        };
        let image = decode(&write(&figure));
        let rows = image.pixels.chunks(image.width).step_by(LETTER_PIXEL);
        let drawn: Vec<String> = rows
            .map(|row| {
                row.iter()
                    .step_by(LETTER_PIXEL)
                    .map(|pixel| if pixel[0] == 0 { '#' } else { '.' })
                    .collect()
            })
            .collect();
        insta::assert_snapshot!(drawn.join("\n"), @"
        ..............
        .#............
        .#............
        .#............
        .#.....#####..
        .#............
        .#............
        .#####........
        ");
    }

    #[test]
    fn a_session_has_all_colors_and_one_without_estimates_too() {
        let image = decode(&write(&figure::of(&session())));
        let has = |image: &Image, color: Rgb| image.pixels.contains(&color);
        for color in [[0x00, 0x77, 0xaa], [0xc7, 0x77, 0x00], [0x3a, 0x7d, 0x44]] {
            assert!(has(&image, color), "{color:?}");
        }
        let empty = decode(&write(&figure::of(&Session::new("Küche".into(), ""))));
        assert!(has(&empty, [0xff; 3]) && empty.width == image.width);
    }
}
