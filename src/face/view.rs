//! The part of an image that the detector looks at, and how it is drawn onto the detector's square input.

use crate::capture::Luma;

use super::crop::bilinear;
use super::geometry::{Face, Landmarks, Point, Rect};

/// Side of the detector's input, in pixels.
pub const CANVAS: usize = 128;
/// Side of the view around a face, in widths of its box. It leaves room for a face that moves or comes closer.
const FACES_ACROSS: f32 = 2.5;
/// Tiles across and down. Each is a square with half the image's longer side, so neighbours overlap.
const TILES: (u32, u32) = (3, 2);

/// So many pixels add up in 16 bits, whatever their values.
const ROWS_IN_U16: usize = u16::MAX as usize / u8::MAX as usize;

/// A part of an image, in its pixels. It can extend beyond the image; what is outside is black.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    left: i32,
    top: i32,
    width: u32,
    height: u32,
}

impl View {
    /// How many different tiles [`View::tile`] gives.
    pub const TILES: u32 = TILES.0 * TILES.1;

    pub fn whole(image: &Luma) -> View {
        View {
            left: 0,
            top: 0,
            width: image.width(),
            height: image.height(),
        }
    }

    /// A square around a face. The face spans 0.4 of it, a size at which the detector finds it most reliably.
    pub fn around(bounds: Rect) -> View {
        let centre = bounds.centre();
        #[expect(clippy::cast_possible_truncation, reason = "casts from float saturate")]
        let pixels = |length: f32| (length.round() as i32).clamp(-1 << 20, 1 << 20);
        let side = pixels(bounds.w.max(bounds.h) * FACES_ACROSS).max(1);
        View {
            left: pixels(centre.x) - side / 2,
            top: pixels(centre.y) - side / 2,
            width: side.unsigned_abs(),
            height: side.unsigned_abs(),
        }
    }

    /// Tile `index`, counted row by row from the upper left; modulo [`View::TILES`]. A face in it is twice as large as in the
    /// whole image.
    pub fn tile(image: &Luma, index: u32) -> View {
        let (columns, rows) = TILES;
        let side = (image.width().max(image.height()) / 2).max(1);
        let start =
            |length: u32, step: u32, steps: u32| (length.saturating_sub(side) * step / (steps - 1)).cast_signed();
        View {
            left: start(image.width(), index % columns, columns),
            top: start(image.height(), index / columns % rows, rows),
            width: side.min(image.width()),
            height: side.min(image.height()),
        }
    }

    /// Side of the detector's input over the longer side of the view.
    pub fn magnification(self) -> f32 {
        CANVAS as f32 / self.width.max(self.height) as f32
    }
}

/// How a view is placed on the square canvas: scaled to fit, centred, with black borders.
pub struct Letterbox {
    view: View,
    /// Image pixels per canvas pixel.
    scale: f32,
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Letterbox {
    pub fn of(view: View) -> Letterbox {
        let scale = 1.0 / view.magnification();
        #[expect(clippy::cast_possible_truncation, reason = "clamped to 1..=CANVAS")]
        let fit = |length: u32| ((length as f32 / scale).round() as usize).clamp(1, CANVAS);
        let (width, height) = (fit(view.width), fit(view.height));
        Letterbox {
            view,
            scale,
            left: (CANVAS - width) / 2,
            top: (CANVAS - height) / 2,
            width,
            height,
        }
    }

    /// Draws the view onto `canvas`, as −1..1: by area averaging if it becomes smaller, by interpolation if larger.
    pub fn fill(&self, image: &Luma, canvas: &mut [f32]) {
        canvas.fill(-1.0);
        if self.scale < 1.0 {
            self.enlarge(image, canvas);
        } else {
            self.shrink(image, canvas);
        }
    }

    fn shrink(&self, image: &Luma, canvas: &mut [f32]) {
        let columns = spans(self.width, self.view.width, self.view.left, image.width());
        let rows = spans(self.height, self.view.height, self.view.top, image.height());
        let (left, right) = (columns[0].from, columns[self.width - 1].to);
        let mut heights = vec![0; right - left];
        for (y, row_span) in rows.iter().enumerate() {
            let mut sums = [0u32; CANVAS];
            // Rows are added first, because the compiler adds sixteen neighbouring pixels at once.
            for first in (row_span.from..row_span.to).step_by(ROWS_IN_U16) {
                heights.fill(0);
                for row in image.rows(first..row_span.to.min(first + ROWS_IN_U16)) {
                    for (height, &pixel) in heights.iter_mut().zip(&row[left..right]) {
                        *height += u16::from(pixel);
                    }
                }
                for (sum, span) in sums.iter_mut().zip(&columns) {
                    let heights = &heights[span.from - left..span.to - left];
                    *sum += heights.iter().map(|&height| u32::from(height)).sum::<u32>();
                }
            }
            let line = &mut canvas[(self.top + y) * CANVAS + self.left..][..self.width];
            for ((out, &sum), span) in line.iter_mut().zip(&sums).zip(&columns) {
                let count = (span.length * row_span.length) as f32;
                *out = sum as f32 / count / 127.5 - 1.0;
            }
        }
    }

    fn enlarge(&self, image: &Luma, canvas: &mut [f32]) {
        let (width, height) = (image.width() as f32, image.height() as f32);
        let place = |start: i32, at: usize| start as f32 + (at as f32 + 0.5) * self.scale;
        for y in 0..self.height {
            let source_y = place(self.view.top, y);
            let line = &mut canvas[(self.top + y) * CANVAS + self.left..][..self.width];
            for (x, out) in line.iter_mut().enumerate() {
                let source_x = place(self.view.left, x);
                if (0.0..width).contains(&source_x) && (0.0..height).contains(&source_y) {
                    *out = bilinear(image, source_x, source_y) / 127.5 - 1.0;
                }
            }
        }
    }

    /// Converts a face from canvas pixels to image pixels.
    pub fn to_image(&self, face: Face) -> Face {
        let (left, top, scale) = (self.left as f32, self.top as f32, self.scale);
        let place = |p: Point| Point {
            x: (p.x - left) * scale + self.view.left as f32,
            y: (p.y - top) * scale + self.view.top as f32,
        };
        let corner = place(Point {
            x: face.bounds.x,
            y: face.bounds.y,
        });
        Face {
            bounds: Rect {
                x: corner.x,
                y: corner.y,
                w: face.bounds.w * scale,
                h: face.bounds.h * scale,
            },
            landmarks: Landmarks::from_points(face.landmarks.to_points().map(place)),
            ..face
        }
    }
}

/// The source pixels of one canvas pixel along one axis.
struct Span {
    /// Those inside the image; empty if all are outside.
    from: usize,
    to: usize,
    /// How many there are, with those outside the image.
    length: usize,
}

/// Divides `length` pixels of the view, which begins at `start` in an image of `size` pixels, into `parts` spans.
fn spans(parts: usize, length: u32, start: i32, size: u32) -> Vec<Span> {
    let (length, size) = (length as usize, size as usize);
    let (before, skipped) = (
        start.min(0).unsigned_abs() as usize,
        start.max(0).unsigned_abs() as usize,
    );
    let inside = |at: usize| (skipped + at).saturating_sub(before).min(size);
    (0..parts)
        .map(|i| {
            let from = i * length / parts;
            let to = ((i + 1) * length / parts).clamp(from + 1, length.max(from + 1));
            Span {
                from: inside(from),
                to: inside(to),
                length: to - from,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canvas_of(image: &Luma, view: View) -> Vec<f32> {
        let mut canvas = vec![0.0; CANVAS * CANVAS];
        Letterbox::of(view).fill(image, &mut canvas);
        canvas
    }

    fn square(x: f32, y: f32, side: f32) -> Rect {
        Rect { x, y, w: side, h: side }
    }

    #[test]
    fn a_wide_image_is_centred_between_black_bars() {
        let image = Luma::new(256, 128, vec![255; 256 * 128]).unwrap();
        let canvas = canvas_of(&image, View::whole(&image));
        assert_eq!(canvas[31 * CANVAS], -1.0);
        assert_eq!(canvas[32 * CANVAS], 1.0);
        assert_eq!(canvas[96 * CANVAS], -1.0);
    }

    #[test]
    fn an_image_smaller_than_the_canvas_is_enlarged_smoothly() {
        let image = Luma::new(2, 2, vec![0, 255, 255, 0]).unwrap();
        let canvas = canvas_of(&image, View::whole(&image));
        assert_eq!(canvas[0], -1.0);
        assert_eq!(canvas[CANVAS - 1], 1.0);
        assert_eq!(canvas[CANVAS * CANVAS - 1], -1.0);
        let middle = canvas[64 * CANVAS + 64];
        assert!(middle.abs() < 0.02, "{middle}");
    }

    #[test]
    fn what_is_outside_the_image_is_black() {
        let image = Luma::new(640, 480, vec![255; 640 * 480]).unwrap();
        for side in [20.0, 200.0] {
            let canvas = canvas_of(&image, View::around(square(-side / 2.0, -side / 2.0, side)));
            assert_eq!(canvas[0], -1.0);
            assert_eq!(canvas[63 * CANVAS + 127], -1.0);
            assert_eq!(canvas[65 * CANVAS + 65], 1.0);
            assert_eq!(canvas[CANVAS * CANVAS - 1], 1.0);
        }
        let far_away = canvas_of(&image, View::around(square(9000.0, 9000.0, 100.0)));
        assert!(far_away.iter().all(|&v| v == -1.0));
    }

    #[test]
    fn a_view_of_any_box_is_drawn_without_a_panic() {
        let image = Luma::new(64, 48, vec![9; 64 * 48]).unwrap();
        for value in [f32::NAN, f32::INFINITY, -1e30, 1e30, 0.0, -3.0] {
            canvas_of(&image, View::around(square(value, value, 10.0)));
            canvas_of(&image, View::around(square(5.0, 5.0, value)));
        }
    }

    proptest! {
        #[test]
        fn a_smaller_drawing_has_the_mean_of_the_pixels(
            (width, height) in (1u32..700, 1u32..500),
            (left, top) in (-300i32..600, -300i32..400),
            side in 128u32..900,
            seed: u32,
        ) {
            let pixels: Vec<u8> = (0..width * height).map(|i| (i.wrapping_mul(2_654_435_761) ^ seed).to_be_bytes()[0]).collect();
            let image = Luma::new(width, height, pixels).unwrap();
            let view = View { left, top, width: side, height: side };
            let canvas = canvas_of(&image, view);
            let bounds = |part: u32, start: i32| {
                let at = |part: u32| start + (part * side / 128).cast_signed();
                at(part)..at(part + 1)
            };
            for (x, y) in [(0, 0), (17, 90), (64, 64), (127, 127)] {
                let (columns, rows) = (bounds(x, left), bounds(y, top));
                let count = (columns.len() * rows.len()) as f32;
                let inside = |at: i32, length: u32| u32::try_from(at).ok().filter(|at| *at < length);
                let sum: u32 = rows
                    .filter_map(|row| inside(row, height))
                    .flat_map(|row| columns.clone().filter_map(move |column| Some((inside(column, width)?, row))))
                    .map(|(column, row)| u32::from(image.row(row)[column as usize]))
                    .sum();
                let expected = sum as f32 / count / 127.5 - 1.0;
                prop_assert_eq!(canvas[(y * 128 + x) as usize], expected);
            }
        }
    }

    #[test]
    fn a_tall_image_is_added_without_overflow() {
        let image = Luma::new(3, 65_535, vec![255; 3 * 65_535]).unwrap();
        let canvas = canvas_of(&image, View::whole(&image));
        assert_eq!(canvas[64 * CANVAS + 63], 1.0);
    }

    #[test]
    fn tiles_cover_the_image() {
        for (width, height) in [(640, 480), (480, 640), (1920, 1080), (100, 100), (300, 20), (1, 1)] {
            let image = Luma::new(width, height, vec![0; (width * height) as usize]).unwrap();
            let tiles: Vec<View> = (0..View::TILES).map(|index| View::tile(&image, index)).collect();
            let covered = |x: u32, y: u32| {
                let contains = |start: i32, length: u32, at: u32| {
                    (start..start + length.cast_signed()).contains(&at.cast_signed())
                };
                tiles
                    .iter()
                    .any(|t| contains(t.left, t.width, x) && contains(t.top, t.height, y))
            };
            for (x, y) in [
                (0, 0),
                (width - 1, 0),
                (0, height - 1),
                (width - 1, height - 1),
                (width / 2, height / 2),
            ] {
                assert!(covered(x, y), "{width} × {height}: {x}, {y}");
            }
        }
    }

    #[test]
    fn canvas_positions_map_back_to_the_image() {
        let image = Luma::new(640, 480, vec![0; 640 * 480]).unwrap();
        let on_canvas = Face {
            bounds: Rect {
                x: 64.0,
                y: 16.0,
                w: 10.0,
                h: 10.0,
            },
            score: 1.0,
            landmarks: Landmarks::default(),
        };
        let placed = Letterbox::of(View::whole(&image)).to_image(on_canvas);
        assert_eq!((placed.bounds.x, placed.bounds.y), (320.0, 0.0));
        assert_eq!((placed.bounds.w, placed.bounds.h), (50.0, 50.0));
        let view = View::around(square(100.0, 200.0, 51.2));
        let placed = Letterbox::of(view).to_image(on_canvas);
        assert_eq!((placed.bounds.x, placed.bounds.y), (126.0, 178.0));
        assert_eq!(placed.bounds.w, 10.0);
    }
}
