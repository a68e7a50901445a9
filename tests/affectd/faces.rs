//! Which faces are found, and whose estimates are reported, through the library: frames are put together from the demo clip.

use std::time::{Duration, Instant};

use affectd::capture::clip::Clip;
use affectd::capture::orientation::{Flip, Orientation, Rotation};
use affectd::capture::{FramePayload, Luma, VideoFrame};
use affectd::face::geometry::Rect;
use affectd::face::stage::FaceSettings;
use affectd::face::{FaceObservation, FaceStage, FrameOutcome};
use affectd::model::{Bundle, KernelChoice};

use super::demo;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const FRAMES_PER_SECOND: u32 = 10;

/// A frame of the demo clip, which shows one face.
fn demo_frame() -> Luma {
    let mut video = Clip::open(&demo()).unwrap().video.unwrap();
    video.next_frame().unwrap().unwrap().payload.into_luma().unwrap()
}

/// Draws `picture`, `width` pixels wide, with its upper left corner at `left`, `top`.
fn draw(canvas: &mut [u8], picture: &Luma, width: u32, left: u32, top: u32) {
    let scale = f64::from(picture.width()) / f64::from(width);
    let height = (f64::from(picture.height()) / scale) as u32;
    for y in 0..height.min(HEIGHT - top) {
        for x in 0..width.min(WIDTH - left) {
            // The mean of the pixels that become one.
            let span = |at: u32, length: u32| {
                let from = (f64::from(at) * scale) as u32;
                from..((f64::from(at + 1) * scale) as u32).clamp(from + 1, length)
            };
            let (columns, rows) = (span(x, picture.width()), span(y, picture.height()));
            let count = columns.len() * rows.len();
            let sum: usize = rows
                .map(|row| picture.row(row)[columns.start as usize..columns.end as usize].iter())
                .map(|pixels| pixels.map(|&p| usize::from(p)).sum::<usize>())
                .sum();
            canvas[((top + y) * WIDTH + left + x) as usize] = (sum / count) as u8;
        }
    }
}

struct Scene {
    stage: FaceStage,
    frames: u32,
}

impl Scene {
    fn new() -> Scene {
        Scene::turned(Orientation::default())
    }

    /// Frames are turned before they are analysed.
    fn turned(orientation: Orientation) -> Scene {
        let bundle = Bundle::open(None, KernelChoice::fastest()).unwrap();
        let settings = FaceSettings {
            orientation,
            rate_hz: FRAMES_PER_SECOND as f32,
            detect_every: Duration::from_millis(400),
            min_score: 0.5,
        };
        Scene {
            stage: FaceStage::load(&bundle, settings).unwrap(),
            frames: 0,
        }
    }

    fn show(&mut self, canvas: &[u8]) -> Option<FaceObservation> {
        self.show_image(Luma::new(WIDTH, HEIGHT, canvas.to_vec()).unwrap())
    }

    fn show_image(&mut self, image: Luma) -> Option<FaceObservation> {
        let frame = VideoFrame {
            at: Duration::from_secs(1) * self.frames / FRAMES_PER_SECOND,
            captured: Instant::now(),
            payload: FramePayload::Luma(image),
        };
        self.frames += 1;
        match self.stage.process(frame).unwrap() {
            FrameOutcome::Face(face) => Some(face),
            FrameOutcome::NoFace => None,
            other => panic!("{other:?}"),
        }
    }
}

fn grey() -> Vec<u8> {
    vec![110; (WIDTH * HEIGHT) as usize]
}

fn is_inside(bounds: Rect, left: u32, top: u32, width: u32, height: u32) -> bool {
    let share = |value: u32, of: u32| value as f32 / of as f32;
    bounds.x >= share(left, WIDTH)
        && bounds.y >= share(top, HEIGHT)
        && bounds.x + bounds.w <= share(left + width, WIDTH)
        && bounds.y + bounds.h <= share(top + height, HEIGHT)
}

#[test]
fn a_face_three_times_as_far_away_is_found_and_stays() {
    let picture = demo_frame();
    for (left, top) in [(20, 20), (250, 190), (420, 310)] {
        let mut canvas = grey();
        draw(&mut canvas, &picture, WIDTH / 3, left, top);
        let mut scene = Scene::new();
        let faces: Vec<_> = (0..60).map(|_| scene.show(&canvas)).collect();
        let first = faces.iter().position(Option::is_some).expect("the face is found");
        assert!(first <= 12, "found in frame {first}");
        for face in &faces[first..] {
            let face = face.expect("the face stays");
            assert_eq!(face.id, 1);
            assert!(is_inside(face.bounds, left, top, WIDTH / 3, HEIGHT / 3), "{face:?}");
        }
    }
}

#[test]
fn a_camera_on_its_side_shows_the_same_face_once_it_is_turned() {
    let turn = |rotation, flip| Orientation { rotation, flip };
    let upright = demo_frame();
    let expected = Scene::new().show_image(upright.clone()).expect("the face is found");
    for (mounted, setting) in [
        (
            turn(Rotation::Clockwise90, Flip::None),
            turn(Rotation::Clockwise270, Flip::None),
        ),
        (
            turn(Rotation::HalfTurn, Flip::None),
            turn(Rotation::HalfTurn, Flip::None),
        ),
        (
            turn(Rotation::Clockwise270, Flip::None),
            turn(Rotation::Clockwise90, Flip::None),
        ),
        (
            turn(Rotation::None, Flip::Horizontal),
            turn(Rotation::None, Flip::Horizontal),
        ),
    ] {
        let frame = mounted.apply(upright.clone());
        let face = Scene::turned(setting).show_image(frame).expect("the face is found");
        assert_eq!(
            (face.bounds, face.score),
            (expected.bounds, expected.score),
            "{setting:?}"
        );
        assert_eq!(face.appearance, expected.appearance, "{setting:?}");
    }
}

#[test]
fn a_near_face_replaces_a_far_one_after_a_second() {
    let picture = demo_frame();
    let mut canvas = grey();
    draw(&mut canvas, &picture, WIDTH / 3, 420, 310);
    let mut scene = Scene::new();
    let far = (0..30)
        .filter_map(|_| scene.show(&canvas))
        .last()
        .expect("the far face is found");
    draw(&mut canvas, &picture, WIDTH, 0, 0);
    draw(&mut canvas, &picture, WIDTH / 3, 420, 310);
    let faces: Vec<_> = (0..40)
        .map(|_| scene.show(&canvas).expect("a face is visible").id)
        .collect();
    let switch = faces
        .iter()
        .position(|&id| id != far.id)
        .expect("the near face becomes the subject");
    assert!((10..=22).contains(&switch), "after {switch} frames");
    assert!(faces[switch..].iter().all(|&id| id == faces[switch]));
}

#[test]
fn a_near_face_that_walks_replaces_a_far_one() {
    let picture = demo_frame();
    let far = |canvas: &mut [u8]| draw(canvas, &picture, WIDTH / 3, 420, 310);
    let mut canvas = grey();
    far(&mut canvas);
    let mut scene = Scene::new();
    let first = (0..30)
        .filter_map(|_| scene.show(&canvas))
        .last()
        .expect("the far face is found");
    let last = (0..40).filter_map(|frame: u32| {
        let mut canvas = grey();
        let step = frame * 6 % 240;
        draw(&mut canvas, &picture, WIDTH * 3 / 4, step.min(240 - step), 0);
        far(&mut canvas);
        scene.show(&canvas)
    });
    let last = last.last().expect("a face is visible");
    assert_ne!(last.id, first.id);
    assert!(last.bounds.w > first.bounds.w * 1.5, "{last:?}");
}

#[test]
fn a_scene_without_a_face_has_none_in_any_view() {
    let mut scene = Scene::new();
    let mut canvas = grey();
    for (i, pixel) in canvas.iter_mut().enumerate() {
        let (x, y) = (i as u32 % WIDTH, i as u32 / WIDTH);
        *pixel = ((x / 9 + y / 7) % 5 * 40) as u8;
    }
    for _ in 0..24 {
        assert!(scene.show(&canvas).is_none());
    }
}
