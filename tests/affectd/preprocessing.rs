//! Preprocessing exists twice, here and in the training scripts. Both must make the same numbers of the same bytes, or the
//! models see another world on the board than in training. `models/training/fixtures.py` wrote the fixtures.

use affectd::capture::Luma;
use affectd::face::crop::Framing;
use affectd::face::geometry::{Landmarks, Point};
use affectd::model::{Bundle, GraphName, KernelChoice};
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
    let (chunks, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    chunks.iter().map(|c| f32::from_le_bytes(*c)).collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn face_crops_are_those_of_the_training_scripts() {
    let Fixtures {
        width,
        height,
        framing,
        faces,
        ..
    } = fixtures();
    let picture = Luma::new(width, height, include_bytes!("fixtures/picture.u8").to_vec()).unwrap();
    let wanted = floats(include_bytes!("fixtures/crops.f32"));
    for (face, wanted) in faces.iter().zip(wanted.chunks(48 * 48)) {
        let [right_eye, left_eye, mouth] = face.map(|[x, y]| Point { x, y });
        let landmarks = Landmarks {
            right_eye,
            left_eye,
            mouth,
            ..Landmarks::default()
        };
        let difference = worst(&framing.crop(&picture, &landmarks), wanted);
        assert!(difference < 1e-3, "{face:?}: differs by {difference}");
    }
}

#[test]
fn log_mel_windows_are_those_of_the_training_scripts() {
    let (samples, _) = include_bytes!("fixtures/sound.s16").as_chunks::<2>();
    let samples: Vec<f32> = samples
        .iter()
        .map(|s| f32::from(i16::from_le_bytes(*s)) / 32_768.0)
        .collect();
    let mut mel = LogMel::default();
    mel.push(&samples);
    let wanted = floats(include_bytes!("fixtures/windows.f32"));
    for (end, wanted) in fixtures().ends.into_iter().zip(wanted.chunks(BANDS * FRAMES)) {
        let difference = worst(&mel.window(end), wanted);
        assert!(difference < 1e-3, "window to {end}: differs by {difference}");
    }
}

#[test]
fn the_shipped_face_encoder_is_framed_as_the_fixtures_are() {
    let bundle = Bundle::open(Some(&super::models()), KernelChoice::fastest()).unwrap();
    let shipped: Framing = bundle.preprocessing(GraphName::FaceEncoder).unwrap();
    assert_eq!(shipped, fixtures().framing);
}
