//! The graphs, one by one, on one thread.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::model::engine::{Engine, Kernel};
use crate::model::{Bundle, GraphName, ModelError};

/// How long each graph is run, unless a number of runs is given.
const SPAN: Duration = Duration::from_secs(1);
/// Runs before the clock counts: caches fill, buffers grow.
const WARM_UP: usize = 3;

#[derive(Debug, Serialize)]
pub struct GraphReport {
    pub name: String,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub macs: u64,
    pub int8_share: f64,
    pub kernel: &'static str,
    /// Loading, until it can run.
    pub load_ms: f64,
    /// Bytes held by the loaded graph, where known.
    pub bytes: Option<usize>,
    /// Why it is not computed in integers.
    pub untaken: Option<String>,
}

pub fn of_bundle(bundle: &Bundle, runs: Option<usize>) -> Result<Vec<GraphReport>, ModelError> {
    let graphs = GraphName::ALL.into_iter();
    graphs
        .map(|graph| {
            let unfit = |reason| ModelError::Unfit { graph, reason };
            measure(graph.key(), &bundle.read(graph)?, runs, unfit)
        })
        .collect()
}

pub fn of_file(path: &Path, runs: Option<usize>) -> Result<GraphReport, ModelError> {
    let bytes = std::fs::read(path).map_err(|e| ModelError::Unreadable {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfit = |reason| ModelError::Foreign {
        path: path.to_path_buf(),
        reason,
    };
    measure(&name, &bytes, runs, unfit)
}

fn measure(
    name: &str,
    bytes: &[u8],
    runs: Option<usize>,
    unfit: impl Fn(String) -> ModelError,
) -> Result<GraphReport, ModelError> {
    let kernel = Kernel::wanted().map_err(&unfit)?;
    let started = Instant::now();
    let (mut engine, shapes) =
        Engine::load_file(bytes, kernel).map_err(|e| unfit(format!("cannot be loaded ({e:#})")))?;
    let load = started.elapsed();
    let inputs: Vec<Vec<f32>> = shapes.iter().map(|dims| noise(dims.iter().product())).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut run = || {
        let started = Instant::now();
        engine
            .run(&inputs, |outputs| std::hint::black_box(outputs).len())
            .map(|_| started.elapsed())
            .map_err(|e| unfit(format!("cannot be run ({e:#})")))
    };
    for _ in 0..WARM_UP {
        run()?;
    }
    let mut times = Vec::new();
    let started = Instant::now();
    while runs.map_or(started.elapsed() < SPAN, |runs| times.len() < runs) {
        times.push(run()?);
    }
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    Ok(GraphReport {
        name: name.to_string(),
        median_ms: at(0.5),
        p99_ms: at(0.99),
        macs: engine.macs(),
        int8_share: if engine.kernel() == "tract" { 0.0 } else { 1.0 },
        kernel: engine.kernel(),
        load_ms: load.as_secs_f64() * 1e3,
        bytes: engine.bytes(),
        untaken: engine.untaken().map(ToString::to_string),
    })
}

/// Values in −1..1, always the same.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / f32::from(2u8).powi(23) - 1.0
        })
        .collect()
}

pub fn print(graphs: &[GraphReport]) {
    println!(
        "{:<28} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7}  kernels",
        "graph", "median", "p99", "M MAC", "GMAC/s", "KiB", "load"
    );
    for g in graphs {
        println!(
            "{:<28} {:>6.3} ms {:>6.3} ms {:>8.1} {:>8.1} {:>8} {:>4.0} ms  {}",
            g.name,
            g.median_ms,
            g.p99_ms,
            g.macs as f64 / 1e6,
            g.macs as f64 / 1e6 / g.median_ms,
            g.bytes.map_or("-".to_string(), |b| b.div_ceil(1024).to_string()),
            g.load_ms,
            g.kernel,
        );
        if let Some(why) = &g.untaken {
            println!("  not in integers: {why}");
        }
    }
}
