//! Remembers the views in which nothing resembled a face, so that the detector need not search a still room again and again.

use super::view::{CANVAS, View};

/// Side of the blocks whose means are compared, in pixels of the detector's input. The noise of a camera cancels out in a block, and
/// the smallest face that the detector finds covers more than one.
const BLOCK: usize = 8;
const BLOCKS_ACROSS: usize = CANVAS / BLOCK;
/// The mean of a block may change by so much, on the scale −1..1: by 1.5 grey levels of 255.
const TOLERANCE: f32 = 3.0 / 255.0;
/// A view with a higher score may hold a face that the next frame shows better, so it is searched again.
const NOTHING_LIKE_A_FACE: f32 = 0.3;

type Blocks = [f32; BLOCKS_ACROSS * BLOCKS_ACROSS];

#[derive(Default)]
pub struct EmptyViews {
    views: Vec<EmptyView>,
}

struct EmptyView {
    view: View,
    blocks: Blocks,
    /// How many searches it has spared.
    spared: u32,
}

impl EmptyViews {
    /// Whether `view`, drawn as `canvas`, needs no search: it looks as it did when nothing in it resembled a face, and that search
    /// has spared fewer than `most`.
    pub fn contain(&mut self, view: View, canvas: &[f32], most: u32) -> bool {
        let Some(empty) = self.views.iter_mut().find(|empty| empty.view == view) else {
            return false;
        };
        let blocks = block_means(canvas);
        let is_same = |(now, then): (&f32, &f32)| (now - then).abs() <= TOLERANCE;
        let contains = empty.spared < most && blocks.iter().zip(&empty.blocks).all(is_same);
        empty.spared += u32::from(contains);
        contains
    }

    /// Takes note of a search of `view`, drawn as `canvas`, in which no part had a higher score than `best_score`.
    pub fn searched(&mut self, view: View, canvas: &[f32], best_score: f32) {
        self.views.retain(|empty| empty.view != view);
        if best_score <= NOTHING_LIKE_A_FACE {
            // Another size of images has other views. Those of the last size are useless then.
            if self.views.len() > View::TILES as usize {
                self.views.clear();
            }
            self.views.push(EmptyView {
                view,
                blocks: block_means(canvas),
                spared: 0,
            });
        }
    }
}

fn block_means(canvas: &[f32]) -> Blocks {
    let mut sums = [0.0; BLOCKS_ACROSS * BLOCKS_ACROSS];
    for (rows, sums) in canvas
        .chunks_exact(BLOCK * CANVAS)
        .zip(sums.chunks_exact_mut(BLOCKS_ACROSS))
    {
        // Columns are added first, because the compiler adds several neighbours at once.
        let mut columns = [0.0; CANVAS];
        for row in rows.chunks_exact(CANVAS) {
            columns.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        for (sum, columns) in sums.iter_mut().zip(columns.chunks_exact(BLOCK)) {
            *sum = columns.iter().sum::<f32>() / (BLOCK * BLOCK) as f32;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Luma;

    const MOST: u32 = 3;

    fn room() -> View {
        View::whole(&Luma::new(640, 480, vec![0; 640 * 480]).unwrap())
    }

    fn canvas(value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        (0..CANVAS * CANVAS).map(|i| value(i % CANVAS, i / CANVAS)).collect()
    }

    /// Noise of ±2 grey levels.
    fn noisy(seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut level = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % 5
        };
        (0..CANVAS * CANVAS)
            .map(|_| level() as f32 / 127.5 - 2.0 / 127.5)
            .collect()
    }

    #[test]
    fn a_still_room_is_searched_once_in_a_while() {
        let mut views = EmptyViews::default();
        assert!(!views.contain(room(), &noisy(0), MOST));
        views.searched(room(), &noisy(0), 0.1);
        let spared: Vec<bool> = (1..6).map(|seed| views.contain(room(), &noisy(seed), MOST)).collect();
        assert_eq!(spared, [true, true, true, false, false]);
    }

    #[test]
    fn a_room_in_which_a_small_part_changes_is_searched() {
        let mut views = EmptyViews::default();
        views.searched(room(), &noisy(0), 0.1);
        let face = |x: usize, y: usize| {
            if (40..53).contains(&x) && (60..73).contains(&y) {
                0.06
            } else {
                0.0
            }
        };
        assert!(!views.contain(room(), &canvas(face), MOST));
    }

    #[test]
    fn slow_changes_add_up() {
        let mut views = EmptyViews::default();
        views.searched(room(), &canvas(|_, _| 0.0), 0.1);
        assert!(views.contain(room(), &canvas(|_, _| 0.008), 100));
        assert!(!views.contain(room(), &canvas(|_, _| 0.016), 100));
    }

    #[test]
    fn a_view_with_something_like_a_face_is_always_searched() {
        let mut views = EmptyViews::default();
        views.searched(room(), &noisy(0), 0.1);
        views.searched(room(), &noisy(0), 0.45);
        assert!(!views.contain(room(), &noisy(0), MOST));
    }

    #[test]
    fn views_of_earlier_image_sizes_are_forgotten() {
        let mut views = EmptyViews::default();
        for side in 100..200 {
            let image = Luma::new(side, side, vec![0; (side * side) as usize]).unwrap();
            views.searched(View::whole(&image), &noisy(0), 0.0);
        }
        assert!(views.views.len() <= View::TILES as usize + 1);
    }
}
