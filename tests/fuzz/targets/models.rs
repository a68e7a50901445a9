//! Models: a manifest names no file but those beside it, and a graph gives the same on every kernel or is rejected with a reason.

use std::cell::RefCell;
use std::fs;

use affectd::capture::Luma;
use affectd::cli::model::card;
use affectd::face::crop::Framing;
use affectd::face::geometry::{Landmarks, Point};
use affectd::fusion::estimator;
use affectd::model::engine::Engine;
use affectd::model::int8::{Isa, Panicked};
use affectd::model::{Bundle, GraphName, KernelChoice};
use affectd::voice::mel;
use tempfile::TempDir;

/// The only file of the folder beside the manifest.
const GRAPH: &[u8] = b"a graph";

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new({
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("graph.onnx"), GRAPH).expect("the temporary folder can be written");
        folder
    });
}

pub fn check_manifest(data: &[u8]) {
    let opened = FOLDER.with_borrow_mut(|folder| {
        fs::write(folder.path().join("manifest.json"), data).expect("the temporary folder can be written");
        let bundle = Bundle::open(Some(folder.path()), KernelChoice::Tract)?;
        for name in GraphName::ALL {
            if let Ok(bytes) = bundle.read(name) {
                assert_eq!(*bytes, *GRAPH, "a file of another folder");
            }
        }
        // The text is checked where it is printed.
        let _ = card(&bundle);
        Ok(bundle)
    });
    let bundle: Bundle = match opened {
        Ok(bundle) => bundle,
        Err(error) => {
            let error: affectd::model::ModelError = error;
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    if let Ok(spec) = estimator::Spec::of(&bundle) {
        assert!(!spec.step().is_zero());
    }
    if let Ok(spec) = bundle.preprocessing::<mel::Spec>(GraphName::VoiceEncoder) {
        spec.is_supported();
    }
    if let Ok(framing) = Framing::of(&bundle) {
        crop(&framing);
    }
}

/// A face in an image.
fn crop(framing: &Framing) {
    let image = Luma::new(
        64,
        48,
        (0..64 * 48)
            .map(|i| u8::try_from(i % 251).expect("below 251"))
            .collect(),
    );
    let at = |x: f32, y: f32| Point { x, y };
    let landmarks = Landmarks {
        right_eye: at(20.0, 20.0),
        left_eye: at(40.0, 22.0),
        mouth: at(30.0, 40.0),
        ..Landmarks::default()
    };
    let crop = framing.crop(&image.expect("3072 pixels"), &landmarks);
    assert!(crop.iter().all(|value| (-1.0..=1.0).contains(value)), "{framing:?}");
}

/// Graphs that need more multiply-accumulates are loaded, but not run: the limit of affectd is seconds under a sanitizer.
const MAX_MACS: u64 = 1 << 20;

pub fn check_onnx(data: &[u8]) {
    let results: Vec<Result<Outputs, String>> = Isa::available()
        .into_iter()
        .map(|isa| run(data, KernelChoice::Int8(isa)))
        .collect();
    for other in &results[1..] {
        assert_eq!(*other, results[0]);
    }
    let _ = run(data, KernelChoice::Tract);
}

/// The bits of all outputs.
type Outputs = Vec<Vec<u32>>;

fn run(data: &[u8], kernel: KernelChoice) -> Result<Outputs, String> {
    let loaded = Engine::load_file(data, kernel);
    let (mut engine, shapes) = loaded.map_err(|error| checked(&error))?;
    let share = engine.int8_share();
    assert!(
        (0.0..=1.0).contains(&share.nodes) && (0.0..=1.0).contains(&share.macs),
        "{share:?}"
    );
    if engine.macs() > MAX_MACS {
        return Ok(Vec::new());
    }
    let inputs: Vec<Vec<f32>> = shapes.iter().map(|shape| noise(shape.iter().product())).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let bits = |outputs: &[&[f32]]| -> Outputs {
        let bits = |output: &&[f32]| output.iter().map(|value| value.to_bits()).collect();
        outputs.iter().map(bits).collect()
    };
    engine.run(&inputs, bits).map_err(|error| checked(&error))
}

fn noise(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| f32::from(u8::try_from(i * 37 % 256).expect("a byte")) / 128.0 - 1.0)
        .collect()
}

/// The text of an error, which is not a panic of ours.
fn checked(error: &anyhow::Error) -> String {
    if let Some(Panicked { place, message }) = error.downcast_ref() {
        assert!(!place.starts_with("src/"), "{place}: {message}");
    }
    let text = error.to_string();
    assert!(!text.is_empty());
    text
}
