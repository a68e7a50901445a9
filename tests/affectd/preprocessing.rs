//! Preprocessing exists twice, in Rust and in the training scripts. Both must compute the same numbers from the same bytes,
//! because the models only work on input like that of their training. `models/training/fixtures.py` wrote the fixtures.

use affectd::capture::Luma;
use affectd::face::crop::Framing;
use affectd::face::geometry::{Landmarks, Point};
use affectd::model::{Bundle, KernelChoice};
use affectd::voice::mel::{BANDS, FRAMES, LogMel};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixtures {
    width: u32,
    height: u32,
    #[serde(flatten)]
    framing: Framing,
    faces: Vec<[[f32; 2]; 3]>,
    ends: Vec<u64>,
}

fn fixtures() -> Fixtures {
    serde_json::from_slice(include_bytes!("fixtures/fixtures.json")).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    values.iter().map(|v| f32::from_le_bytes(*v)).collect()
}

/// The largest absolute difference.
fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn face_crops_match_the_training_scripts() {
    let Fixtures {
        width,
        height,
        framing,
        faces,
        ..
    } = fixtures();
    let image = Luma::new(width, height, include_bytes!("fixtures/picture.u8").to_vec()).unwrap();
    let expected = floats(include_bytes!("fixtures/crops.f32"));
    for (face, expected) in faces.iter().zip(expected.chunks(48 * 48)) {
        let [right_eye, left_eye, mouth] = face.map(|[x, y]| Point { x, y });
        let landmarks = Landmarks {
            right_eye,
            left_eye,
            mouth,
            ..Landmarks::default()
        };
        let difference = largest_difference(&framing.crop(&image, &landmarks), expected);
        assert!(difference < 1e-3, "{face:?}: differs by {difference}");
    }
}

#[test]
fn log_mel_windows_match_the_training_scripts() {
    let (samples, _) = include_bytes!("fixtures/sound.s16").as_chunks::<2>();
    let samples: Vec<f32> = samples
        .iter()
        .map(|s| f32::from(i16::from_le_bytes(*s)) / 32_768.0)
        .collect();
    let mut mel = LogMel::default();
    mel.push(&samples);
    let expected = floats(include_bytes!("fixtures/windows.f32"));
    for (end, expected) in fixtures().ends.into_iter().zip(expected.chunks(BANDS * FRAMES)) {
        let difference = largest_difference(&mel.window(end), expected);
        assert!(difference < 1e-3, "window ending at {end}: differs by {difference}");
    }
}

#[test]
fn the_fixtures_use_the_framing_of_the_shipped_face_encoder() {
    let bundle = Bundle::open(Some(&super::models()), KernelChoice::fastest()).unwrap();
    let shipped = Framing::of(&bundle).unwrap();
    assert_eq!(shipped, fixtures().framing);
}
