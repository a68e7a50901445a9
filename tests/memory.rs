//! What a loaded graph holds, and that running it asks for no more: counted at the allocator, hence a program of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use affectd::model::engine::{Engine, Kernel};
use affectd::model::int8::Kind;

/// Counts what is asked for and what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator; the counters are only added to.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test for all, so that nothing else allocates meanwhile.
#[test]
fn a_loaded_graph_holds_little_and_runs_without_allocating() {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    for kind in Kind::available() {
        for (graph, limit) in [
            ("face_encoder", None),
            ("voice_encoder", None),
            // Small weights under large activations, of which three are needed at a time, and outputs that are real numbers.
            ("face_detector", Some(700 << 10)),
            // Hardly any weights: what is left are bounds, tables and where values move to.
            ("fusion", Some(190 << 10)),
        ] {
            let file = std::fs::read(format!("{models}/{graph}.int8.onnx")).unwrap();
            let load = || Engine::load_file(&file, Kernel::Ours(kind)).unwrap();
            // tract keeps tables of its own from the first graph on.
            drop(load());
            let before = HELD.load(Relaxed);
            let (mut engine, shapes) = load();
            let footprint = engine.footprint().expect("in integers as a whole");
            let shapes_hold = shapes.capacity() * size_of::<Vec<usize>>();
            let held = HELD.load(Relaxed) - before - shapes_hold;

            let inputs: Vec<Vec<f32>> = shapes.iter().map(|dims| vec![0.25; dims.iter().product()]).collect();
            let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            let mut checksum = 0.0;
            let mut run = || engine.run(&inputs, |outputs| checksum += outputs[0][0]).unwrap();
            run();
            let asked = ASKED.load(Relaxed);
            run();
            run();
            assert_eq!(
                ASKED.load(Relaxed),
                asked,
                "{graph} allocates while it runs, {}",
                kind.name()
            );
            assert!(f32::is_finite(checksum));

            let usual = 2 * footprint.weights + footprint.activations;
            let kind = kind.name();
            println!("{graph}, {kind}: {held} bytes held, {usual} are usual, {footprint:?}");
            let limit = limit.unwrap_or(usual);
            assert!(held <= limit, "{graph}, {kind}: holds {held} bytes, at most {limit}");
        }
    }
}
