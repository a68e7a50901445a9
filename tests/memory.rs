//! The memory of a loaded graph, and that running it allocates none. A test program of its own, because it counts in the
//! global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use affectd::model::KernelChoice;
use affectd::model::engine::Engine;
use affectd::model::int8::Isa;

/// The system allocator, with counters.
struct Counting;

/// Bytes allocated and not freed.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Number of allocations.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed to the system allocator, and the counters do not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller guarantees what the system allocator requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller guarantees that `alloc` returned `at`, which passed on what the system allocator returned.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test for all graphs: no other test may allocate at the same time.
#[test]
fn a_loaded_graph_needs_little_memory_and_runs_without_allocating() {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
    for isa in Isa::available() {
        for (graph, limit) in [
            ("face_encoder", None),
            ("voice_encoder", None),
            // Few weights, large activations of which three are needed at a time, and inputs and outputs in f32.
            ("face_detector", Some(700 << 10)),
            // Very few weights: most of it is bounds, tables and offsets.
            ("fusion", Some(190 << 10)),
        ] {
            let file = std::fs::read(format!("{models}/{graph}.int8.onnx")).unwrap();
            let load = || Engine::load_file(&file, KernelChoice::Int8(isa)).unwrap();
            // tract allocates tables of its own with the first graph.
            drop(load());
            let before = HELD.load(Relaxed);
            let (mut engine, shapes) = load();
            let footprint = engine.footprint().expect("the whole graph runs in integers");
            let shapes_hold = shapes.capacity() * size_of::<Vec<usize>>();
            let held = HELD.load(Relaxed) - before - shapes_hold;

            let inputs: Vec<Vec<f32>> = shapes.iter().map(|dims| vec![0.25; dims.iter().product()]).collect();
            let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            let mut checksum = 0.0;
            let mut run = || engine.run(&inputs, |outputs| checksum += outputs[0][0]).unwrap();
            run();
            let before_runs = ALLOCATIONS.load(Relaxed);
            run();
            run();
            assert_eq!(
                ALLOCATIONS.load(Relaxed),
                before_runs,
                "{graph} allocates while it runs, {}",
                isa.name()
            );
            assert!(f32::is_finite(checksum));

            let expected = 2 * footprint.weights + footprint.activations;
            let isa = isa.name();
            println!("{graph}, {isa}: {held} bytes held, {expected} expected, {footprint:?}");
            let limit = limit.unwrap_or(expected);
            assert!(held <= limit, "{graph}, {isa}: holds {held} bytes, at most {limit}");
        }
    }
}
